"""Trackers: each step once after a resume, none where none is wanted, a clear line where one is missing."""

import json
from pathlib import Path

import pytest
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kronos_service.finetune.event_conditioned.training import tracking
from kronos_service.finetune.event_conditioned.training.tracking import (
    MetricLog,
    TrackerError,
    require_tracker,
)


def shown(directory: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values that TensorBoard shows."""
    board = EventAccumulator(str(directory / "tensorboard")).Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_after_a_kill_before_the_first_checkpoint_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    for loss in (9.0, 2.0):
        with MetricLog(tmp_path) as log:
            for step in (1, 2):
                log.log({"train/loss": loss}, step=step, epoch=1)
    assert shown(tmp_path, "train/loss") == [(1, 2.0), (2, 2.0)]


def test_after_a_resume_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.log({"train/loss": 1.0, "train/lr": 0.5}, step=1, epoch=1)
        size = log.size()
        for step in (2, 3):  # after the checkpoint: a kill makes the run repeat these
            log.log({"train/loss": 9.0}, step=step, epoch=1)
    with MetricLog(tmp_path, size=size, step=1) as log:
        log.log({"train/loss": 2.0}, step=2, epoch=1)
    assert shown(tmp_path, "train/loss") == [(1, 1.0), (2, 2.0)]
    assert shown(tmp_path, "train/lr") == [(1, 0.5)]


def test_without_a_tracker_there_is_the_file_alone(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tracker="none") as log:
        log.log({"train/loss": 1.0}, step=1, epoch=1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    line = {"step": 1, "epoch": 1, "train/loss": 1.0}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == line


def test_a_tracker_that_is_not_installed_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    for name in ("none", "tensorboard"):
        require_tracker(name)
    for name in ("mlflow", "wandb", "trackio"):
        with pytest.raises(TrackerError, match=f"{name} is not installed: pip install {name}, or run"):
            require_tracker(name)
