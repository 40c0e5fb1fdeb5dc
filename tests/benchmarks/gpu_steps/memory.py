"""Memory of a full-size step by micro-batch, what is chosen for a budget, and how fast the step is.

The allocator gets 6 GB, and attention the kernels that an sm89 card has in training: flash for head size 52
(padded to 56) and not for 208, and no flash where there is a mask. So allowing flash and the efficient
kernel, and not cuDNN's, is what such a card does.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from gpu_steps.lab import PEAKS, Lab
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from training_step import adapted, flops, model_flops_utilisation, products, random_batch

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import Batch
from kronos_service.finetune.event_conditioned.training.lora import parameter_groups
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.event_conditioned.training.memory_budget import (
    GB,
    BudgetError,
    cuda_peak,
    largest_fit,
    powers_of_two,
)
from kronos_service.finetune.event_conditioned.training.step_cost import step_cost
from kronos_service.finetune.precision import storage
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS

BATCH, SCORED = 32, 32
DRY_BATCH = 4
STEPS = 10
SM89 = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def run(lab: Lab) -> None:
    lab.cap_memory()
    accelerator = Accelerator(mixed_precision="bf16", cpu=lab.dry_run)
    with nullcontext() if lab.dry_run else sdpa_kernel(SM89):
        windows = micro_batches(lab, accelerator)
        for name, fused in (("AdamW", False), ("fused AdamW", True)):
            speed(lab, accelerator, windows, name, fused=fused)


def batch_size(lab: Lab) -> int:
    """Windows of an optimizer step."""
    return DRY_BATCH if lab.dry_run else BATCH


def micro_batches(lab: Lab, accelerator: Accelerator) -> int:
    """Record the peak of each micro-batch beside its estimate, and return the choice for 6 GB."""
    base, _ = adapted(lab.preset, lab.device)
    batch = batch_size(lab)
    config = EventLoraConfig(batch_size=batch)
    shape = PRESETS[lab.preset].predictor
    cost = step_cost(shape, config, bars=lab.context, precision="bf16")
    measured = measure(lab, base, config, accelerator)
    peaks = {}
    for windows in powers_of_two(batch):
        peaks[windows] = measured(windows, False)
        estimate = cost.peak(windows) / GB
        if peaks[windows] > 6 * GB:
            lab.add(f"{windows} windows at once", "more than 6 GB", "", f"estimated {estimate:.2f} GB")
            break
        reserved = lab.memory()[1] / GB
        about = f"reserved {reserved:.2f} GB, estimated {estimate:.2f} GB"
        lab.add(f"{windows} windows at once: most allocated", peaks[windows] / GB, "GB", about)
    for budget in (6, 3):
        choice = chosen(
            lambda windows, again: measured(windows, True) if again else peaks[windows], budget, batch
        )
        lab.add(f"--vram-budget {budget} takes", choice, "windows")
    fitting = [windows for windows, peak in peaks.items() if peak <= 6 * GB]
    return max(fitting)


def chosen(peak: Callable[[int, bool], int], budget: int, batch: int) -> int | str:
    try:
        return largest_fit(peak, sizes=powers_of_two(batch), budget=budget * GB).windows
    except BudgetError as error:
        return str(error)


def measure(
    lab: Lab, base: Kronos, config: EventLoraConfig, accelerator: Accelerator
) -> Callable[[int, bool], int]:
    """Peaks as a run measures them; on a CPU, which counts none, the step is only done."""

    def batch_of(windows: int) -> Batch:
        return random_batch(base, windows=windows, bars=lab.context, scored=SCORED, device=lab.device)

    if not lab.dry_run:
        return cuda_peak(config, base, batch_of, accelerator)
    model = adapted(lab.preset)[1]

    def undertaken(windows: int, _: bool) -> int:
        accelerator.backward(weighted_loss(model, batch_of(windows), accelerator))
        return 1

    return undertaken


def speed(
    lab: Lab,
    accelerator: Accelerator,
    windows: int,
    name: str,
    *,
    fused: bool = False,
    change: Callable[[PeftModel], None] | None = None,
) -> None:
    """Record seconds of an optimizer step of a batch, and the share of the card's peak."""
    size = batch_size(lab)
    base, model = adapted(lab.preset, lab.device)
    if change is not None:
        change(model)
    batch = random_batch(base, windows=windows, bars=lab.context, scored=SCORED, device=lab.device)
    groups = parameter_groups(model, learning_rate=1e-4, event_learning_rate=3e-4)
    optimizer = torch.optim.AdamW(groups, fused=fused)

    def step() -> None:
        for _ in range(size // windows):
            accelerator.backward(weighted_loss(model, batch, accelerator))
        optimizer.step()
        optimizer.zero_grad()

    with storage(model, "bf16"):
        first = lab.seconds(step)
        lab.forget_memory()
        seconds = lab.seconds(step, repeats=1 if lab.dry_run else STEPS)
    about = f"micro-batch {windows}, the first step {first:.1f} s"
    lab.add(f"step of {size} x {lab.context}, {name}", seconds, "s", about)
    lab.add(f"most allocated, {name}", lab.memory()[0] / GB, "GB")
    shapes = products(base, windows=size, bars=lab.context, scored=SCORED)
    peak = lab.peak(PEAKS)
    if peak is not None:
        share = model_flops_utilisation(shapes, seconds, peak)
        lab.add(f"model FLOP utilisation, {name}", 100 * share, "%", f"of {peak / 1e12:.0f} TFLOP/s")
    lab.add(f"own products a second, {name}", flops(shapes) / seconds / 1e12, "TFLOP/s")
