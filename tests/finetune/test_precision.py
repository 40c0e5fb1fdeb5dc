"""Which precision `auto` means, and that keeping frozen layers in bf16 changes no bit of a bf16 run."""

import contextlib

import pytest
import torch
from torch import Tensor

from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.precision import BF16_WIDTH, fast_precision, storage
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import LoraRecord


@pytest.mark.parametrize("asked", ["no", "bf16"])
def test_a_precision_that_was_asked_for_is_taken_whatever_the_width(asked: str) -> None:
    assert fast_precision(asked, width=1) == fast_precision(asked, width=10_000) == asked


@pytest.mark.skipif(torch.cuda.is_available(), reason="about CPUs")
def test_narrow_models_stay_in_fp32_on_a_cpu_and_wide_ones_follow_the_processor() -> None:
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert fast_precision("auto", width=BF16_WIDTH - 1) == "no"
    assert fast_precision("auto", width=BF16_WIDTH) == ("bf16" if native else "no")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about CPUs")
def test_a_torch_without_onednn_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert fast_precision("auto", width=BF16_WIDTH) == "no"


def bf16_step(bundle: Bundle, stored: str) -> list[Tensor]:
    """Loss and gradients of a step under bf16 autocast, dropout on."""
    generator = torch.Generator().manual_seed(0)
    s1, s2, s1_targets = torch.randint(2**bundle.model.s1_bits, (3, 4, 40), generator=generator)
    stamp = torch.ones(4, 40, 5, dtype=torch.int64)
    events = torch.randn(4, 40, 20, generator=generator)
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.05), taps="both", seed=0)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    training_mode(model)
    torch.manual_seed(0)
    with storage(model, stored):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(s1, s2, stamp, events=events, s1_targets=s1_targets)
        loss = sum(one.float().logsumexp(-1).mean() for one in logits)
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(p.grad for _, p in trainable(model) if p.grad is not None)]


def test_frozen_layers_held_in_bf16_change_no_bit_of_a_bf16_step(bundle: Bundle) -> None:
    autocast, stored = bf16_step(bundle, "no"), bf16_step(bundle, "bf16")
    assert len(stored) > 10
    assert all(torch.equal(a, b) for a, b in zip(autocast, stored, strict=True))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_fp32_tensors_come_back_and_the_base_never_loses_them(bundle: Bundle, precision: str) -> None:
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    before = dict(model.named_parameters())
    with contextlib.suppress(KeyboardInterrupt), storage(model, precision):
        dtypes = {p.dtype for name, p in model.named_parameters() if ".ffn." in name}
        assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float32}
        assert all(p.dtype == torch.float32 for _, p in trainable(model))
        assert all(p.dtype == torch.float32 for p in bundle.model.parameters())
        raise KeyboardInterrupt
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
