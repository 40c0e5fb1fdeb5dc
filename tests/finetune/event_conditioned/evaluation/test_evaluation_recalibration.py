"""Width factors from validation forecasts: a known truth is found, and nothing after the split is read."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from accelerate import Accelerator

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.recalibration import (
    LEVEL,
    RecalibrationError,
    conformity,
    find_factors,
    recalibrate,
)
from kronos_service.finetune.event_conditioned.samples.splits import Splits, build_splits
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_service.model.adapter.read import load_adapter, read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import DAY_KINDS, RecalibrationRecord
from kronos_shared.normalization import Floats

PATHS, HORIZON, SYMBOLS = 64, 3, 4
Forecasts = tuple[Floats, Floats, npt.NDArray[np.int64], npt.NDArray[np.datetime64]]


def simulated(days: int, seed: int, width: Callable[[Any], Any]) -> Forecasts:
    """Normal outcomes of deviation 1, forecast with deviation `width` of the bar's kind: a tenth of the bars
    is of the first tier, a fifth has another event."""
    rng = np.random.default_rng(seed)
    n = days * SYMBOLS
    kinds = rng.choice(3, size=(days, HORIZON), p=(0.1, 0.2, 0.7)).repeat(SYMBOLS, axis=0)
    steps = np.sqrt(np.arange(1, HORIZON + 1))
    level = rng.normal(scale=0.3, size=(n, 1, HORIZON))
    outcome = level[:, 0] + rng.normal(size=(n, HORIZON)) * steps
    samples = level + rng.normal(size=(n, PATHS, HORIZON)) * (width(kinds) * steps)[:, None]
    origin = np.datetime64("2025-01-01") + np.arange(days).repeat(SYMBOLS)
    return samples, outcome, kinds, origin[:, None] + np.arange(1, HORIZON + 1)


def covered(table: RecalibrationRecord, forecasts: Forecasts) -> npt.NDArray[np.bool_]:
    """(n, H): whether the outcome lies in the interval that the table stretches."""
    samples, outcome, kinds, _ = forecasts
    factors = np.array([table.factors[kind] for kind in DAY_KINDS])
    return conformity(samples, outcome) <= factors[kinds, np.arange(HORIZON)]


def test_widths_that_are_half_of_what_they_should_be_are_doubled() -> None:
    halved = lambda kinds: np.full(kinds.shape, 0.5)  # noqa: E731
    table = find_factors(*simulated(150, 0, halved))
    assert all(1.7 < factor < 2.35 for row in table.factors.values() for factor in row)
    assert np.mean([factor for row in table.factors.values() for factor in row]) == pytest.approx(2, rel=0.06)
    fresh = simulated(400, 1, halved)
    inside = covered(table, fresh)
    # the error of the fresh sample and that of the factors, which stand on 150 dates
    error = sqrt(LEVEL * (1 - LEVEL) * (1 / inside.size + 1 / (150 * SYMBOLS * HORIZON)))
    assert inside.mean() == pytest.approx(LEVEL, abs=4 * error)
    raw = (conformity(fresh[0], fresh[1]) <= 1).mean()
    assert raw < LEVEL - 0.2


def test_honest_widths_are_left_about_as_they_are() -> None:
    table = find_factors(*simulated(150, 2, lambda kinds: np.ones(kinds.shape)))
    assert all(0.85 < factor < 1.2 for row in table.factors.values() for factor in row)


def test_a_kind_of_day_has_factors_of_its_own_as_far_as_its_dates_reach() -> None:
    narrow = lambda kinds: np.where(kinds == 0, 0.4, 1.0)  # noqa: E731
    few, many = (find_factors(*simulated(days, 3, narrow)) for days in (60, 2000))
    assert np.mean(many.factors["tier1"]) == pytest.approx(2.5, rel=0.2)
    assert np.mean(many.factors["quiet"]) == pytest.approx(1, rel=0.05)
    # six dates of the first tier count little beside sixty of all kinds
    assert np.mean(few.factors["quiet"]) < np.mean(few.factors["tier1"]) < 1.5


def test_the_table_counts_what_it_stands_on() -> None:
    forecasts = simulated(80, 4, lambda kinds: np.ones(kinds.shape))
    table = find_factors(*forecasts)
    _, _, kinds, dates = forecasts
    for number, kind in enumerate(DAY_KINDS):
        assert table.forecasts[kind] == tuple((kinds == number).sum(axis=0))
        distinct = [len(np.unique(dates[kinds[:, step] == number, step])) for step in range(HORIZON)]
        assert table.dates[kind] == tuple(distinct)
    assert (table.first, table.last, table.paths) == ("2025-01-02", "2025-03-24", PATHS)


def test_a_cell_without_forecasts_takes_the_factor_of_its_step() -> None:
    samples, outcome, kinds, dates = simulated(100, 5, lambda kinds: np.full(kinds.shape, 0.5))
    without = np.where(kinds == 0, 2, kinds)
    table = find_factors(samples, outcome, without, dates)
    assert table.forecasts["tier1"] == (0, 0, 0)
    assert all(1.6 < factor < 2.4 for factor in table.factors["tier1"])


@pytest.mark.parametrize("deviation", [0.0, 1e-3, 1e3])
def test_widths_that_no_factor_mends_are_refused(deviation: float) -> None:
    _, outcome, kinds, dates = simulated(40, 6, lambda kinds: np.ones(kinds.shape))
    ladder = deviation * np.linspace(-1, 1, PATHS)[:, None]
    samples = np.broadcast_to(ladder, (len(outcome), PATHS, HORIZON))
    with pytest.raises(RecalibrationError, match=r"off by a factor from 0\.05 to 20, got"):
        find_factors(samples, outcome, kinds, dates)


CONFIG = EventLoraConfig(forecast_horizon=HORIZON, seed=4)


@pytest.fixture(scope="module")
def adapter(adapter_of: Callable[[int], Path]) -> Path:
    return adapter_of(1)


def found(
    market: Snapshot, splits: Splits, bundle: Bundle, adapter: Path, config: EventLoraConfig = CONFIG
) -> RecalibrationRecord | None:
    setup = TrainingSetup(
        accelerator=Accelerator(), snapshot=market, bundle=bundle, context=72, splits=splits
    )
    return recalibrate(config, setup, load_adapter(read_adapter(adapter), bundle).merged)


@pytest.fixture(scope="module", autouse=True)
def fewer_forecasts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        module = "kronos_service.finetune.event_conditioned.evaluation.recalibration"
        patch.setattr(f"{module}.ORIGINS", 16)
        patch.setattr(f"{module}.PATHS", 24)
        yield


def test_what_comes_after_the_validation_split_changes_no_factor(
    market: Snapshot, splits: Splits, bundle: Bundle, adapter: Path, tmp_path: Path
) -> None:
    table = found(market, splits, bundle, adapter)
    assert table is not None
    split = splits.splits["val"]
    assert str(split.first) <= table.first <= table.last <= str(split.last)
    assert sum(sum(row) for row in table.forecasts.values()) == 16 * HORIZON

    scrambled = scrambled_after(market, split.last)
    spans = {name: (one.first, one.last) for name, one in splits.splits.items()}
    other = build_splits(scrambled, bundle, dates=spans, context=72, scored=8, cache=tmp_path)
    assert found(scrambled, other, bundle, adapter) == table
    # and what comes within it does
    earlier = scrambled_after(market, split.last - np.timedelta64(60, "D"))
    other = build_splits(earlier, bundle, dates=spans, context=72, scored=8, cache=tmp_path)
    assert found(earlier, other, bundle, adapter) != table


def scrambled_after(market: Snapshot, last: np.datetime64) -> Snapshot:
    """Bars after `last` at other prices, and other figures of the releases after it."""
    rng = np.random.default_rng(0)
    bars, calendar = market.bars.copy(), market.calendar.copy()
    later = (bars["ts"].dt.tz_localize(None) > last + np.timedelta64(1, "D")).to_numpy()
    factor = np.exp(rng.normal(scale=0.2, size=later.sum()))
    for name in ("open", "high", "low", "close"):
        bars.loc[later, name] *= factor
    released = (calendar["release_at"].dt.tz_localize(None) > last + np.timedelta64(2, "D")).to_numpy()
    calendar.loc[released, "actual"] += rng.normal(size=released.sum())
    return replace(market, bars=bars, calendar=calendar)


def test_a_split_with_nothing_to_forecast_from_is_said_and_loses_no_training(
    market: Snapshot, splits: Splits, bundle: Bundle, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(splits.splits["val"], last=splits.splits["val"].first)
    narrowed = replace(splits, splits={**splits.splits, "val": short})
    assert found(market, narrowed, bundle, adapter) is None
    assert "not recalibrated: expected bars to forecast from, got none" in capsys.readouterr().out
