"""What each training shows its model, in which mode, and what the optimizer gets."""

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import AdamW

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import (
    EventConditionedDataset,
    collate,
    uncertain_channels,
)
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training import variants
from kronos_service.finetune.event_conditioned.training.checkpoints import CheckpointError
from kronos_service.finetune.event_conditioned.training.loop import Data, Loop
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.event_conditioned.training.schedule import Schedule
from kronos_service.finetune.event_conditioned.training.signals import Stop, Stopped
from kronos_service.finetune.event_conditioned.training.variants import (
    ADAPTER,
    CONTROL,
    PLACEBO,
    TrainedVariant,
    Variant,
    train_variant,
    train_variants,
)
from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_shared import progress
from kronos_shared.adapter_manifest import LoraRecord

CONFIG = EventLoraConfig(
    epochs=2,
    batch_size=8,
    warmup_steps=1,
    rank=2,
    lora_dropout=0.1,
    blank_probability=0.5,
    max_grad_norm=1e-3,
    learning_rate=1e-4,
    event_learning_rate=7e-4,
    weight_decay=0.02,
    tracker="none",
)
KEPT = 24
"""Windows of each split that are trained on or scored: three steps an epoch."""
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 2e-4,
    "event_learning_rate": 1e-3,
    "warmup_steps": 3,
    "weight_decay": 0.5,
    "max_grad_norm": 2e-3,
    "rank": 4,
    "alpha": 3,
    "target_modules": ("k_proj",),
    "use_rslora": True,
    "use_dora": True,
    "lora_dropout": 0.5,
    "taps": "input",
    "event_start": "tier1",
    "event_weight": 1.0,
    "blank_probability": 0.1,
    "seed": 1,
}
"""Another value of every setting that a training has once its windows are made."""


@dataclass
class Seen:
    """What the model and the optimizer were given."""

    trained: list[Tensor] = field(default_factory=list)
    """Events of each training step."""
    judged: list[Tensor] = field(default_factory=list)
    """Events of each batch of validation and of the fixed subset."""
    dropout: set[tuple[bool, bool]] = field(default_factory=set)
    """(whether gradients were kept, whether any dropout was on)."""
    norms: list[float] = field(default_factory=list)
    """Gradient norm at each optimizer step."""
    groups: list[list[tuple[float, float]]] = field(default_factory=list)
    """Rate and weight decay of each parameter group at each step."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Records what reaches `Kronos.forward` and `AdamW.step`, which do their work as ever."""
    found = Seen()
    forward, step = Kronos.forward, AdamW.step

    def watched_forward(self: Kronos, *given: Any, events: Tensor | None = None, **named: Any) -> Any:
        training = not torch.is_inference_mode_enabled()
        if events is not None:
            (found.trained if training else found.judged).append(events.clone())
        on = any(one.training for one in self.modules() if isinstance(one, nn.Dropout))
        found.dropout.add((training, on))
        return forward(self, *given, events=events, **named)

    def watched_step(self: AdamW, *given: Any, **named: Any) -> Any:
        parameters = [one for group in self.param_groups for one in group["params"]]
        found.norms.append(float(torch.stack([one.grad.norm() for one in parameters]).norm()))
        found.groups.append([(group["lr"], group["weight_decay"]) for group in self.param_groups])
        return step(self, *given, **named)

    monkeypatch.setattr(Kronos, "forward", watched_forward)
    monkeypatch.setattr(AdamW, "step", watched_step)
    return found


@pytest.fixture(scope="module")
def few(splits: Splits) -> Splits:
    """The first windows of each split, with some event in each of them."""
    return cut(splits, KEPT)


def cut(splits: Splits, most: int) -> Splits:
    """The first so many windows of each split that have some event in them."""
    kept = {}
    for name, one in splits.splits.items():
        hearing = [
            number
            for number, window in enumerate(one.windows)
            if splits.series[window.series].events[window.start : window.stop - 1].any()
        ][:most]
        kept[name] = replace(
            one,
            windows=[one.windows[number] for number in hearing],
            tokens={key: ids[hearing] for key, ids in one.tokens.items()},
        )
    return replace(splits, splits=kept)


