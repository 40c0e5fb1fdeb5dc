"""How many windows a training step holds in memory at once; the rest of its batch is accumulated.

Peak memory is measured, not computed: attention kernels and autocast copies differ between cards and between
releases of torch.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import Batch, EventConditionedDataset, collate
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.precision import storage
from kronos_service.model.adapter.read import kronos_of
from kronos_service.model.kronos import Kronos
from kronos_shared.errors import KronosError

GB: Final = 10**9
CPU_TOKENS: Final = 4096
"""Bars a CPU holds at once: more are no faster (docs/performance.md), and need memory."""

Peak = Callable[[int, bool], int]
"""Bytes that a step needs with so many windows at once, without or with activation checkpointing."""


class BudgetError(KronosError):
    """Not even one window fits the memory budget."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Windows in memory at once, and whether their activations are recomputed instead of kept."""

    windows: int
    checkpointing: bool
    peak_bytes: int | None
    """Measured; None on a CPU, where there is no budget."""


def on_cpu(batch_size: int, bars: int) -> int:
    """Windows of so many bars that keep a CPU busy, at most a batch."""
    return min(batch_size, max(CPU_TOKENS // bars, 1))


def largest_fit(peak: Peak, *, sizes: list[int], budget: int) -> MicroBatch:
    """The largest of the ascending sizes that fits the budget (bytes).

    Activation checkpointing costs a second forward, so it comes only where the first size does not fit
    without.

    Raises:
        BudgetError: nothing fits.
    """
    needed = sys.maxsize
    for checkpointing in (False, True):
        best = None
        for windows in sizes:
            needed = peak(windows, checkpointing)
            if needed > budget:
                break  # memory grows with the windows: the larger sizes cannot fit either
            best = MicroBatch(windows=windows, checkpointing=checkpointing, peak_bytes=needed)
        if best is not None:
            return best
    needs = "more than this device has" if needed == sys.maxsize else f"{needed / GB:.2f} GB"
    raise BudgetError(
        f"windows at once: {sizes[0]}; even with activation checkpointing a step needs {needs}, and the "
        f"budget is {budget / GB:.2f} GB: raise --vram-budget, shorten --context, or choose a smaller base"
    )


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... and at the end `most` itself."""
    return [*(2**n for n in range((most - 1).bit_length())), most]


def fit(
    config: EventLoraConfig, dataset: EventConditionedDataset, base: Kronos, accelerator: Accelerator
) -> MicroBatch:
    """The micro-batch of a run: the user's, else what fits `vram_budget`, or what suits a CPU.

    Where only activation checkpointing fits, it is switched on in the base, and so in every model adapted
    from it.

    Raises:
        BudgetError: not even one window (or the user's micro-batch) fits.
    """
    longest = max(range(len(dataset)), key=lambda i: dataset.windows[i].stop - dataset.windows[i].start)
    if accelerator.device.type != "cuda":
        bars = dataset.windows[longest].stop - dataset.windows[longest].start - 1
        windows = config.micro_batch or on_cpu(config.batch_size, bars)
        return MicroBatch(windows=windows, checkpointing=False, peak_bytes=None)
    most = math.ceil(config.batch_size / accelerator.num_processes)
    sizes = [config.micro_batch] if config.micro_batch else powers_of_two(most)
    taxonomy = dataset.series[0].taxonomy
    peak = cuda_peak(
        config, base, lambda windows: collate([dataset.inputs(longest)] * windows), accelerator, taxonomy
    )
    found = largest_fit(peak, sizes=sizes, budget=int(config.vram_budget * GB))
    base.transformer.checkpointing = found.checkpointing
    return found


def cuda_peak(
    config: EventLoraConfig,
    base: Kronos,
    batch_of: Callable[[int], Batch],
    accelerator: Accelerator,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Peak:
    """Measure the most bytes allocated in a real forward and backward, and add AdamW's two moments."""
    model = adapt(base, lora=config.lora(), taps=config.taps, seed=config.seed, taxonomy=taxonomy)
    training_mode(model)
    moments = sum(2 * parameter.nbytes for _, parameter in trainable(model))

    def peak(windows: int, checkpointing: bool) -> int:
        kronos_of(model).transformer.checkpointing = checkpointing
        torch.cuda.empty_cache()  # else blocks cached by an earlier size make this one look larger
        torch.cuda.reset_peak_memory_stats()
        try:
            with storage(model, accelerator.mixed_precision):
                batch = send_to_device(batch_of(windows), accelerator.device)
                accelerator.backward(weighted_loss(model, batch, accelerator))
        except torch.OutOfMemoryError:
            return sys.maxsize
        finally:
            model.zero_grad()
        return torch.cuda.max_memory_allocated() + moments

    return peak
