"""What to do next with a run: the one command that would teach most now."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.config import EventLoraConfig, current
from kronos_service.finetune.event_conditioned.evaluation.criteria import FEWEST_TARGETS
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord
from kronos_service.finetune.event_conditioned.report.verdict import (
    against_base,
    gain_of,
    judge_gain,
    suffers,
)
from kronos_shared.cli import Settings, command_line

SERVICE: Final = "python -m kronos_service.inference"
TEST_SPLIT: Final[Mapping[str, object]] = {"split": "test", "open_test_split": True}
SOURCES: Final = ("snapshot", "base_model", "revision", "tokenizer", "tokenizer_revision")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do next, and the command that does it."""

    why: str
    command: str


def next_step(run: RunRecord) -> Step:
    """The one command that would teach most now."""
    found, given = judge_gain(gain_of(run)), sources(run)
    if run.config is not None and found == "unknown":
        why = "Train it once more with a control: only that tells what the events are worth."
        return Step(why=why, command=train_again(run.config))
    if run.config is not None and found in ("few", "undecided"):
        why = "More dates decide: train and score one period after another, and pool them."
        return Step(why=why, command=command_line(PROGRAM, "walk-forward", given))
    if found == "worse":
        why = "Find the part that hurts: train it with one thing changed at a time."
        return Step(why=why, command=command_line(PROGRAM, "ablate", given))
    if run.config is not None and suffers(against_base(run, "quiet")):
        if current(run.config)["event_weight"] == 1:
            why = "Days without events suffer: train it with one thing changed at a time."
            return Step(why=why, command=command_line(PROGRAM, "ablate", given))
        why = "Days without events suffer: train it again with no extra weight on event days."
        return Step(why=why, command=train_again(run.config, event_weight=1))
    forecasts = run.evaluations.get("val", {}).get("forecasts")
    if forecasts is None or forecasts["origins"] < FEWEST_TARGETS:
        why = "Make enough forecasts to judge them."
        return Step(why=why, command=evaluate_command(run))
    if "test" not in run.evaluations:
        why = "When everything is decided, look at the test split, once."
        return Step(why=why, command=evaluate_command(run, **TEST_SPLIT))
    if run.config is None:
        return Step(why="Serve it.", command=serve_command(str(given_to(run).get("adapter", "adapters"))))
    if (run.finished or {}).get("promoted"):
        return Step(why="Serve it.", command=serve_command(run.config.get("adapter_store", "adapters")))
    why = "It was not promoted: look at a forecast of it."
    asked = {"adapter": run.directory / "adapter", "snapshot": given["snapshot"]}
    return Step(why=why, command=command_line(SERVICE, "forecast", asked))


def serve_command(store: str) -> str:
    """The service on the adapters of a store."""
    return f"KRONOS_ADAPTERS={shlex.quote(store)} {SERVICE} serve"


def train_again(config: Mapping[str, Any], **changes: object) -> str:
    """The training's command, its settings as they were but for the changes, and with a control."""
    given = as_given(EventLoraConfig, current(config)) | {"run_dir": None} | changes
    return command_line(PROGRAM, "event-lora", given)


def as_given(settings: type[Settings], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of settings that a run has saved: those with a value other than the usual one."""
    usual = settings().model_dump(mode="json")
    return {
        name: value
        for name, value in saved.items()
        if name in usual and value != usual[name] and value is not False
    }


def evaluate_command(run: RunRecord, **more: object) -> str:
    """The command that makes forecasts, with the flags that this run or evaluation was given, and more."""
    adapter = (
        run.directory / "adapter" if run.config is not None else given_to(run).get("adapter", "adapters")
    )
    return command_line(PROGRAM, "evaluate", {"adapter": adapter, **sources(run), **more})


def sources(run: RunRecord) -> dict[str, Any]:
    """The flags that say which data and which base."""
    given = given_to(run) if run.config is None else run.config
    return {name: given.get(name) for name in SOURCES}


def given_to(run: RunRecord) -> Mapping[str, Any]:
    """What its evaluation was asked for; empty where that was not written down."""
    return next((one["given"] for one in run.evaluations.values() if "given" in one), {})