Train = Callable[[Variant], TrainedVariant]


@pytest.fixture
def train(few: Splits, bundle: Bundle, tmp_path: Path) -> Train:
    def run(variant: Variant) -> TrainedVariant:
        return train_variant(
            variant, CONFIG, few, bundle, Accelerator(cpu=True), tmp_path / variant.name, micro_batch=8
        )

    return run


def rows(dataset: EventConditionedDataset) -> list[Tensor]:
    """The events of every window, as the dataset gives them now."""
    return [dataset.inputs(number)["events"] for number in range(len(dataset))]


def in_order(batches: list[Tensor], dataset: EventConditionedDataset) -> list[Tensor]:
    """The rows of batches that hold the windows in their order, without their padding."""
    flat = [row for batch in batches for row in batch]
    return [row[: len(expected)] for row, expected in zip(flat, rows(dataset), strict=True)]


def test_the_control_never_sees_an_event(train: Train, seen: Seen) -> None:
    train(CONTROL)
    assert seen.trained
    assert seen.judged
    assert not any(batch.any() for batch in (*seen.trained, *seen.judged))


@pytest.mark.parametrize("variant", [ADAPTER, PLACEBO])
def test_the_adapter_is_judged_on_the_real_rows_and_the_placebo_on_false_ones(
    train: Train, seen: Seen, few: Splits, variant: Variant
) -> None:
    train(variant)
    shown = few.conditioned("real" if variant == ADAPTER else "permuted", CONFIG.seed)
    val, fixed = shown.dataset("val"), shown.dataset("train", at_most=64)
    each = len(seen.judged) // (CONFIG.epochs + 1)
    for epoch in range(CONFIG.epochs + 1):
        judged = seen.judged[epoch * each : (epoch + 1) * each]
        got = [*in_order(judged[:3], val), *in_order(judged[3:], fixed)]
        assert all(map(torch.equal, got, [*rows(val), *rows(fixed)]))
    real = rows(few.dataset("val"))
    differs = [not torch.equal(*pair) for pair in zip(in_order(seen.judged[:3], val), real, strict=True)]
    assert any(differs) == (variant == PLACEBO)


def test_a_signal_stops_the_training_in_hand_and_the_next_start_runs_all(
    few: Splits, bundle: Bundle, tmp_path: Path
) -> None:
    config = CONFIG.replace(control=True, epochs=1)
    asked = Stop(signal=signal.SIGTERM)
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM before the first step$") as raised:
        train_variants(config, few, bundle, Accelerator(cpu=True), tmp_path, micro_batch=8, stop=asked)
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert not (tmp_path / "control").exists()
    trained = train_variants(config, few, bundle, Accelerator(cpu=True), tmp_path, micro_batch=8, stop=Stop())
    assert list(trained) == ["adapter", "control"]


