"""Hourly crypto bars from the snapshot to a forecast: what is known when, and who refuses them."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events import leaders
from kronos_service.events.sessions import days_of
from kronos_service.finetune.event_conditioned.audit.audit import AuditSize, run_checks
from kronos_service.finetune.event_conditioned.audit.findings import Audit
from kronos_service.finetune.event_conditioned.config import EvaluateConfig, EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluate import evaluate
from kronos_service.finetune.event_conditioned.event_lora import event_lora
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series
from kronos_service.finetune.event_conditioned.samples.splits import Span, Splits, build_splits
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import read_adapter
from kronos_service.model.factory import Bundle

SPANS: dict[str, Span] = {
    "train": (np.datetime64("2022-03-10"), np.datetime64("2022-04-10")),
    "val": (np.datetime64("2022-04-11"), np.datetime64("2022-04-20")),
}
SIZE = AuditSize(symbols=2, rows=24, windows=2, futures=1)


@pytest.fixture(scope="module")
def series(hourly: Snapshot) -> list[Series]:
    return build_series(hourly)


def split(hourly: Snapshot, bundle: Bundle, cache: Path) -> Splits:
    return build_splits(hourly, bundle, dates=SPANS, context=72, scored=24, cache=cache)


def audited(hourly: Snapshot, bundle: Bundle, cache: Path) -> Audit:
    splits = split(hourly, bundle, cache)
    return run_checks(hourly, splits, bundle, size=SIZE, quick=True, seed=0)


def test_a_release_falls_on_the_bar_whose_hour_holds_it_and_moves_the_next(
    hourly: Snapshot, series: list[Series]
) -> None:
    usd = hourly.calendar[(hourly.calendar["currency"] == "USD") & (hourly.calendar["impact"] == "high")]
    inside = usd[(usd["release_at"] >= "2022-03-10") & (usd["release_at"] < "2022-06-01")]
    hours = set(inside["release_at"].dt.tz_localize(None).dt.floor("h"))
    one = series[0]
    found = (days_of(one.dates) >= np.datetime64("2022-03-10")) & (
        days_of(one.dates) < np.datetime64("2022-06-01")
    )
    assert set(pd.DatetimeIndex(one.dates[found & one.is_event])) == hours
    assert len(hours) > 10
    (sits,) = np.nonzero(one.events[:, one.taxonomy.surprise])
    # the surprise of an hour is an input from its close on: position i is about bar i + 1
    assert len(sits)
    assert all(one.is_event[bar] or (one.events[bar, one.taxonomy.surprise] != 0) for bar in sits)
    on_target = one.events[:-1, one.taxonomy.days_until] == 1.0
    assert (on_target[one.is_event[1:]]).all()


def test_time_features_hold_the_hour_and_leaders_move_once_a_day(series: list[Series]) -> None:
    one = series[0]
    assert set(one.stamps[:, 1]) == set(range(24))
    assert one.interval == "1h"
    moved = one.events[:, one.taxonomy.first_leader + one.taxonomy.leaders.index("SPY")] != 0
    closes = {20, 21}  # 16:00 in New York, in summer and in winter
    hours = pd.DatetimeIndex(one.dates[moved]).hour + 1
    assert moved.any()
    assert set(hours) <= closes | {18}


def test_the_audit_recomputes_hourly_bars_and_finds_nothing(
    hourly: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    found = audited(hourly, bundle, tmp_path)
    assert not found.leaks, found.leaks[:3]
    assert {check.name for check in found.checks} >= {"session times", "event channels", "future scrambled"}


def one_leader_bar_ahead(leader: Any, as_of: Any) -> Any:
    return np.minimum(np.searchsorted(leader.closed_at, as_of, side="right") + 1, len(leader.closed_at))


def test_the_audit_catches_a_planted_leak(
    hourly: Snapshot, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaders, "usable_bars", one_leader_bar_ahead)
    assert audited(hourly, bundle, tmp_path).leaks


@pytest.mark.slow
def test_a_training_on_hourly_bars_ends_with_an_adapter_of_them(
    hourly_path: Path, base_path: Path, tmp_path: Path
) -> None:
    config = EventLoraConfig(
        snapshot=hourly_path,
        base_model=str(base_path),
        train_start=date(2022, 3, 10),
        val_start=date(2022, 4, 11),
        test_start=date(2022, 5, 1),
        test_end=date(2022, 5, 10),
        epochs=1,
        context=64,
        targets_per_window=24,
        promote="always",
        forecast_paths=20,
        run_dir=tmp_path / "run",
        adapter_store=tmp_path / "adapters",
    )
    result = event_lora(config)
    assert result.promoted
    assert read_adapter(tmp_path / "run" / "adapter").manifest.data.interval == "1h"
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(AdapterError, match=r"trained on 1h bars, and snapshot .* has 1d ones"):
        evaluate(EvaluateConfig(adapter=tmp_path / "adapters", base_model=str(base_path)))
