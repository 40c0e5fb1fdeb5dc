"""The one command on the first screen: it follows from what is known, and can be typed."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import a_run, evaluation, gain

from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.config import EvaluateConfig, EventLoraConfig
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.report.next_step import next_step
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord
from kronos_shared.cli import Settings, parse

CONFIGS: dict[str, type[Settings]] = {
    "event-lora": EventLoraConfig,
    "evaluate": EvaluateConfig,
    "walk-forward": WalkForwardConfig,
    "ablate": AblateConfig,
}
SETTINGS = {
    **{"epochs": 3, "event_weight": 3.0, "control": False, "run_dir": "runs/mine", "snapshot": "my data"},
    **{"base_model": "runs/base", "adapter_store": "store"},
}
FORECASTS: dict[str, Any] = {"origins": 120, "groups": []}
UNDECIDED = gain(0.05, -0.1, 0.2)


def run_with(found: dict[str, Any] | None, *, quiet: float = 3.8, **evaluations: Any) -> RunRecord:
    return replace(a_run(found, quiet=quiet), config=SETTINGS, evaluations=evaluations)


@pytest.mark.parametrize(
    ("run", "command"),
    [
        (run_with(None), "event-lora --epochs 3 --snapshot 'my data' --base-model runs/base"),
        (run_with(gain(dates=12)), "walk-forward --snapshot 'my data' --base-model runs/base"),
        (run_with(UNDECIDED), "walk-forward --snapshot 'my data' --base-model runs/base"),
        (run_with(gain(-0.2, -0.3, -0.1)), "ablate --snapshot 'my data' --base-model runs/base"),
        (run_with(gain(), quiet=4.3), "event-lora --epochs 3 --event-weight 1"),
        (run_with(gain()), "evaluate --adapter runs/mine/adapter --snapshot 'my data'"),
        (
            run_with(gain(), val={"forecasts": FORECASTS | {"origins": 29}}),
            "evaluate --adapter runs/mine/adapter --snapshot 'my data'",
        ),
        (run_with(gain(), val={"forecasts": FORECASTS}), "evaluate --split test --open-test-split"),
    ],
    ids=["no control", "few", "undecided", "worse", "quiet", "no forecasts", "few forecasts", "test"],
)
def test_what_would_teach_most_comes_next(run: RunRecord, command: str) -> None:
    typed = shlex.split(next_step(run).command)
    assert typed[:3] == ["python", "-m", "kronos_service.finetune"]
    name, *flags = shlex.split(command)
    assert typed[3] == name
    assert set(flags) <= set(typed)
    assert ("--split" in typed) == ("--split" in flags)
    assert not {"--run-dir", "--no-control", "runs/mine"} & set(typed)
    settings = parse(CONFIGS[name], typed[4:], prog=name, description="")
    assert getattr(settings, "snapshot", None) == Path("my data")


def test_what_a_run_was_asked_for_is_asked_for_again_and_a_remedy_is_not_proposed_twice() -> None:
    run = replace(run_with(None), config=SETTINGS | {"placebo": True})
    assert "--placebo" in shlex.split(next_step(run).command)
    suffering = run_with(gain(), quiet=4.3)
    plain = replace(suffering, config=SETTINGS | {"event_weight": 1.0})
    assert " ablate " in next_step(plain).command


def test_an_adapter_that_has_passed_everything_is_served_where_it_was_published() -> None:
    run = run_with(gain(), val={"forecasts": FORECASTS}, test={})
    promoted = replace(run, finished={"promoted": "000001-abc"})
    assert next_step(promoted).command == "KRONOS_ADAPTERS=store python -m kronos_service.inference serve"
    assert next_step(run).command == (
        "python -m kronos_service.inference forecast --adapter runs/mine/adapter --snapshot 'my data'"
    )


def test_an_evaluation_repeats_the_flags_that_it_was_given() -> None:
    given = {"adapter": "sample", "snapshot": None, "base_model": "kronos-nano"}
    run = evaluation(gain(), given=given, forecasts=None)
    assert next_step(run).command == (
        "python -m kronos_service.finetune evaluate --adapter sample --base-model kronos-nano"
    )
    done = replace(
        run, evaluations={"val": {"forecasts": FORECASTS, "given": given, **gain_of(run)}, "test": {}}
    )
    assert next_step(done).command == "KRONOS_ADAPTERS=sample python -m kronos_service.inference serve"


def gain_of(run: RunRecord) -> dict[str, Any]:
    return {"conditioning_gain": run.evaluations["val"]["conditioning_gain"]}
