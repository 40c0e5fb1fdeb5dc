"""No sample knows the future: scramble what was not usable at as_of(i), and nothing up to i may change."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events import leaders, surprises
from kronos_service.events.sessions import locate, session_dates, sessions
from kronos_service.finetune.event_conditioned.samples import tokens
from kronos_service.finetune.event_conditioned.samples.dataset import Sample
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.splits import Span, Splits, build_splits
from kronos_service.finetune.event_conditioned.samples.windows import Window
from kronos_service.model.factory import Bundle
from kronos_shared.columns import FEATURES
from kronos_shared.normalization import normalize, statistics

# Around both changes of the clock, Independence Day, Thanksgiving and its half day, and Christmas.
SPANS: dict[str, Span] = {
    "train": (np.datetime64("2021-10-25"), np.datetime64("2022-01-10")),
    "val": (np.datetime64("2022-03-07"), np.datetime64("2022-04-01")),
    "test": (np.datetime64("2022-06-27"), np.datetime64("2022-07-20")),
}
INPUTS = ("ohlcv", "stamps", "events", "s1_ids", "s2_ids")


@pytest.fixture(scope="module")
def all_classes(market: Snapshot) -> Snapshot:
    """Two equities and every leader, all tradable, so that samples of all four asset classes are made."""
    chosen = market.symbols["symbol"].isin(["SYN01", "SPY", "BTCUSDT", "DXY", "VIX"])
    symbols = market.symbols[chosen].assign(tradable=True).reset_index(drop=True)
    bars = market.bars[market.bars["symbol"].isin(symbols["symbol"])].reset_index(drop=True)
    return replace(market, symbols=symbols, bars=bars)


def build(snapshot: Snapshot, bundle: Bundle, cache: Path, key: str) -> Splits:
    changed = replace(snapshot, sha256=key * 64)
    return build_splits(changed, bundle, dates=SPANS, context=72, scored=8, cache=cache / key)


def close_times(snapshot: Snapshot) -> npt.NDArray[np.datetime64]:
    """(n,) when each bar of the snapshot closed."""
    closes = np.empty(len(snapshot.bars), dtype="datetime64[ns]")
    classes = dict(zip(snapshot.symbols["symbol"], snapshot.symbols["asset_class"], strict=True))
    for symbol, rows in snapshot.bars.groupby("symbol"):
        days = session_dates(rows["ts"])
        table = sessions(classes[str(symbol)], days[0].item(), days[-1].item())
        closes[rows.index] = table.closes[locate(table, days)]
    return closes


def as_of_of(one: Series, bar: int) -> np.datetime64:
    table = sessions(one.asset_class, one.dates[0].item(), one.dates[-1].item())
    moment: np.datetime64 = table.as_of[np.searchsorted(table.dates, one.dates[bar])]
    return moment


def scramble(snapshot: Snapshot, as_of: np.datetime64, seed: int) -> Snapshot:
    """Bars that close later, figures published later and rows first seen later differ; rows are shuffled."""
    rng = np.random.default_rng(seed)
    bars = snapshot.bars.copy()
    future = close_times(snapshot) > as_of
    factors = np.exp(rng.normal(0, 0.3, int(future.sum())))
    bars.loc[future, list(FEATURES)] = bars.loc[future, list(FEATURES)].mul(factors, axis=0)
    calendar = snapshot.calendar.copy()
    usable = calendar[["release_at", "first_seen_at"]].max(axis=1).dt.tz_localize(None).to_numpy()
    late = usable >= as_of
    calendar.loc[late, "actual"] = rng.normal(0, 100, int(late.sum()))
    moment = pd.Timestamp(as_of, tz="UTC").as_unit("ns")
    later = calendar.sample(20, random_state=seed).assign(
        first_seen_at=moment + pd.Timedelta("1min"), release_at=moment + pd.Timedelta("20h"), actual=9.0
    )
    shuffled = pd.concat([calendar, later]).sample(frac=1, random_state=seed)
    return replace(snapshot, bars=bars, calendar=shuffled)


def assert_no_leak(snapshot: Snapshot, bundle: Bundle, cache: Path, split: str, draw: int, seed: int) -> None:
    whole = build(snapshot, bundle, cache, "a")
    dataset = whole.dataset(split)
    index = draw % len(dataset)
    window = dataset.windows[index]
    rng = np.random.default_rng(seed)
    bar = int(rng.integers(window.first_target - 1, window.stop - 1))
    as_of = as_of_of(whole.series[window.series], bar)
    (cache / "b").mkdir(exist_ok=True)
    for stale in (cache / "b").iterdir():
        stale.unlink()
    other = build(scramble(snapshot, as_of, seed), bundle, cache, "b").dataset(split)
    assert_same_inputs(dataset[index], other[index], bar - window.start + 1)


def assert_same_inputs(first: Sample, second: Sample, positions: int) -> None:
    for name in INPUTS:
        one, other = first[name][:positions], second[name][:positions]  # type: ignore[literal-required]
        assert torch.equal(one, other), f"{name} knows what came after as_of"


@given(split=st.sampled_from(sorted(SPANS)), draw=st.integers(0, 999), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_sample_changes_when_its_future_does(
    all_classes: Snapshot, bundle: Bundle, tmp_path: Path, split: str, draw: int, seed: int
) -> None:
    assert_no_leak(all_classes, bundle, tmp_path, split, draw, seed)


# Planted leaks: each patches one seam, and the property must catch it within a few draws.


def next_leader_bar(leader: Any, as_of: Any) -> Any:
    return np.minimum(np.searchsorted(leader.closed_at, as_of, side="right") + 1, len(leader.closed_at))


def surprise_before_its_release(release_at: Any, first_seen_at: Any) -> Any:
    return np.maximum(release_at, first_seen_at) - np.timedelta64(1, "D")


def whole_window_statistics(series: Sequence[Series], window: Window) -> npt.NDArray[np.float32]:
    features = series[window.series].features[window.start : window.stop]
    return normalize(features, *statistics(features))


LEAKS: list[tuple[Any, str, Callable[..., Any]]] = [
    (leaders, "usable_bars", next_leader_bar),
    (surprises, "usable_from", surprise_before_its_release),
    (tokens, "normalized_window", whole_window_statistics),
]


def assert_no_leak_in_draws(snapshot: Snapshot, bundle: Bundle, cache: Path) -> None:
    for seed in range(30):
        assert_no_leak(snapshot, bundle, cache, sorted(SPANS)[seed % 3], draw=7 * seed, seed=seed)


@pytest.mark.parametrize(("module", "seam", "leak"), LEAKS, ids=[leak[1] for leak in LEAKS])
def test_a_planted_leak_is_caught(
    all_classes: Snapshot,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    seam: str,
    leak: Callable[..., Any],
) -> None:
    monkeypatch.setattr(module, seam, leak)
    with pytest.raises(AssertionError, match="knows what came after as_of"):
        assert_no_leak_in_draws(all_classes, bundle, tmp_path)


def assert_no_target_in_two_splits(splits: Splits) -> None:
    seen: set[tuple[int, int]] = set()
    for name in splits.splits:
        dataset = splits.dataset(name)
        targets = {(w.series, bar) for w in dataset.windows for bar in range(w.first_target, w.stop)}
        assert not seen & targets, f"{len(seen & targets)} targets of {name} are in another split too"
        seen |= targets


def test_no_target_is_in_two_splits_and_an_overlap_is_caught(
    all_classes: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    assert_no_target_in_two_splits(build(all_classes, bundle, tmp_path, "a"))
    overlapping = {"train": SPANS["train"], "val": (SPANS["train"][1], SPANS["val"][1])}
    splits = build_splits(all_classes, bundle, dates=overlapping, context=72, scored=8, cache=tmp_path)
    with pytest.raises(AssertionError, match="targets of val are in another split too"):
        assert_no_target_in_two_splits(splits)
