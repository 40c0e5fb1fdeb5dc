"""Where training figures go: one JSON line per step or epoch, and a tracker of accelerate's."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from kronos_shared.errors import KronosError

METRICS_FILE = "metrics.jsonl"
PROJECT = "kronos-event-lora"
"""Project or experiment in which mlflow, wandb and trackio list the runs."""


class MetricsError(KronosError):
    """The figures on disk are not those of the run that is to be resumed."""


class TrackerError(KronosError):
    """The tracker asked for is not installed, or does not start."""


class Log(Protocol):
    """What the training loop hands its figures to."""

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Record figures named like `train/loss` at an optimizer step."""

    def size(self) -> int:
        """Bytes of metrics.jsonl that are safely on disk."""


class NoLog:
    """For the processes that are not the main one."""

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None: ...

    def size(self) -> int:
        return 0


class MetricLog:
    """Adds figures to `<directory>/metrics.jsonl`, from `size` bytes on, and to a tracker.

    Lines past `size` were written after the checkpoint that the run resumes from and will be written again,
    so they are cut off.
    """

    def __init__(
        self, directory: Path, *, tracker: str = "tensorboard", size: int = 0, step: int = 0
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_FILE
        self._lines = path.open("ab")
        if self._lines.tell() < size:
            self._lines.close()
            raise MetricsError(
                f"{path} is shorter than when step {step} was checkpointed: put it back, or start a new run"
            )
        self._lines.seek(self._lines.truncate(size))
        self._tracker = _start(tracker, directory, step)

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        self._lines.write((json.dumps({"step": step, "epoch": epoch, **metrics}) + "\n").encode())
        self._lines.flush()
        if self._tracker:
            self._tracker.log(dict(metrics), step=step)

    def size(self) -> int:
        self._lines.flush()
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        if self._tracker:
            self._tracker.finish()


def require_tracker(name: str) -> None:
    """Raise `TrackerError` unless the tracker's library is installed; `none` needs no library."""
    if name != "none" and name not in [one.value for one in get_available_trackers()]:
        raise TrackerError(
            f"the tracker {name} is not installed: pip install {name}, or run event-lora with "
            "--tracker tensorboard or none"
        )


def _start(name: str, directory: Path, step: int) -> GeneralTracker | None:
    # The classes, not Accelerator.init_trackers: one accelerator serves several trainings, and its
    # end_training would leave the process group that the next of them needs.
    if name == "none":
        return None
    # A resumed training is a second run of this name, but in TensorBoard, which can forget what comes again.
    run = "/".join(directory.resolve().parts[-2:])
    settings: dict[str, dict[str, Any]] = {
        "tensorboard": {"logging_dir": directory, "purge_step": step + 1},
        "mlflow": {"run_name": run},
        "wandb": {"name": run, "dir": str(directory)},
        "trackio": {"name": run},
    }
    tracker = LOGGER_TYPE_TO_CLASS[name](
        "tensorboard" if name == "tensorboard" else PROJECT, **settings[name]
    )
    try:
        tracker.start()
    except Exception as error:  # each library raises its own
        raise TrackerError(
            f"the tracker {name} does not start ({error}): set it up, or choose another"
        ) from None
    return tracker


def epoch_figures(directory: Path) -> list[Mapping[str, float]]:
    """The lines of a training's metrics.jsonl that end an epoch, from epoch 0 (untrained) on; empty where
    there are none. A line cut off by a kill is skipped.
    """
    path = directory / METRICS_FILE
    if not path.exists():
        return []
    by_epoch: dict[int, Mapping[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            figures = json.loads(line)
        except ValueError:
            continue
        if "train/fixed_loss" in figures:
            by_epoch[int(figures["epoch"])] = figures
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
