"""150K bars and 10K calendar rows in good order, with awkward symbols, revisions and nulls among them."""

from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos_service.data.tables import bar_table, calendar_table, symbol_table
from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

FIRST, LAST = date(2018, 1, 2), date(2025, 6, 30)
SMALL_FIRST = date(2025, 1, 2)
AWKWARD = ("BRK.B", "BRKA", "brk", 'quo"te', "com,ma", "par(en)", "back\\slash", "a b", "ÄÖ", "%25", "_x")
"""Symbols that filters must quote, and that English puts in another order than their bytes."""


class MarketRows(NamedTuple):
    """The truth: typed tables, as a snapshot holds them."""

    symbols: pd.DataFrame
    bars: pd.DataFrame
    calendar: pd.DataFrame


def market_rows(equities: int = 76, events: int = 9_000) -> MarketRows:
    names = [*AWKWARD, *(f"SYN{i:03}" for i in range(max(0, equities - len(AWKWARD))))][:equities]
    classes = dict.fromkeys(names, "us_equity") | dict(DEFAULT_TAXONOMY.leader_asset_class)
    symbols = pd.DataFrame({"symbol": list(classes), "asset_class": list(classes.values()), "tradable": True})
    bars = [_bars(name, kind, seed) for seed, (name, kind) in enumerate(classes.items())]
    return MarketRows(symbol_table(symbols), bar_table(pd.concat(bars)), calendar_table(_calendar(events)))


def small_market_rows() -> MarketRows:
    """A dozen coins and the leaders over half a year: 3K bars, 300 calendar rows."""
    classes = {f"C{i:02}": "crypto" for i in range(12)} | dict(DEFAULT_TAXONOMY.leader_asset_class)
    symbols = pd.DataFrame({"symbol": list(classes), "asset_class": list(classes.values()), "tradable": True})
    bars = [_bars(name, kind, seed, SMALL_FIRST) for seed, (name, kind) in enumerate(classes.items())]
    return MarketRows(symbol_table(symbols), bar_table(pd.concat(bars)), calendar_table(_calendar(270)))


def _bars(symbol: str, asset_class: str, seed: int, first: date = FIRST) -> pd.DataFrame:
    dates = sessions(asset_class, first, LAST).dates
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, len(dates))))
    open_ = np.concatenate([[100.0], close[:-1]])
    stretch = 1 + generator.uniform(0, 0.01, (2, len(dates)))
    volume = generator.uniform(0, 1e9, len(dates))
    return pd.DataFrame(
        {
            "symbol": symbol,
            "ts": pd.DatetimeIndex(dates.astype("datetime64[ns]")).tz_localize("UTC"),
            "open": open_,
            "high": np.maximum(open_, close) * stretch[0],
            "low": np.minimum(open_, close) / stretch[1],
            "close": close,
            "volume": volume,
            "amount": np.where(generator.random(len(dates)) < 0.5, np.nan, volume * close),
        }
    )


def _calendar(events: int) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    types = np.array(sorted(DEFAULT_TAXONOMY.event_types))
    span = pd.Timestamp(LAST) - pd.Timestamp(FIRST)
    released = pd.Timestamp(FIRST, tz="UTC") + pd.to_timedelta(
        generator.uniform(0.001, 1, events) * span.total_seconds() // 60 * 60 + 1, unit="s"
    )
    # Nothing is released on a weekend, and an export refuses a calendar in which most releases are.
    released -= pd.to_timedelta(np.maximum(released.dayofweek - 4, 0), unit="D")
    first = pd.DataFrame(
        {
            "event_id": [f"event:{i:05}" for i in range(events)],
            "event_type": types[generator.integers(0, len(types), events)],
            "event_name": [f"Release “{i}”, {i % 7}" for i in range(events)],
            "currency": np.where(generator.random(events) < 0.9, "USD", "EUR"),
            "impact": np.array(["high", "medium", "low"])[generator.integers(0, 3, events)],
            "release_at": released,
            "actual": np.where(generator.random(events) < 0.1, np.nan, generator.normal(0, 1, events)),
            "forecast": generator.normal(0, 1, events),
            "previous": np.where(generator.random(events) < 0.2, np.nan, generator.normal(0, 1, events)),
            "first_seen_at": pd.NaT,
        }
    )
    # Revisions some days and microseconds after the release; PostgREST shows 0 to 6 digits of a second.
    revised = first.sample(events // 9, random_state=1)
    delay = pd.to_timedelta(generator.integers(1, 10, len(revised)), unit="D")
    digits = pd.to_timedelta(10 ** generator.integers(0, 7, len(revised)), unit="us")
    revised = revised.assign(first_seen_at=revised["release_at"] + delay + digits, actual=0.1)
    return pd.concat([first, revised])
