"""Checkpoints on disk: whole or not there, two of them, the good one before a damaged one."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from kronos_service.finetune.event_conditioned.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    LoopState,
    TrainingState,
    capture,
    restore,
)
from kronos_service.finetune.event_conditioned.training.tracking import MetricLog, MetricsError


def training(seed: int = 0, width: int = 3) -> tuple[nn.Linear, AdamW, LambdaLR]:
    torch.manual_seed(seed)
    model = nn.Linear(width, 2)
    model.bias.requires_grad_(False)
    optimizer = AdamW([model.weight], lr=0.1, weight_decay=0.01)
    return model, optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


def do_steps(parts: tuple[nn.Linear, AdamW, LambdaLR], numbers: range) -> None:
    model, optimizer, scheduler = parts
    for number in numbers:
        torch.manual_seed(number)
        model(torch.randn(4, model.in_features)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def state_at(step: int) -> TrainingState:
    parts = training()
    do_steps(parts, range(step))
    return capture(*parts, LoopState(step=step, fixed_losses=[3.5, 0.1 + 0.2], seconds=1.5, metrics_size=7))


def unheard(_: str) -> None:
    raise AssertionError


def test_a_state_read_back_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = training()
    do_steps(whole, range(9))
    Checkpoints(tmp_path, every=1).write(state_at(4))
    state = Checkpoints(tmp_path, every=1).newest(unheard)
    assert state is not None
    assert state.loop == LoopState(step=4, fixed_losses=[3.5, 0.1 + 0.2], seconds=1.5, metrics_size=7)
    assert {name.split("/")[0] for name in state.tensors} == {"model", "optimizer"}
    assert "model/bias" not in state.tensors
    resumed = training(seed=5)
    resumed[0].bias.data.copy_(whole[0].bias)  # frozen, so it is not in the checkpoint
    restore(state, *resumed)
    do_steps(resumed, range(4, 9))
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert resumed[2].get_last_lr() == whole[2].get_last_lr()


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="another model"):
        restore(state_at(1), *training(width=4))


def test_the_last_two_checkpoints_stay_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=2)
    (tmp_path / ".step-00000002-killed").mkdir()
    assert checkpoints.newest(unheard) is None
    assert [step for step in range(7) if checkpoints.due(step)] == [0, 2, 4, 6]
    checkpoints.write(state_at(0))
    assert not list(tmp_path.iterdir())  # the beginning needs none
    for step in (2, 4, 6, 6):
        checkpoints.write(state_at(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "sha256.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, name: str, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path, every=1)
    for step in (1, 2):
        checkpoints.write(state_at(step))
    path = tmp_path / "step-00000002" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:middle] if damage == "cut" else flipped)
    notes: list[str] = []
    again = Checkpoints(tmp_path, every=1)
    state = again.newest(notes.append)
    assert state is not None
    assert state.loop.step == 1
    assert len(notes) == 1
    assert "step-00000002 is damaged" in notes[0]
    again.write(state_at(2))  # takes the place of the damaged one
    newest = Checkpoints(tmp_path, every=1).newest(unheard)
    assert newest is not None
    assert newest.loop.step == 2


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=1)
    checkpoints.write(state_at(1))
    blocked = Checkpoints(tmp_path / "file", every=1)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .* step 2 .*; there is none before it; make"):
        blocked.write(state_at(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_full_disk_is_said_with_the_checkpoint_that_stays(
    tmp_path: Path, resumed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.write(state_at(3))
    if resumed:
        checkpoints = Checkpoints(tmp_path, every=1)
        assert checkpoints.newest(unheard)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step 4 .*No space left.*; the one of step 3 stays; make"):
        checkpoints.write(state_at(4))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_step_that_has_its_checkpoint_is_not_written_again(tmp_path: Path, resumed: bool) -> None:
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.write(state_at(3))
    if resumed:
        checkpoints = Checkpoints(tmp_path, every=1)
        assert checkpoints.newest(unheard)
    (path,) = tmp_path.iterdir()
    before = path.stat()
    checkpoints.write(state_at(3))
    assert path.stat() == before


def test_checkpoints_are_cleared_whether_or_not_there_are_any(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=1)
    checkpoints.write(state_at(1))
    for _ in range(2):
        checkpoints.clear()
        assert not list(tmp_path.iterdir())


def test_a_training_begins_with_nothing_done() -> None:
    nothing = LoopState(step=0, fixed_losses=[], seconds=0.0, peak_bytes=0, metrics_size=0, curve=[])
    assert LoopState() == nothing


def test_figures_written_after_a_checkpoint_are_cut_off_and_lost_ones_are_an_error(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.log({"train/loss": 1.0}, step=1, epoch=1)
        size = log.size()
        log.log({"train/loss": 2.0}, step=2, epoch=1)
    with MetricLog(tmp_path, size=size, step=1) as log:
        assert log.size() == size
        log.log({"train/loss": 3.0}, step=2, epoch=1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 1.0), (2, 3.0)]
    with pytest.raises(MetricsError, match="shorter than when step 9 was checkpointed"):
        MetricLog(tmp_path, size=10_000, step=9)