def test_all_three_are_trained_each_under_its_own_name(
    few: Splits,
    bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    config = CONFIG.replace(control=True, placebo=True, epochs=1)
    trained = train_variants(config, few, bundle, Accelerator(cpu=True), tmp_path, micro_batch=8)
    assert list(trained) == ["adapter", "control", "placebo"]
    losses = [one.records["total"].mean() for one in trained.values()]
    assert len(set(losses)) == 3
    for name in ("control", "placebo"):
        assert (tmp_path / name / "trained").is_dir()
    said = capsys.readouterr().out
    for number, name in enumerate(trained, start=1):
        directory = tmp_path if name == "adapter" else tmp_path / name
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        fixed = [line["train/fixed_loss"] for line in lines if "train/fixed_loss" in line]
        order = [
            f"training {number} of 3: {name}\n",
            f"{name} epoch  0/1  train {fixed[0]:.4f}  val event ",
            f"{name} epoch 1/1, 8 of {KEPT} windows, loss {lines[1]['train/loss']:.4f}, ",
            f"{name} epoch 1/1, 24 of {KEPT} windows, loss {lines[3]['train/loss']:.4f}, ",
            f"{name} epoch  1/1  train {fixed[1]:.4f}  val event ",
        ]
        assert re.search(".*".join(map(re.escape, order)), said, re.DOTALL)


@pytest.fixture(scope="module")
def losses_of(few: Splits, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tensor]:
    """The validation losses after an epoch of one step, with changed settings."""
    fewer = cut(few, 8)

    def losses(**changes: Any) -> Tensor:
        config = CONFIG.replace(epochs=1).replace(**changes)
        directory, accelerator = tmp_path_factory.mktemp("recipe"), Accelerator(cpu=True)
        trained = train_variant(ADAPTER, config, fewer, bundle, accelerator, directory, micro_batch=8)
        return torch.tensor(trained.records["total"].to_numpy())

    return losses


@pytest.fixture(scope="module")
def plain(losses_of: Callable[..., Tensor]) -> Tensor:
    return losses_of()


def test_the_same_settings_train_to_the_same_bits(losses_of: Callable[..., Tensor], plain: Tensor) -> None:
    assert torch.equal(losses_of(), plain)


@pytest.mark.parametrize("name", RECIPE)
def test_a_training_depends_on_each_setting(
    losses_of: Callable[..., Tensor], plain: Tensor, name: str
) -> None:
    assert not torch.equal(losses_of(**{name: RECIPE[name]}), plain)


def test_dropout_is_on_in_every_step_and_off_in_every_validation(train: Train, seen: Seen) -> None:
    train(ADAPTER)
    assert seen.dropout == {(True, True), (False, False)}


def test_each_epoch_blanks_windows_of_its_own_and_only_what_a_service_cannot_know(
    train: Train, seen: Seen, few: Splits
) -> None:
    train(ADAPTER)
    schedule = Schedule(windows=KEPT, batch_size=CONFIG.batch_size, epochs=CONFIG.epochs, seed=CONFIG.seed)
    whole = rows(few.dataset("train"))
    certain = [
        number for number in range(whole[0].shape[1]) if number not in uncertain_channels(DEFAULT_TAXONOMY)
    ]
    blanked: list[set[int]] = [set(), set()]
    for step, batch in enumerate(seen.trained):
        for window, row in zip(schedule.batch(step), batch, strict=True):
            got, full = row[: len(whole[window])], whole[window]
            assert torch.equal(got[:, certain], full[:, certain])
            lost = got != full
            assert not got[lost].any()
            if lost.any():
                blanked[step // schedule.steps_per_epoch].add(window)
    drawn = few.conditioned("real", CONFIG.seed).dataset(
        "train", blank=CONFIG.blank_probability, seed=CONFIG.seed
    )
    for epoch in (1, 2):  # epoch 0 is before the first step
        drawn.set_epoch(epoch)
        expected = {
            number
            for number, (got, full) in enumerate(zip(rows(drawn), whole, strict=True))
            if (got != full).any()
        }
        assert blanked[epoch - 1] == expected
    assert all(0 < len(one) < KEPT for one in blanked)
    assert blanked[0] != blanked[1]


def test_the_optimizer_gets_clipped_gradients_and_both_rates(train: Train, seen: Seen) -> None:
    train(ADAPTER)
    assert len(seen.norms) == CONFIG.epochs * KEPT // CONFIG.batch_size
    assert max(seen.norms) == pytest.approx(CONFIG.max_grad_norm, rel=1e-3)
    for (lora, lora_decay), (event, event_decay) in seen.groups:
        assert event / lora == pytest.approx(CONFIG.event_learning_rate / CONFIG.learning_rate)
        assert lora_decay == event_decay == CONFIG.weight_decay
    warming, peak, *_, last = (lora for (lora, _), _ in seen.groups)
    assert (warming, peak) == pytest.approx((CONFIG.learning_rate / 2, CONFIG.learning_rate))
    assert 0 < last < peak


@pytest.mark.parametrize(("epochs", "micro_batch"), [(1, 8), (5, 8), (2, 3)])
def test_a_steps_gradient_is_that_of_its_targets_over_the_mean_number_of_a_step(
    few: Splits, bundle: Bundle, epochs: int, micro_batch: int
) -> None:
    config = CONFIG.replace(epochs=epochs, lora_dropout=0.0, max_grad_norm=1e9)
    data = few.dataset("train", oversample=3.0)
    accelerator = Accelerator(cpu=True)
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    loop = Loop(model, Data(train=data, fixed=data, val=None), config, micro_batch, accelerator)
    windows = [0, 5, 9, 14, 23]  # not a whole batch: its targets count as much as those of any other
    got = loop.step(0, windows)["train/grad_norm"]
    fresh = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    loss = weighted_loss(fresh, collate([data.inputs(number) for number in windows]), accelerator)
    steps = -(-len(data) // config.batch_size)
    parameters = [parameter for _, parameter in trainable(fresh)]
    gradients = torch.autograd.grad(loss * steps / data.n_targets, parameters)
    assert got == pytest.approx(float(torch.stack([one.norm() for one in gradients]).norm()), rel=1e-4)


def test_no_gradient_is_left_for_the_next_step(few: Splits, bundle: Bundle) -> None:
    config, accelerator = CONFIG.replace(lora_dropout=0.0), Accelerator(cpu=True)
    data = few.dataset("train")
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    loop = Loop(model, Data(train=data, fixed=data, val=None), config, 8, accelerator)
    loop.step(0, range(8))
    assert all(parameter.grad is None or not parameter.grad.any() for _, parameter in trainable(model))


def test_dropout_is_drawn_anew_for_each_step(few: Splits, bundle: Bundle) -> None:
    config = CONFIG.replace(
        lora_dropout=0.5, learning_rate=1e-12, event_learning_rate=1e-12, max_grad_norm=1e9
    )
    data = few.dataset("train")
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.5), taps="both", seed=0)
    loop = Loop(model, Data(train=data, fixed=data, val=None), config, 8, Accelerator(cpu=True))
    norms = [loop.step(step, range(8))["train/grad_norm"] for step in (0, 1, 0)]
    assert norms[0] == pytest.approx(norms[2], rel=1e-4)
    assert not np.isclose(norms[0], norms[1], rtol=1e-4)


def test_in_bf16_the_frozen_layers_are_stored_in_bf16_while_training_and_exact_again_after(
    few: Splits, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: set[torch.dtype] = set()
    step = AdamW.step

    def watched(self: AdamW, *given: Any, **named: Any) -> Any:
        stored.update(layer.weight.dtype for layer in frozen)
        return step(self, *given, **named)

    def adapted(*given: Any, **named: Any) -> Any:
        model = adapt(*given, **named)
        frozen.extend(one for name, one in model.named_modules() if name.endswith("q_proj.base_layer"))
        return model

    frozen: list[Any] = []
    monkeypatch.setattr(AdamW, "step", watched)
    monkeypatch.setattr(variants, "adapt", adapted)
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    config = CONFIG.replace(epochs=1)
    trained = train_variant(ADAPTER, config, cut(few, 8), bundle, accelerator, tmp_path, micro_batch=8)
    AcceleratorState._reset_state(True)
    assert stored == {torch.bfloat16}
    for name, parameter in trained.model.named_parameters():
        assert parameter.dtype == torch.float32, name


def test_a_full_disk_keeps_the_last_checkpoint_of_a_training_that_has_ended(
    few: Splits, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "weights.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    def run() -> TrainedVariant:
        config = CONFIG.replace(epochs=1)
        return train_variant(
            ADAPTER, config, cut(few, 8), bundle, Accelerator(cpu=True), tmp_path, micro_batch=8
        )

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(CheckpointError, match=r"trained weights .*No space left.* last checkpoint stays"):
            run()
    assert not (tmp_path / "trained").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.setattr(Loop, "step", None)  # nothing is trained again
    assert len(run().records) > 0
    assert not (tmp_path / "checkpoints").exists()
