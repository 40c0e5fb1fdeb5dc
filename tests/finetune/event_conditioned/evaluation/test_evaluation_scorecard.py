"""The figures of a track record, and when its coverage is an alarm: never for an honest model."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.finetune.event_conditioned.evaluation.metrics import judge_quantiles, score_samples
from kronos_service.finetune.event_conditioned.evaluation.scorecard import (
    Coverage,
    recent_coverage,
    scorecard,
)
from kronos_service.finetune.event_conditioned.evaluation.track_record import BASE, TrackRecord

H, PATHS, SYMBOLS = 5, 20, 12


def simulated(seed: int, *, scale: float = 1.0, days: int = 60, version: str = "v") -> TrackRecord:
    """Forecasts of every day for the next 5 of correlated random walks, from the true distribution with its
    width times `scale`: the market moves half of each symbol's variance.
    """
    rng = np.random.default_rng(seed)
    returns = 0.02 * (
        np.sqrt(0.5) * rng.normal(size=(days + H, 1)) + np.sqrt(0.5) * rng.normal(size=(days + H, SYMBOLS))
    )
    steps = np.arange(1, H + 1)
    outcome = np.stack([returns[day : day + H].cumsum(axis=0).T for day in range(days)])  # (days, S, H)
    paths = scale * 0.02 * rng.normal(size=(days, SYMBOLS, PATHS, H)).cumsum(axis=-1)
    columns = score_samples(paths.reshape(-1, PATHS, H), outcome.reshape(-1, H), rng)
    columns |= judge_quantiles(columns, outcome.reshape(-1, H))
    dates = pd.bdate_range("2026-01-01", periods=days + H + 1).to_numpy()
    day, symbol, step = (
        one.ravel() for one in np.meshgrid(range(days), range(SYMBOLS), steps, indexing="ij")
    )
    frame = pd.DataFrame(
        {"symbol": symbol.astype(str), "origin": dates[day], "date": dates[day + step], "step": step}
    )
    values = {name: column.ravel() for name, column in columns.items()}
    scores = frame.assign(
        **values,
        is_event=day % 7 == 0,
        version=version,
        digest="0" * 64,
        width=values["q95"] - values["q05"],
        rw_crps=values["crps"] + 0.001,
        rw_width=0.1,
    )
    return TrackRecord(scores=scores, pending=2, unknown=1)


def coverage_of(record: TrackRecord, steps: str) -> list[Coverage]:
    return [one for one in recent_coverage(record, days=400) if one.steps == steps]


@pytest.mark.parametrize(("days", "judged"), [(30, "1"), (60, "1"), (60, "all")])
def test_an_honest_model_raises_no_alarm_and_halved_widths_always_do(days: int, judged: str) -> None:
    for seed in range(20):
        honest = coverage_of(simulated(seed, days=days), judged)
        assert [one.interval for one in honest] == ["50", "80", "90"]
        assert all(one.is_inside for one in honest), (seed, honest)
        halved = coverage_of(simulated(seed, scale=0.5, days=days), judged)
        assert not all(one.is_inside for one in halved), seed
        assert all(one.share < (one.low + one.high) / 2 for one in halved)


def test_only_the_last_days_and_only_enough_of_them_are_judged() -> None:
    early, late = simulated(0, scale=0.4, days=60), simulated(1, days=35)
    moved = late.scores.assign(
        origin=late.scores["origin"] + np.timedelta64(140, "D"),
        date=late.scores["date"] + np.timedelta64(140, "D"),
    )
    both = TrackRecord(scores=pd.concat([early.scores, moved]), pending=0, unknown=0)
    assert all(one.is_inside for one in recent_coverage(both, days=60))
    assert not all(one.is_inside for one in recent_coverage(both, days=400))
    assert recent_coverage(both, days=30) == []


def test_the_base_is_judged_only_where_nothing_else_forecast() -> None:
    narrow = simulated(0, scale=0.4, version=BASE)
    alone = recent_coverage(narrow, days=90)
    assert {one.version for one in alone} == {BASE}
    assert not any(one.is_inside for one in alone)
    both = TrackRecord(scores=pd.concat([narrow.scores, simulated(1).scores]), pending=0, unknown=0)
    assert {one.version for one in recent_coverage(both, days=90)} == {"v"}


def test_the_figures_are_those_of_the_rows_per_version_group_and_month() -> None:
    record = simulated(3)
    base = record.scores.assign(version=BASE, crps=record.scores["crps"] + 0.002)[::2]
    both = TrackRecord(scores=pd.concat([record.scores, base], ignore_index=True), pending=2, unknown=1)
    found = scorecard(both)
    json.dumps(found, allow_nan=False)
    assert (found["targets"], found["pending"], found["unknown"]) == (len(both.scores), 2, 1)
    versions: dict[str, Any] = {one["version"]: one for one in found["versions"]}
    assert set(versions) == {"v", BASE}
    groups = {(one["by"], one["group"], one["steps"]): one for one in versions["v"]["groups"]}
    rows = record.scores
    for key, chosen in (
        (("all", "all", "all"), rows),
        (("day", "event", "1"), rows[rows["is_event"] & (rows["step"] == 1)]),
        (("month", "2026-02", "all"), rows[rows["date"].dt.month == 2]),
    ):
        one = groups[key]
        assert one["targets"] == len(chosen)
        for name in ("crps", "width", "inside_80"):
            assert one[name]["mean"] == pytest.approx(chosen[name].mean(), rel=1e-12)
        assert one["crps"]["low"] < one["crps"]["mean"] < one["crps"]["high"]
        assert one["over_walk"]["mean"] == pytest.approx(0.001)
        assert one["over_base"]["mean"] == pytest.approx(0.002)
    assert all(one["over_base"] is None for one in versions[BASE]["groups"])
    assert sum(versions["v"]["pit"]) == 60 * SYMBOLS
