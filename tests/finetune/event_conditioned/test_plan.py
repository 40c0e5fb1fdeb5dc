"""The plan says what a run needs and leaves nothing behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.plan import Plan, duration, lines, memory_table, plan
from kronos_service.finetune.event_conditioned.samples.splits import Splits, build_splits
from kronos_service.finetune.event_conditioned.training.memory_budget import GB
from kronos_service.finetune.event_conditioned.training.step_cost import StepCost, step_cost
from kronos_service.model.factory import Bundle

DATES = {
    "train_start": "2021-06-01",
    "val_start": "2022-03-01",
    "test_start": "2022-06-01",
    "test_end": "2022-09-30",
}


@pytest.fixture(scope="module")
def config(market_path: Path, base_path: Path) -> EventLoraConfig:
    settings: dict[str, Any] = {"snapshot": market_path, "base_model": str(base_path), **DATES}
    return EventLoraConfig(**settings, targets_per_window=8, epochs=3, batch_size=10)


@pytest.fixture(scope="module")
def found(config: EventLoraConfig) -> Plan:
    return plan(config)


def test_windows_and_steps_are_those_of_the_run(
    found: Plan, config: EventLoraConfig, market: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    splits: Splits = build_splits(
        market, bundle, dates=config.split_dates(), context=bundle.context, scored=8, cache=tmp_path
    )
    assert found.windows == {name: len(split.windows) for name, split in splits.splits.items()}
    assert found.bars == bundle.context
    windows = found.windows["train"]
    assert found.schedule.steps == 3 * int(np.ceil(windows / 10))
    token_files = sum(path.stat().st_size for path in tmp_path.iterdir())
    weights = (found.trainings + 2) * found.kept.trained_bytes
    assert found.lasting_bytes - weights == pytest.approx(token_files, rel=0.01)


def test_a_control_costs_as_much_again(found: Plan, config: EventLoraConfig) -> None:
    alone = Plan(**{**vars(found), "config": config.replace(control=False, promote="if-better")})
    once = found.flops - alone.flops
    assert alone.flops - once == found.windows["val"] * found.kept.forward_flops  # the base, scored once
    train = config.epochs * found.windows["train"] * found.kept.window_flops
    assert train < once < 1.5 * train


def test_the_choice_is_the_largest_that_fits(found: Plan, config: EventLoraConfig) -> None:
    peaks = {windows: found.peak(windows, False) for windows in (1, 2, 4, 8, 10)}
    for windows, needed in peaks.items():
        tight = Plan(**{**vars(found), "config": config.replace(vram_budget=(needed + 1) / GB)})
        chosen = tight.choice()
        assert (chosen.windows, chosen.checkpointing, chosen.peak_bytes) == (windows, False, needed)
    assert [row[0] for row in memory_table(found).rows] == ["1", "2", "4", "8", "10"]


def test_lines_say_steps_time_and_disk(found: Plan) -> None:
    text = "\n".join(lines(found))
    assert f"= {2 * found.schedule.steps:,}, each of 10 windows" in text
    assert f"{2 * 3 * found.windows['train'] * found.bars:,} bars" in text
    assert "TFLOP/s" in text
    assert "disk:" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.24, "1.2 s"), (119, "119.0 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_durations_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command_trains_nothing_and_leaves_nothing(
    config: EventLoraConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    costs: dict[bool, StepCost] = {}

    def step_cost_once(*given: Any, checkpointing: bool, **named: Any) -> StepCost:
        """It does not depend on the budget."""
        if checkpointing not in costs:
            costs[checkpointing] = step_cost(*given, checkpointing=checkpointing, **named)
        return costs[checkpointing]

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.plan.step_cost", step_cost_once)
    monkeypatch.chdir(tmp_path)
    flags = ["--snapshot", str(config.snapshot), "--base-model", config.base_model]
    flags += [word for name, value in DATES.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert main(["event-lora", "--plan", *flags]) == 0
    assert "--vram-budget 6 would choose 32 windows at once" in capsys.readouterr().out
    assert main(["event-lora", "--plan", "--vram-budget", "0.0001", *flags]) == 2
    assert "raise --vram-budget" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event-lora", "--plan", "--resume"]) == 2
    assert "--plan is about a new run" in capsys.readouterr().err
