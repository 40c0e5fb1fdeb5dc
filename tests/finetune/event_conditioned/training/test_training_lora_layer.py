"""Our LoRA layer is peft's: the same output and gradients, and a dropout that drops as often."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from kronos_service.finetune.event_conditioned.training.lora_layer import LowRankLinear, _dropped


def layer(*, ours: bool, dropout: float = 0.0, dora: bool = False) -> Any:
    """A peft model of one 12 -> 6 layer with rank 3 whose update is not zero."""
    torch.manual_seed(0)
    settings = LoraConfig(
        r=3, lora_alpha=6, lora_dropout=dropout, target_modules=["0"], bias="none", use_dora=dora
    )
    if ours:
        settings._register_custom_module({nn.Linear: LowRankLinear})
    model = get_peft_model(nn.Sequential(nn.Linear(12, 6)), settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def outcome(model: Any, x: Tensor, direction: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = model(x)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), [x, *trained])]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_output_and_gradients_are_pefts(mode: str, dora: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    x, direction = torch.randn(2, 5, 12, generator=generator), torch.randn(2, 5, 6, generator=generator)
    dropout = 0.5 if mode == "eval" else 0.0
    ours, pefts = (layer(ours=own, dropout=dropout, dora=dora) for own in (True, False))
    assert isinstance(ours.base_model.model[0], LowRankLinear)
    for got, expected in zip(
        *(outcome(getattr(model, mode)(), x, direction) for model in (ours, pefts)), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_under_autocast_gradients_stay_fp32_and_near_pefts() -> None:
    generator = torch.Generator().manual_seed(2)
    x, direction = torch.randn(2, 5, 12, generator=generator), torch.randn(2, 5, 6, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, pefts = (outcome(layer(ours=own), x, direction) for own in (True, False))
    assert ours[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in ours[1:]} == {torch.float32}
    for got, expected in zip(ours, pefts, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.3, check_dtype=False)


def test_a_gradient_may_be_taken_outside_autocast_and_of_an_input_that_needs_none() -> None:
    """As in training: the loss alone is computed under autocast, and the first layer's input is data."""
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    model = layer(ours=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    exact = torch.autograd.grad(model(x).sum(), trained)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x).float().sum()
    for got, expected in zip(torch.autograd.grad(loss, trained), exact, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.3)


def test_a_base_in_bf16_is_adapted_in_bf16_by_weights_that_stay_fp32() -> None:
    generator = torch.Generator().manual_seed(2)
    x, direction = torch.randn(2, 5, 12, generator=generator), torch.randn(2, 5, 6, generator=generator)
    exact, model = outcome(layer(ours=True), x, direction), layer(ours=True)
    model.base_model.model[0].base_layer.to(torch.bfloat16)
    found = outcome(model, x.bfloat16(), direction)
    kinds = [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]  # output, input, both matrices
    assert [one.dtype for one in found] == kinds
    for got, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.3, check_dtype=False)


def test_without_dropout_nothing_is_drawn() -> None:
    model, before = layer(ours=True).train(), torch.get_rng_state()
    model(torch.ones(4, 12)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_each_place_of_a_row_is_dropped_as_often_and_by_itself(p: float) -> None:
    torch.manual_seed(0)
    dropped = _dropped(torch.empty(20_001, 5), p)
    assert dropped.float().mean(0).tolist() == pytest.approx([p] * 5, abs=0.015)
    together = (dropped[:, :-1] & dropped[:, 1:]).float().mean(0).tolist()
    assert together == pytest.approx([p * p] * 4, abs=0.015)


def test_dropout_zeroes_a_share_p_scales_the_rest_and_its_gradient_uses_the_same_draw() -> None:
    model = layer(ours=True, dropout=0.3).train()
    inner: Any = model.base_model.model[0]
    with torch.no_grad():
        inner.lora_A["default"].weight.copy_(torch.eye(3, 12))
        inner.lora_B["default"].weight.copy_(torch.eye(6, 3))
    x = torch.ones(20_000, 12, requires_grad=True)
    torch.manual_seed(0)
    out = model(x)
    update = ((out - inner.base_layer(x)) / inner.scaling["default"])[:, :3]
    kept = update > 0.5
    torch.manual_seed(0)
    assert torch.equal(kept, ~_dropped(x, 0.3)[:, :3])
    assert kept.float().mean(0).tolist() == pytest.approx([0.7] * 3, abs=0.015)
    torch.testing.assert_close(update[kept], torch.full_like(update[kept], 1 / 0.7), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad((out - inner.base_layer(x)).sum(), x)
    torch.testing.assert_close(gradient[:, :3] > 0.5, kept)
    torch.manual_seed(0)
    assert torch.equal(model(x), out)
    assert not torch.equal(model(x), out)


def test_merged_or_disabled_it_is_the_plain_layer() -> None:
    model, x = layer(ours=True), torch.randn(4, 12)
    with model.disable_adapter():
        assert torch.equal(model(x), model.base_model.model[0].base_layer(x))
    expected = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-5, atol=1e-5)


def test_dropout_is_drawn_on_the_device_of_its_input() -> None:
    """The `meta` device stands for one that is not the CPU: nothing on it may meet what is on another."""
    dropped = _dropped(torch.empty(3, 5, device="meta"), 0.5)
    assert (dropped.device.type, dropped.dtype, dropped.shape) == ("meta", torch.bool, (3, 5))
