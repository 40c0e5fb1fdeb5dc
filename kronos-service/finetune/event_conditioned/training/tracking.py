"""Where training figures go: one JSON line per step or epoch, and TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from torch.utils.tensorboard import SummaryWriter

from kronos_shared.errors import KronosError

METRICS_FILE = "metrics.jsonl"


class MetricsError(KronosError):
    """The figures on disk are not those of the run that is to go on."""


class Log(Protocol):
    """What the training loop tells its figures to."""

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Record figures named like `train/loss` at an optimizer step."""

    def size(self) -> int:
        """Bytes of metrics.jsonl that are on disk to stay."""


class NoLog:
    """For the processes that are not the main one."""

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None: ...

    def size(self) -> int:
        return 0


class MetricLog:
    """Adds figures to `<directory>/metrics.jsonl` and `<directory>/tensorboard`, from `size` bytes on.

    What the file holds past `size` was written after the checkpoint that a run goes on from, and will be
    written again, so it is cut off.
    """

    def __init__(self, directory: Path, *, size: int = 0, step: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_FILE
        self._lines = path.open("ab")
        if self._lines.tell() < size:
            self._lines.close()
            raise MetricsError(
                f"{path} is shorter than when step {step} was checkpointed: put it back, or start a new run"
            )
        self._lines.seek(self._lines.truncate(size))
        self._board = SummaryWriter(directory / "tensorboard", purge_step=step + 1 if step else None)

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        self._lines.write((json.dumps({"step": step, "epoch": epoch, **metrics}) + "\n").encode())
        self._lines.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def size(self) -> int:
        self._lines.flush()
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()
