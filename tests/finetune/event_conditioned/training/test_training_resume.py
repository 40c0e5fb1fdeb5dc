"""A training that is cut at any step goes on to the same bits."""

import json
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training import loop, signals
from kronos_service.finetune.event_conditioned.training.checkpoints import CheckpointError, Checkpoints
from kronos_service.finetune.event_conditioned.training.lora import trainable
from kronos_service.finetune.event_conditioned.training.variants import (
    ADAPTER,
    TrainedVariant,
    Variant,
    train_variant,
)
from kronos_service.model.factory import Bundle

CONFIG = EventLoraConfig(
    epochs=2, batch_size=24, warmup_steps=5, rank=2, lora_dropout=0.2, learning_rate=1e-3, checkpoint_every=3
)


class Cut(Exception):
    """The process dies here."""


def run(
    splits: Splits,
    bundle: Bundle,
    directory: Path,
    *,
    config: EventLoraConfig = CONFIG,
    variant: Variant = ADAPTER,
    stop: signals.Stop | None = None,
) -> TrainedVariant:
    return train_variant(
        variant, config, splits, bundle, Accelerator(cpu=True), directory, micro_batch=10, stop=stop
    )


def bits(arm: TrainedVariant) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable(arm.model)}


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = loop.Loop.step

    def dying(self: loop.Loop, number: int, windows: list[int]) -> dict[str, float]:
        if number == step:
            raise Cut
        return whole(self, number, windows)

    monkeypatch.setattr(loop.Loop, "step", dying)


@pytest.fixture(scope="module")
def uninterrupted(
    splits: Splits, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainedVariant]:
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(splits, bundle, directory)


def test_a_cut_at_any_step_costs_nothing_but_the_steps_since_the_checkpoint(
    splits: Splits,
    bundle: Bundle,
    tmp_path: Path,
    uninterrupted: tuple[Path, TrainedVariant],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_directory, whole = uninterrupted
    steps = int(max(line["step"] for line in lines(whole_directory)))
    for step in range(1, steps, 4):
        with monkeypatch.context() as patch:
            die_at(patch, step)
            with pytest.raises(Cut):
                run(splits, bundle, tmp_path)
    resumed = run(splits, bundle, tmp_path)
    assert lines(tmp_path) == lines(whole_directory)
    assert resumed.fixed_losses == whole.fixed_losses
    pd.testing.assert_frame_equal(resumed.records, whole.records, check_exact=True)
    assert all(torch.equal(value, bits(whole)[name]) for name, value in bits(resumed).items())


def test_the_seconds_of_a_training_count_each_of_its_starts_and_its_checkpoints_end_with_it(
    splits: Splits, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace(epochs=1)
    begun = time.monotonic()
    with monkeypatch.context() as patch:
        die_at(patch, 4)
        with pytest.raises(Cut):
            run(splits, bundle, tmp_path, config=config)
    state = Checkpoints(tmp_path / "checkpoints", every=1).newest(lambda _: None)
    assert state
    assert 0 < state.loop.seconds <= time.monotonic() - begun
    assert state.loop.peak_bytes == 0  # a CPU counts none
    state.loop.seconds += 1000
    state.loop.peak_bytes = 7
    Checkpoints(tmp_path / "checkpoints", every=1).write(state)
    begun = time.monotonic()
    trained = run(splits, bundle, tmp_path, config=config)
    assert 1000 < trained.seconds <= 1000 + state.loop.seconds + time.monotonic() - begun
    assert trained.peak_bytes == 7
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    steps = [int(line["step"]) for line in lines(tmp_path) if "train/loss" in line]
    assert [event.step for event in board.Scalars("train/loss")] == steps  # the fourth one ran twice
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_training_that_has_ended_is_read_and_not_repeated(
    splits: Splits,
    bundle: Bundle,
    uninterrupted: tuple[Path, TrainedVariant],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, trained = uninterrupted
    before = lines(directory)
    die_at(monkeypatch, 0)
    again = run(splits, bundle, directory)
    assert lines(directory) == before
    assert (again.fixed_losses, again.seconds, again.peak_bytes) == (
        trained.fixed_losses,
        trained.seconds,
        None,
    )
    pd.testing.assert_frame_equal(again.records, trained.records, check_exact=True, check_dtype=False)
    assert isinstance(again.records.index, pd.RangeIndex)  # no column of the file is an index
    assert all(torch.equal(value, bits(trained)[name]) for name, value in bits(again).items())


def test_a_damaged_outcome_is_named_and_not_trained_over(
    splits: Splits, bundle: Bundle, tmp_path: Path, uninterrupted: tuple[Path, TrainedVariant]
) -> None:
    shutil.copytree(uninterrupted[0] / "trained", tmp_path / "trained")
    (tmp_path / "trained" / "meters.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"trained is damaged \(meters.json .* remove it to repeat"):
        run(splits, bundle, tmp_path)
    (tmp_path / "trained" / "meters.json").unlink()
    with pytest.raises(CheckpointError, match=r"trained is damaged .* remove it to repeat"):
        run(splits, bundle, tmp_path)


def test_each_epoch_ends_with_a_checkpoint_and_a_damaged_one_is_said(
    splits: Splits,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = CONFIG.replace(checkpoint_every=1000)
    epoch = -(-len(splits.splits["train"].windows) // config.batch_size)
    with monkeypatch.context() as patch:
        die_at(patch, epoch + 1)
        with pytest.raises(Cut):
            run(splits, bundle, tmp_path, config=config)
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.name == f"step-{epoch:08}"
    (path / "state.json").unlink()
    capsys.readouterr()
    die_at(monkeypatch, 0)  # there is none before it
    with pytest.raises(Cut):
        run(splits, bundle, tmp_path, config=config)
    assert f"checkpoint {path.name} is damaged (" in capsys.readouterr().out
