"""Where training figures go: one JSON line per step or epoch, and TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"


class MetricLog:
    """Appends figures to `<directory>/metrics.jsonl` and `<directory>/tensorboard`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lines = (directory / METRICS_FILE).open("a", encoding="utf-8")
        self._board = SummaryWriter(directory / "tensorboard")

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Record figures named like `train/loss` at an optimizer step."""
        self._lines.write(json.dumps({"step": step, "epoch": epoch, **metrics}) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()
