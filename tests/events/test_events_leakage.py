"""The heart of the project: what could not be known at as_of(i) changes no encoded row up to i by one bit."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from event_samples import ANCHORS, World, bars_of, random_moments, random_rows, random_world, span_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kronos_service.events import encoder, leaders, surprises
from kronos_service.events.calendar import ALWAYS, CalendarRows, read_calendar
from kronos_service.events.encoder import encode_rows
from kronos_service.events.leaders import Leader
from kronos_service.events.sessions import DAILY, Interval, Sessions, locate, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.columns import ASSET_CLASSES

seeds = st.integers(0, 2**32 - 1)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""No shrinking: a smaller seed is not a smaller world."""


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
@given(anchor=st.sampled_from(ANCHORS), seed=seeds)
@settings(max_examples=30, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_unknown_at_as_of_reaches_an_encoded_row(asset_class: str, anchor: date, seed: int) -> None:
    assert_no_leak(*two_worlds(asset_class, DAILY, anchor, seed))


@given(anchor=st.sampled_from(ANCHORS), seed=seeds)
@settings(max_examples=12, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_unknown_at_as_of_reaches_a_row_of_hourly_bars(anchor: date, seed: int) -> None:
    assert_no_leak(*two_worlds("crypto", "1h", anchor, seed))


def two_worlds(asset_class: str, interval: Interval, anchor: date, seed: int) -> tuple[World, World, int]:
    """A world, the same with everything scrambled that is not usable at as_of(i), and a random i."""
    rng = np.random.default_rng(seed)
    world = random_world(asset_class, anchor, seed, interval)
    span = span_of(interval)
    table = sessions(asset_class, anchor - span, anchor + span, interval)
    known_at = table.as_of[locate(table, world.bars["ts"])]
    i = int(rng.integers(len(world.bars))) if interval == DAILY else near_news(world, known_at, rng)
    as_of = pd.Timestamp(known_at[i], tz="UTC")
    return world, scramble(world, anchor, i, as_of, rng), i


def assert_no_leak(world: World, other: World, i: int) -> None:
    """The rows of both worlds up to i are the same, bit for bit."""
    asset_class, interval = world.asset_class, world.interval
    both = [(w.tables(), w.bars["ts"]) for w in (world, other)]
    assert_same_bits(
        *(
            encode_rows(tables, ts, asset_class, interval=interval, symbol=None)[: i + 1]
            for tables, ts in both
        )
    )
    # The same for what a forecast made at i would be given.
    assert_same_bits(
        *(
            encode_rows(tables, ts[: i + 1], asset_class, interval=interval, symbol=None, horizon=6)
            for tables, ts in both
        )
    )


def near_news(world: World, as_of: npt.NDArray[np.datetime64], rng: np.random.Generator) -> int:
    """The first bar whose as_of is not before some release or first sight: of many bars few are near one."""
    moments = world.calendar[["release_at", "first_seen_at"]].stack().dropna().dt.tz_localize(None).to_numpy()
    inside = moments[(moments >= as_of[0]) & (moments <= as_of[-1])]
    return int(np.searchsorted(as_of, rng.choice(inside)))


def scramble(world: World, anchor: date, i: int, as_of: pd.Timestamp, rng: np.random.Generator) -> World:
    """Another world that nobody could tell from this one at `as_of`, with its rows in another order."""
    span = span_of(world.interval)
    table = sessions(world.asset_class, anchor - span, anchor + 2 * span, world.interval)
    later = table.dates[table.dates > world.bars["ts"].iloc[i].tz_localize(None).to_numpy()]
    bars = pd.concat([world.bars.iloc[: i + 1], bars_of(later[rng.random(len(later)) < 0.5])])
    return World(
        asset_class=world.asset_class,
        bars=bars,
        calendar=scramble_calendar(world, anchor, as_of, rng),
        leaders={name: scramble_leader(name, frame, as_of, rng) for name, frame in world.leaders.items()},
        interval=world.interval,
    )


def scramble_calendar(
    world: World, anchor: date, as_of: pd.Timestamp, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows first seen later are dropped and others invented; what was published later gets other figures."""
    seen = world.calendar["first_seen_at"]
    known = world.calendar[seen.isna() | (seen <= as_of)].copy()
    usable_from = known[["release_at", "first_seen_at"]].max(axis=1)
    unpublished = (usable_from >= as_of).to_numpy()
    for column in ("actual", "forecast", "previous"):
        figures = rng.choice([np.nan, -3.0, 0.5, 7.0], int(unpublished.sum()))
        known.loc[unpublished, column] = figures
    ids = [str(name) for name in rng.choice([*known["event_id"].unique(), "new-1", "new-2"], 12)]
    moments = random_moments(world.asset_class, anchor, rng, 12, world.interval)
    after = moments.where(moments > as_of, as_of + pd.Timedelta(1, "ns"))
    invented = pd.DataFrame(
        random_rows(world.asset_class, anchor, rng, ids, after.as_unit("ns"), world.interval)
    )
    frame = pd.concat([known, invented]).drop_duplicates(["event_id", "first_seen_at"])
    return frame.sample(frac=1, random_state=int(rng.integers(2**31)))


def scramble_leader(
    name: str, frame: pd.DataFrame, as_of: pd.Timestamp, rng: np.random.Generator
) -> pd.DataFrame:
    """The leader's bars that close after `as_of` are others; those up to it stay."""
    start = frame["ts"].min().date()
    table = sessions(DEFAULT_TAXONOMY.leader_asset_class[name], start, as_of.date() + timedelta(days=60))
    closes = pd.DatetimeIndex(table.closes[locate(table, frame["ts"])]).tz_localize("UTC")
    future = table.dates[table.closes > as_of.tz_localize(None).to_numpy()]
    future = future[rng.random(len(future)) < 0.7]
    invented = bars_of(future).assign(close=rng.uniform(1, 500, len(future)))
    whole = pd.concat([frame[closes <= as_of], invented])
    return whole.sample(frac=1, random_state=int(rng.integers(2**31)))


def assert_same_bits(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> None:
    assert first.shape == second.shape
    different = np.argwhere(first.view(np.uint32) != second.view(np.uint32))
    assert len(different) == 0, f"{len(different)} values differ, the first at (row, channel) {different[0]}"


# Planted leaks: each patches one seam of the encoder, and the property above must catch it.


def one_leader_bar_ahead(leader: Leader, as_of: Any) -> Any:
    count = np.searchsorted(leader.closed_at, as_of, side="right")
    return np.minimum(count + 1, len(leader.closed_at))


def one_day_before_the_release(release_at: Any, first_seen_at: Any) -> Any:
    return np.maximum(release_at, first_seen_at) - np.timedelta64(1, "D")


def at_the_release_itself(release_at: Any, first_seen_at: Any) -> Any:
    """Puts `<=` where `<` belongs: usable although known only at as_of, not before."""
    return np.maximum(release_at, first_seen_at) - np.timedelta64(1, "ns")


def whenever_first_seen(release_at: Any, _first_seen_at: Any) -> Any:
    return release_at


def scale_from_all_surprises(_usable_at: Any, value: Any) -> Any:
    return np.full(len(value), value.std(ddof=1) if len(value) > 1 else 0.0)


def all_versions_always_known(calendar: pd.DataFrame, taxonomy: Taxonomy) -> CalendarRows:
    rows = read_calendar(calendar, taxonomy)
    return replace(rows, first_seen_at=np.full(len(rows.first_seen_at), ALWAYS))


def known_until_the_next_close(asset_class: str, start: date, end: date, interval: Interval) -> Sessions:
    """as_of two hours late on a half day, and a whole bar late everywhere else."""
    table = sessions(asset_class, start, end, interval)
    return replace(table, as_of=np.append(table.closes[1:], table.as_of[-1]))


def an_hour_after_every_close(asset_class: str, start: date, end: date, interval: Interval) -> Sessions:
    """Forgets that the next bar may open before that hour is over."""
    table = sessions(asset_class, start, end, interval)
    return replace(table, as_of=table.closes + np.timedelta64(1, "h"))


LEAKS: list[tuple[Any, str, Callable[..., Any]]] = [
    (leaders, "usable_bars", one_leader_bar_ahead),
    (surprises, "usable_from", one_day_before_the_release),
    (surprises, "usable_from", at_the_release_itself),
    (surprises, "usable_from", whenever_first_seen),
    (surprises, "_sigma", scale_from_all_surprises),
    (encoder, "read_calendar", all_versions_always_known),
    (encoder, "sessions", known_until_the_next_close),
]


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
@pytest.mark.parametrize(("module", "name", "leak"), LEAKS, ids=[leak.__name__ for _, _, leak in LEAKS])
def test_a_planted_leak_is_caught(
    monkeypatch: pytest.MonkeyPatch, asset_class: str, module: Any, name: str, leak: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, name, leak)
    assert leaks(asset_class)


@pytest.mark.parametrize(("module", "name", "leak"), LEAKS, ids=[leak.__name__ for _, _, leak in LEAKS])
def test_a_planted_leak_is_caught_in_hourly_bars(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, leak: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, name, leak)
    assert leaks("crypto", "1h")


@pytest.mark.parametrize(("asset_class", "interval"), [("crypto", DAILY), ("fx", DAILY), ("crypto", "1h")])
def test_waiting_an_hour_after_a_close_is_a_leak_where_the_next_bar_has_opened(
    monkeypatch: pytest.MonkeyPatch, asset_class: str, interval: Interval
) -> None:
    monkeypatch.setattr(encoder, "sessions", an_hour_after_every_close)
    assert leaks(asset_class, interval)


@pytest.mark.parametrize(
    ("asset_class", "interval"), [*((one, DAILY) for one in ASSET_CLASSES), ("crypto", "1h")]
)
def test_the_worlds_that_catch_the_planted_leaks_find_none_without_them(
    asset_class: str, interval: Interval
) -> None:
    assert not leaks(asset_class, interval)


fixed_worlds = cache(two_worlds)
"""Those that every planted leak is looked for in; no leak is planted in what makes them."""


def leaks(asset_class: str, interval: Interval = DAILY) -> bool:
    """Whether the property fails in one of a few fixed worlds."""
    for seed in range(24):
        try:
            assert_no_leak(*fixed_worlds(asset_class, interval, ANCHORS[seed % len(ANCHORS)], seed))
        except AssertionError:
            return True
    return False
