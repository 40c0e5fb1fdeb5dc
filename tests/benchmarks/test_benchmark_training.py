"""How the cost of a training step compares with doing it naively; ratios within one run."""

import time
from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from kronos_service.finetune.event_conditioned.dataset import Batch
from kronos_service.finetune.event_conditioned.lora import adapt, training_mode
from kronos_service.finetune.event_conditioned.train import weighted_loss
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS


def random_batch(model: Kronos, *, windows: int, bars: int, scored: int, device: str = "cpu") -> Batch:
    """Random ids and events; the last `scored` positions count."""
    torch.manual_seed(0)
    s1, s2, s1_targets = (
        torch.randint(0, 2**model.s1_bits, (windows, bars), device=device) for _ in range(3)
    )
    positions = torch.arange(bars - scored, bars, device=device).expand(windows, scored)
    return Batch(
        stamps=torch.ones(windows, bars, 5, dtype=torch.int64, device=device),
        events=torch.randn(windows, bars, 20, device=device),
        s1_ids=s1,
        s2_ids=s2,
        s1_targets=s1_targets,
        positions=positions,
        s2_targets=torch.randint(0, 2**model.s2_bits, (windows, scored), device=device),
        weight=torch.ones(windows, scored, device=device),
        is_event=torch.zeros(windows, scored, dtype=torch.bool, device=device),
        index=torch.arange(windows),
    )


def lora_step(model: nn.Module, batch: Batch, accelerator: Accelerator) -> None:
    accelerator.backward(weighted_loss(model, batch, accelerator))
    model.zero_grad()


def naive_step(model: Kronos, batch: Batch) -> None:
    """Logits on every position, and a gradient for every weight."""
    s1, s2 = model(batch["s1_ids"], batch["s2_ids"], batch["stamps"], s1_targets=batch["s1_targets"])
    targets = batch["s1_targets"].flatten()
    loss = functional.cross_entropy(s1.flatten(0, 1), targets) + functional.cross_entropy(
        s2.flatten(0, 1), targets
    )
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()


def seconds(step: Callable[[], None], repeats: int = 5) -> float:
    """The fastest of some runs: other work on the machine only ever adds to it."""
    step()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return min(times)


@pytest.mark.slow
def test_a_lora_step_costs_well_under_a_naive_one(record_property: Callable[[str, object], None]) -> None:
    base = Kronos(**PRESETS["mini"].predictor).eval()
    naive = Kronos(**PRESETS["mini"].predictor).eval()
    model = adapt(base, rank=8, dropout=0.05, taps="both", seed=0)
    training_mode(model)
    batch = random_batch(base, windows=8, bars=256, scored=32)
    accelerator = Accelerator(cpu=True)
    ratio = seconds(lambda: lora_step(model, batch, accelerator)) / seconds(lambda: naive_step(naive, batch))
    record_property("lora_step_over_naive_step", round(ratio, 3))
    print(f"LoRA step / naive step, mini, 8 x 256, fp32: {ratio:.2f}")  # noqa: T201
    assert ratio < 0.75


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("micro_batch", [2, 4, 8])
def test_a_batch_of_the_base_preset_fits_six_gigabytes(micro_batch: int) -> None:
    base = Kronos(**PRESETS["base"].predictor).eval().to("cuda")
    model = adapt(base, rank=8, dropout=0.05, taps="both", seed=0)
    training_mode(model)
    accelerator = Accelerator(mixed_precision="bf16")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(32 // micro_batch):
        batch = random_batch(base, windows=micro_batch, bars=512, scored=32, device="cuda")
        accelerator.backward(weighted_loss(model, batch, accelerator))
    peak = torch.cuda.max_memory_allocated()
    print(f"base preset, 32 x 512 in micro-batches of {micro_batch}, bf16: peak {peak / 1e9:.2f} GB")  # noqa: T201
    assert peak < 6e9
