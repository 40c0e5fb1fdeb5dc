"""One symbol's bars as arrays, with their event rows and labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.data.snapshot import read as snapshots
from kronos_service.events.calendar import calendar_reach
from kronos_service.events.encoder import REACH_DAYS, EventTables, encode_rows, prepare
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import DAILY, Interval, days_of, locate, session_dates, sessions
from kronos_service.events.taxonomy import Taxonomy
from kronos_shared.normalization import feature_matrix, time_features

Conditioning = Literal["real", "zeroed", "permuted", "calendar", "leaders"]
"""Which event rows a model gets: the real ones, zeros, those of other dates, or one side of them only (the
calendar with its surprises and countdown, or the leaders).
"""
Dates = npt.NDArray[np.datetime64]


def calendar_covers(snapshot: snapshots.Snapshot) -> np.datetime64:
    """The last target date about which the snapshot's calendar can say everything."""
    return calendar_reach(snapshot.calendar, snapshot.taxonomy) - np.timedelta64(REACH_DAYS, "D")


@dataclass(frozen=True, kw_only=True)
class Series:
    """A tradable symbol's n bars, ascending. Row i of `events` is about the session after bar i."""

    symbol: str
    asset_class: str
    dates: Dates
    """(n,) session date of each bar, or when it opens if it is shorter than a day."""
    features: npt.NDArray[np.float64]
    """(n, 6) raw open, high, low, close, volume, amount."""
    stamps: npt.NDArray[np.int64]
    """(n, 5) minute, hour, weekday, day, month."""
    events: npt.NDArray[np.float32]
    """(n, C) what was known at as_of(i) about the next session; zero, and never scored, past what the
    calendar covers.
    """
    is_event: npt.NDArray[np.bool_]
    """(n,) whether a high-impact event falls on the bar itself."""
    families: npt.NDArray[np.bool_]
    """(n, families) which families have a high-impact event on the bar itself."""
    follows: npt.NDArray[np.bool_]
    """(n,) whether the bar's session comes right after the session of the bar before it (False for the
    first bar).
    """
    taxonomy: Taxonomy
    """What the columns of `events` and `families` mean."""
    interval: Interval = DAILY
    """How long the bars are."""


def build_series(snapshot: snapshots.Snapshot) -> list[Series]:
    """Every tradable symbol of the snapshot, in the order of its symbol table."""
    tables = prepare(snapshot.calendar, snapshots.leader_data(snapshot), snapshot.taxonomy)
    tradable = snapshot.symbols[snapshot.symbols["tradable"]]
    return [
        _one_series(symbol, asset_class, snapshots.series(snapshot, symbol), tables, snapshot.interval)
        for symbol, asset_class in zip(tradable["symbol"], tradable["asset_class"], strict=True)
    ]


def _one_series(
    symbol: str, asset_class: str, bars: pd.DataFrame, tables: EventTables, interval: Interval
) -> Series:
    dates = session_dates(bars["ts"], interval)
    where = locate(sessions(asset_class, dates[0].item(), dates[-1].item(), interval), dates)
    labels = label_targets(tables.rows, asset_class, dates, interval, symbol=symbol)
    covered = int((days_of(dates[1:]) <= tables.covers).sum())
    events = np.zeros((len(dates), len(tables.taxonomy.channels)), dtype=np.float32)
    events[:covered] = encode_rows(tables, dates[:covered], asset_class, interval=interval, symbol=symbol)
    return Series(
        symbol=symbol,
        asset_class=asset_class,
        dates=dates,
        features=feature_matrix(bars),
        stamps=time_features(pd.DatetimeIndex(bars["ts"])),
        events=events,
        is_event=labels.is_event,
        families=labels.families,
        follows=np.diff(where, prepend=where[0]) == 1,
        interval=interval,
        taxonomy=tables.taxonomy,
    )


def condition(
    series: Sequence[Series], conditioning: Conditioning, boundaries: Sequence[np.datetime64], seed: int
) -> list[Series]:
    """The same series with event rows kept, zeroed (the control), permuted by date (the placebo), or zeroed
    on one side; labels stay real.

    The placebo permutes the dates once per asset class and stretch between `boundaries`: all symbols of a
    class then see the same false calendar, and no row leaves its split.
    """
    if conditioning == "real":
        return list(series)
    if conditioning != "permuted":
        return [
            replace(one, events=np.where(_kept(conditioning, one.taxonomy), one.events, np.float32(0)))
            for one in series
        ]
    if any(one.taxonomy.symbol_types for one in series):
        return _permute_own_rows(series, boundaries, seed)
    rows = {
        name: _rows_by_date([one for one in series if one.asset_class == name])
        for name in {s.asset_class for s in series}
    }
    shuffled = {name: _permute(dates, events, boundaries, seed) for name, (dates, events) in rows.items()}
    return [
        replace(one, events=shuffled[one.asset_class][np.searchsorted(rows[one.asset_class][0], one.dates)])
        for one in series
    ]


def _kept(conditioning: Conditioning, taxonomy: Taxonomy) -> npt.NDArray[np.bool_]:
    """Which channels (C,) stay."""
    is_leader: npt.NDArray[np.bool_] = np.arange(len(taxonomy.channels)) >= taxonomy.first_leader
    if conditioning == "zeroed":
        return np.zeros_like(is_leader)
    return is_leader if conditioning == "leaders" else ~is_leader


def _permute_own_rows(
    series: Sequence[Series], boundaries: Sequence[np.datetime64], seed: int
) -> list[Series]:
    """Each series with its own rows permuted: with symbol events, symbols of a class differ on a date.

    The order is drawn by date, so symbols with the same dates are permuted alike.
    """
    dates = np.unique(np.concatenate([one.dates for one in series]))
    rank = np.random.default_rng(seed).permutation(len(dates))
    permuted = []
    for one in series:
        stretch = np.searchsorted(np.sort(np.asarray(boundaries)), one.dates, side="right")
        drawn, events = rank[np.searchsorted(dates, one.dates)], one.events.copy()
        for number in np.unique(stretch):
            (inside,) = np.nonzero(stretch == number)
            events[inside] = one.events[inside[np.argsort(drawn[inside])]]
        permuted.append(replace(one, events=events))
    return permuted


def _rows_by_date(series: Sequence[Series]) -> tuple[Dates, npt.NDArray[np.float32]]:
    dates, first = np.unique(np.concatenate([one.dates for one in series]), return_index=True)
    return dates, np.concatenate([one.events for one in series])[first]


def _permute(
    dates: Dates, events: npt.NDArray[np.float32], boundaries: Sequence[np.datetime64], seed: int
) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    stretch = np.searchsorted(np.sort(np.asarray(boundaries)), dates, side="right")
    shuffled = events.copy()
    for number in np.unique(stretch):
        (inside,) = np.nonzero(stretch == number)
        shuffled[inside] = events[rng.permutation(inside)]
    return shuffled
