"""What one dummy for tier-1 days is worth on real bars: the yardsticks on yearly folds, and a placebo.

Real data is no part of this repository: name a directory of tables (or a snapshot) with bars and a calendar
from 2021 to 2025-06, and read the figures with `-s`.

    DATA=path/to/tables pytest -m slow -s tests/benchmarks/test_benchmark_yardsticks.py
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation import garch
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import DatedMean, mean_over_dates
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import fit_yardsticks, score_yardsticks
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("DATA" not in os.environ, reason="needs real bars: DATA=path/to/tables"),
    pytest.mark.timeout(1800),
]
START = np.datetime64("2021-01-01")
FOLDS = [
    (np.datetime64(first), np.datetime64(last))
    for first, last in (
        ("2022-01-01", "2022-12-31"),
        ("2023-01-01", "2023-12-31"),
        ("2024-01-01", "2024-12-31"),
        ("2025-01-01", "2025-06-30"),
    )
]
PLACEBOS = 5
CHANNELS = [DEFAULT_TAXONOMY.families.index(name) for name in DEFAULT_TAXONOMY.tier1]


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return load_snapshot(os.environ["DATA"])


@pytest.fixture(scope="module")
def equities(snapshot: Snapshot) -> list[Series]:
    return [one for one in build_series(snapshot) if one.asset_class == "us_equity"]


@pytest.fixture(autouse=True)
def without_garch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the regressions are wanted here."""
    monkeypatch.setattr(garch, "find_spec", lambda name: None)


def lead(snapshot: Snapshot, series: Sequence[Series]) -> pd.DataFrame:
    """Per target of all folds: the log score of har_events less that of har, and their QLIKE."""
    frames = []
    for first, last in FOLDS:
        fitted = fit_yardsticks(snapshot, series, first=START, last=first - np.timedelta64(1, "D"))
        scores = score_yardsticks(fitted, series, first=first, last=last)
        har, har_events = (
            scores[scores["model"] == name].set_index(["symbol", "date"]) for name in ("har", "har_events")
        )
        gain = har_events["range_log_score"] - har["range_log_score"]
        frames.append(
            har.assign(fold=str(first)[:4], gain=gain, qlike_events=har_events["range_qlike"]).reset_index()
        )
    return pd.concat(frames, ignore_index=True)


def mean(rows: pd.DataFrame) -> DatedMean:
    return mean_over_dates(rows["gain"], rows["date"], seed=0)


def permuted(series: Sequence[Series], seed: int) -> list[Series]:
    """Tier-1 days drawn anew within each year and weekday, in the event rows and in the labels."""
    dates = np.unique(np.concatenate([one.dates for one in series]))
    marked = np.zeros(len(dates), dtype=np.bool_)
    for one in series:
        marked[np.searchsorted(dates, one.dates)] |= one.families[:, CHANNELS].any(axis=1)
    year = dates.astype("datetime64[Y]").astype(np.int64)
    key = 7 * year + (dates.astype(np.int64) + 3) % 7
    rng = np.random.default_rng(seed)
    for value in np.unique(key):
        (inside,) = np.nonzero(key == value)
        marked[inside] = marked[rng.permutation(inside)]
    changed = []
    for one in series:
        label = marked[np.searchsorted(dates, one.dates)]
        events, families = one.events.copy(), one.families.copy()
        events[:-1, CHANNELS], families[:, CHANNELS] = label[1:, None], label[:, None]
        changed.append(replace(one, events=events, families=families))
    return changed


def test_one_dummy_for_tier_1_days_is_worth_what_was_measured(
    snapshot: Snapshot, equities: list[Series]
) -> None:
    """Gains in nats per bar over all event days and tier-1 days; the pooled ones were +0.021 and +0.068."""
    rows = lead(snapshot, equities)
    parts = [*rows.groupby("fold"), ("all", rows)]
    for name, part in parts:
        event, tier1 = mean(part[part["is_event"]]), mean(part[part["tier1"]])
        print(  # noqa: T201
            f"{name}: event days {event.mean:+.4f} [{event.low:+.4f}, {event.high:+.4f}] ({event.dates} "
            f"dates), tier 1 {tier1.mean:+.4f} [{tier1.low:+.4f}, {tier1.high:+.4f}] ({tier1.dates} dates)"
        )
    tier1_rows = rows[rows["tier1"]]
    change = 100 * (tier1_rows["qlike_events"].mean() / tier1_rows["range_qlike"].mean() - 1)
    print(f"QLIKE of the range on tier-1 days: {change:+.1f} %")  # noqa: T201
    event, tier1 = mean(rows[rows["is_event"]]), mean(tier1_rows)
    assert (event.dates, tier1.dates) == (340, 110)
    assert event.mean == pytest.approx(0.021, abs=0.005)
    assert tier1.mean == pytest.approx(0.068, abs=0.005)


def test_a_placebo_gains_nothing(snapshot: Snapshot, equities: list[Series]) -> None:
    found = []
    for seed in range(PLACEBOS):
        rows = lead(snapshot, permuted(equities, seed))
        found.append(mean(rows[rows["tier1"]]).mean)
    print(f"placebo: mean {np.mean(found):+.4f}, highest {max(found):+.4f}")  # noqa: T201
    assert np.mean(found) < 0.01
    assert max(found) < 0.068
