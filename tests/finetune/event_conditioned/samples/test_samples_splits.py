"""Splits by target date: what the placebo mixes, how far a calendar reaches, and channels that say naught."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.calendar import CalendarError
from kronos_service.events.encoder import REACH_DAYS
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.samples.splits import (
    Span,
    SplitError,
    Splits,
    dead_channels,
    plan_splits,
    require_events,
)
from kronos_service.finetune.event_conditioned.samples.windows import LeftOut

CHANNELS = DEFAULT_TAXONOMY.channels


def test_the_placebo_mixes_all_days_of_a_split_and_none_of_another_or_of_outside(splits: Splits) -> None:
    """Each date's row is a number of its own here, so that every move shows."""
    one = splits.series[0]
    rows = np.arange(len(one.dates), dtype=np.float32)[:, None] * np.ones(len(CHANNELS), dtype=np.float32)
    spans = {
        "train": (one.dates[40], one.dates[59]),
        "val": (one.dates[60], one.dates[69]),  # right after train
        "test": (one.dates[72], one.dates[80]),  # bars between, and after it
    }
    made = {
        name: replace(splits.splits["val"], name=name, first=first, last=last)
        for name, (first, last) in spans.items()
    }
    ours = Splits(series=[replace(one, events=rows)], splits=made)
    moved: dict[str, set[int]] = {name: set() for name in spans}
    for seed in range(30):
        (false,) = ours.conditioned("permuted", seed).series
        for name, (first, last) in spans.items():
            inside = np.flatnonzero((one.dates >= first) & (one.dates <= last))
            assert sorted(false.events[inside, 0]) == inside.tolist()
            moved[name] |= set(inside[false.events[inside, 0] != inside].tolist())
    assert {name: len(days) for name, days in moved.items()} == {"train": 20, "val": 10, "test": 9}


def test_a_calendar_that_ends_more_than_ten_days_before_a_split_is_refused(market: Snapshot) -> None:
    day, symbols = market.bars["ts"].max(), market.symbols["tradable"].sum()

    def plan(reach: pd.Timestamp, day: pd.Timestamp = day) -> LeftOut:
        calendar = market.calendar[market.calendar["release_at"] < reach + timedelta(days=1)]
        last = market.calendar.iloc[[-1]].assign(release_at=reach)
        date = np.datetime64(day.date(), "D")
        spans: dict[str, Span] = {"test": (date, date)}  # one day, so that its only bar is on both ends
        ours = replace(market, calendar=pd.concat([calendar, last]))
        return plan_splits(ours, dates=spans, context=72, scored=8)[1]["test"][1]

    assert plan(day - timedelta(days=REACH_DAYS)).past_the_calendar == symbols
    with pytest.raises(CalendarError, match="the test split has bars to"):
        plan(day - timedelta(days=REACH_DAYS + 1))
    earlier = day - timedelta(days=28)
    assert plan(earlier + timedelta(days=REACH_DAYS - 1), earlier).past_the_calendar == symbols
    # bars after the split ask nothing of the calendar
    assert plan(earlier + timedelta(days=REACH_DAYS), earlier) == LeftOut()


def test_a_split_without_targets_or_without_events_is_refused_with_its_dates(splits: Splits) -> None:
    require_events(splits, "val")
    val = splits.splits["val"]
    span = rf"the val split \({val.first} to {val.last}\)"

    def changed(**changes: Any) -> Splits:
        return replace(splits, splits={**splits.splits, "val": replace(val, **changes)})

    with pytest.raises(SplitError, match=rf"{span} has no targets \(no bars there\)"):
        require_events(changed(windows=[], left_out=LeftOut()), "val")
    with pytest.raises(SplitError, match=rf"{span} has no targets \(5 after a gap\)"):
        require_events(changed(windows=[], left_out=LeftOut(after_a_gap=5)), "val")
    quiet = [replace(one, is_event=np.zeros_like(one.is_event)) for one in splits.series]
    with pytest.raises(SplitError, match=rf"{span} has no event days"):
        require_events(replace(splits, series=quiet), "val")


def test_a_channel_is_dead_that_never_changes_over_the_scored_positions(splits: Splits) -> None:
    dataset = splits.dataset("train")
    window = dataset.windows[0]
    dead = set(dead_channels(dataset))
    assert dead < set(CHANNELS)
    scored = np.concatenate(
        [dataset.series[w.series].events[w.first_target - 1 : w.stop - 1] for w in dataset.windows]
    )
    assert dead == {name for name, column in zip(CHANNELS, scored.T, strict=True) if len(set(column)) == 1}

    def with_events(value: float, *rows: int) -> list[str]:
        """Nothing but `value` in these rows of the first window's series."""
        series = [replace(one, events=np.zeros_like(one.events)) for one in dataset.series]
        series[window.series].events[list(rows), 5] = value
        alone = replace(splits, series=series).dataset("train")
        return [name for name in CHANNELS if name not in dead_channels(alone)]

    assert with_events(0.0, 0) == []
    # Row i is about bar i + 1.
    assert with_events(1.0, window.first_target - 1) == [CHANNELS[5]]
    assert with_events(-1.0, dataset.windows[0].stop - 2) == [CHANNELS[5]]
    assert with_events(1.0, window.first_target - 2) == []
