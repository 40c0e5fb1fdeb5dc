"""The scramble test: change all that was not usable at a moment, and no input up to it may change."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.audit.positions import Position
from kronos_service.finetune.event_conditioned.audit.recompute import moment
from kronos_service.finetune.event_conditioned.audit.rows import Bar, PlainRows
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset, Sample
from kronos_service.finetune.event_conditioned.samples.series import build_series
from kronos_service.finetune.event_conditioned.samples.tokens import tokenize
from kronos_service.model.factory import Bundle
from kronos_shared.columns import FEATURES

INPUTS = ("ohlcv", "stamps", "events", "s1_ids", "s2_ids")
INSERTED = 24
"""New rows, and as many new versions of old ones, that the scrambled calendar sees too late to be used."""


def changed_inputs(
    snapshot: Snapshot, rows: PlainRows, bundle: Bundle, position: Position, seed: int
) -> list[str]:
    """The inputs that differ, at or before the position, between the snapshot and one with another future."""
    known = only(snapshot, [position.symbol])
    as_of = moment(rows, position.symbol, position.bar).as_of
    first = _one_window(known, bundle, position)
    other = _one_window(scramble(known, rows, as_of, seed), bundle, position)
    upto = position.offset + 1
    return [name for name in INPUTS if not torch.equal(first[name][:upto], other[name][:upto])]  # type: ignore[literal-required]


def only(snapshot: Snapshot, symbols: list[str]) -> Snapshot:
    """The snapshot with the bars of the symbols and of the leaders, and the symbols alone tradable."""
    leaders = snapshot.taxonomy.leaders
    wanted = [*symbols, *(leaders if snapshot.leaders is None else ())]
    kept = snapshot.bars["symbol"].isin(wanted)
    table = snapshot.symbols[snapshot.symbols["symbol"].isin([*symbols, *leaders])]
    return replace(
        snapshot,
        bars=snapshot.bars[kept].reset_index(drop=True),
        symbols=table.assign(tradable=table["symbol"].isin(symbols)).reset_index(drop=True),
    )


def scramble(snapshot: Snapshot, rows: PlainRows, as_of: datetime, seed: int) -> Snapshot:
    """Another future: other prices of bars that close later, other figures and rows that appear later."""
    rng = np.random.default_rng(seed)
    leaders = snapshot.leaders
    return replace(
        snapshot,
        bars=_other_bars(snapshot.bars, rows.bars, as_of, rng),
        leaders=None if leaders is None else _other_bars(leaders, rows.leaders, as_of, rng),
        calendar=_other_calendar(snapshot.calendar, as_of, rng, snapshot.taxonomy),
    )


def _one_window(snapshot: Snapshot, bundle: Bundle, position: Position) -> Sample:
    series, windows = build_series(snapshot), [replace(position.window, series=0)]
    with TemporaryDirectory() as cache:
        tokens = tokenize(bundle, series, windows, snapshot_sha256=snapshot.sha256, cache=Path(cache))
    return EventConditionedDataset(series, windows, tokens)[0]


def _other_bars(
    bars: pd.DataFrame, held: dict[str, list[Bar]], as_of: datetime, rng: np.random.Generator
) -> pd.DataFrame:
    closes = {(symbol, _moment(bar.day)): bar.closes for symbol, own in held.items() for bar in own}
    keys = zip(bars["symbol"], bars["ts"].dt.tz_localize(None).dt.to_pydatetime(), strict=True)
    later = np.array([closes[key] > as_of for key in keys])
    factors: npt.NDArray[np.float64] = np.exp(rng.normal(0, 0.3, (int(later.sum()), 1)))
    bars = bars.copy()
    bars.loc[later, list(FEATURES)] = bars.loc[later, list(FEATURES)].to_numpy() * factors
    return bars


def _moment(day: date) -> datetime:
    return day if isinstance(day, datetime) else datetime.combine(day, time())


def _other_calendar(
    calendar: pd.DataFrame, as_of: datetime, rng: np.random.Generator, taxonomy: Taxonomy
) -> pd.DataFrame:
    """Releases only move later, so that the calendar reaches as far as before."""
    calendar = calendar.copy()
    limit = pd.Timestamp(as_of).as_unit("ns")
    unseen = (calendar["first_seen_at"] > limit).to_numpy()
    unpublished = (calendar[["release_at", "first_seen_at"]].max(axis=1) >= limit).to_numpy()
    for column in ("actual", "forecast"):
        calendar.loc[unpublished, column] = rng.normal(0, 100, int(unpublished.sum()))
    calendar.loc[unseen, "release_at"] += pd.to_timedelta(rng.integers(0, 72, int(unseen.sum())), unit="h")
    calendar.loc[unseen, "impact"] = rng.choice(["high", "medium", "low"], int(unseen.sum()))
    return pd.concat([calendar, *_too_late(calendar, limit, rng, taxonomy)], ignore_index=True)


def _too_late(
    calendar: pd.DataFrame, limit: pd.Timestamp, rng: np.random.Generator, taxonomy: Taxonomy
) -> list[pd.DataFrame]:
    """Events announced, and events revised or moved, within the two hours after the limit."""
    counts = taxonomy.counts(calendar["event_type"], calendar["currency"])
    ours = calendar[counts].drop_duplicates("event_id")
    soon = ours[(ours["release_at"] - limit).abs() < timedelta(days=20)]
    made = []
    for number, rows in enumerate((ours, soon)):
        drawn = rows.sample(min(INSERTED, len(rows)), random_state=rng)
        seen = limit + pd.to_timedelta(rng.integers(1, 120, len(drawn)) * 60 + number, unit="s")
        made.append(
            drawn.assign(
                impact="high",
                release_at=limit + pd.to_timedelta(rng.integers(-48, 96, len(drawn)), unit="h"),
                actual=rng.normal(0, 100, len(drawn)),
                forecast=0.0,
                first_seen_at=seen,
            )
        )
    new = made[0].assign(event_id=[f"scramble:{n}" for n in range(len(made[0]))])
    return [new, made[1]]
