"""Three small tables in good order: four leaders over January 2024, and a few releases with a revision."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy

NOW = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = (date(2024, 1, 1), date(2024, 1, 31))

Tables = dict[str, pd.DataFrame]


def small_tables(seed: int = 0) -> Tables:
    """Raw frames by the names that `write_snapshot` takes: symbols, bars, calendar."""
    classes = dict(DEFAULT_TAXONOMY.leader_asset_class)
    bars = pd.concat([small_bars(name, asset_class, seed) for name, asset_class in classes.items()])
    symbols = pd.DataFrame({"symbol": list(classes), "asset_class": list(classes.values()), "tradable": True})
    return {"symbols": symbols, "bars": bars.reset_index(drop=True), "calendar": small_calendar()}


def write_small(
    directory: Path,
    tables: Tables | None = None,
    *,
    window: tuple[date, date] = WINDOW,
    source: str = "tests",
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> dict[str, Any]:
    """Make these tables, or the small ones, a snapshot, and return its manifest."""
    given = small_tables() if tables is None else tables
    return write_snapshot(
        directory,
        symbols=given["symbols"],
        bars=given["bars"],
        calendar=given["calendar"],
        window=window,
        source=source,
        now=NOW,
        taxonomy=taxonomy,
    )


def small_bars(symbol: str, asset_class: str, seed: int = 0) -> pd.DataFrame:
    """A random walk over the sessions of January 2024."""
    dates = sessions(asset_class, *WINDOW).dates
    generator = np.random.default_rng([seed, len(symbol)])
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, len(dates))))
    open_ = np.concatenate([[100.0], close[:-1]])
    return pd.DataFrame(
        {
            "symbol": symbol,
            "ts": pd.DatetimeIndex(dates.astype("datetime64[ns]")).tz_localize("UTC"),
            "open": open_,
            "high": np.maximum(open_, close) * 1.01,
            "low": np.minimum(open_, close) * 0.99,
            "close": close,
            "volume": 1000.0,
            "amount": np.nan,
        }
    )


def small_calendar() -> pd.DataFrame:
    """Two types; the second release of cpi was revised in February."""
    rows = [
        ("cpi:1", "cpi", "2024-01-11T13:30:00Z", 3.4, 3.2, None),
        ("nfp:1", "nfp", "2024-01-05T13:30:00Z", 216.0, 170.0, None),
        ("cpi:2", "cpi", "2024-02-13T13:30:00Z", 3.1, 2.9, None),
        ("cpi:2", "cpi", "2024-02-13T13:30:00Z", 3.0, 2.9, "2024-02-20T12:00:00Z"),
    ]
    names = ["event_id", "event_type", "release_at", "actual", "forecast", "first_seen_at"]
    calendar = pd.DataFrame(rows, columns=names)
    return calendar.assign(event_name="A release", currency="USD", impact="high", previous=None)
