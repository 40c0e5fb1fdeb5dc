"""What a step is said to need, against real steps: bytes that autograd keeps, and the most at once."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.training.lora import adapt, training_mode
from kronos_service.finetune.event_conditioned.training.loss import token_losses
from kronos_service.finetune.event_conditioned.training.step_cost import LiveBytes, step_cost, zero_batch
from kronos_service.finetune.precision import storage
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS

CONFIG = EventLoraConfig()
SHALLOW: Mapping[str, Any] = {**PRESETS["base"].predictor, "n_layers": 1}
"""As wide as the base: what a block keeps depends on its widths alone."""


def real_model(shape: Mapping[str, Any], config: EventLoraConfig = CONFIG) -> torch.nn.Module:
    torch.manual_seed(0)
    model = adapt(Kronos(**shape).eval(), lora=config.lora(), taps="both", seed=0)
    training_mode(model)
    return model


def loss_of(model: torch.nn.Module, windows: int, bars: int, bf16: bool) -> Tensor:
    batch = zero_batch(CONFIG, windows, bars)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        s1, s2 = token_losses(model, batch, events=batch["events"])
    return ((s1 + s2) * batch["weight"]).sum()


def saved_bytes(model: torch.nn.Module, windows: int, bars: int, bf16: bool) -> int:
    """Bytes of all tensors but the weights that a real forward hands to autograd, each counted once."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model, windows, bars, bf16)
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert loss.requires_grad
    return total


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(
    ("shape", "bars"),
    [
        (SHALLOW, 128),
        (PRESETS["nano"].predictor, 128),
        pytest.param(PRESETS["base"].predictor, 512, marks=pytest.mark.slow),
    ],
    ids=["shallow", "nano", "base"],
)
def test_a_window_keeps_the_bytes_that_autograd_saves_in_a_real_step(
    shape: Mapping[str, Any], bars: int, precision: str
) -> None:
    bf16 = precision == "bf16"
    model = real_model(shape)
    with storage(model, precision):
        counted = (saved_bytes(model, 3, bars, bf16) - saved_bytes(model, 1, bars, bf16)) / 2
    estimated = step_cost(shape, CONFIG, bars=bars, precision=precision)
    print(f"autograd saves {counted / 1e6:.2f} MB a window, estimated {estimated.saved_bytes / 1e6:.2f}")  # noqa: T201
    assert estimated.saved_bytes == pytest.approx(counted, rel=0.05)
    assert estimated.saved_bytes < estimated.window_bytes < 1.5 * counted + 40e6 / len(shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [EventLoraConfig(target_modules=("all-linear",)), EventLoraConfig(use_dora=True)]
)
def test_other_layers_and_dora_are_counted(config: EventLoraConfig) -> None:
    shape, bars = PRESETS["nano"].predictor, 64
    model = real_model(shape, config)
    counted = (saved_bytes(model, 3, bars, False) - saved_bytes(model, 1, bars, False)) / 2
    estimated, default = (step_cost(shape, one, bars=bars, precision="no") for one in (config, CONFIG))
    assert estimated.saved_bytes == pytest.approx(counted, rel=0.05)
    assert estimated.trained_bytes > default.trained_bytes
    assert estimated.window_flops > default.window_flops


def test_the_peak_grows_by_the_same_bytes_with_each_window() -> None:
    """Two windows more than the largest step that was counted, in a real step."""
    shape, bars, windows = SHALLOW, 64, 6
    model = real_model(shape)
    memory = LiveBytes(list(model.parameters()))
    with memory:
        loss_of(model, windows, bars, bf16=False).backward()  # type: ignore[no-untyped-call]
    estimated = step_cost(shape, CONFIG, bars=bars, precision="no")
    moments = 2 * estimated.trained_bytes
    assert estimated.peak(windows) - moments == pytest.approx(memory.peak, rel=0.02)


def test_recomputed_blocks_keep_less() -> None:
    kept, again = (
        step_cost(PRESETS["mini"].predictor, CONFIG, bars=64, precision="bf16", checkpointing=one)
        for one in (False, True)
    )
    assert again.saved_bytes < kept.saved_bytes / 2
    assert again.window_bytes < kept.window_bytes
