"""The training loop: batch, loss, backward, clip, step, log, validate.

The loss of a target is CE(s1) + CE(s2), teacher forced; a step's loss is the weighted sum over its
targets divided by the split's mean number of targets per step. So an event target counts exactly
`event_oversample` times a quiet one whatever the batch it falls in, and gradients do not depend on the
micro-batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.dataset import Batch, EventConditionedDataset, Sample, collate
from kronos_service.finetune.event_conditioned.lora import parameter_groups, trainable, training_mode
from kronos_service.finetune.event_conditioned.metrics import MetricLog
from kronos_service.finetune.event_conditioned.validate import LOSSES, score, summarize, token_losses
from kronos_shared.errors import KronosError

EpochEnd = Callable[[int, dict[str, float]], None]
Advance = Callable[[int, float], None]


class TrainingError(KronosError):
    """Training cannot go on: a loss or gradient that is not finite."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the loop tells whoever watches it."""

    advance: Advance = lambda windows, loss: None
    """After each step: windows done, and the step's weighted mean loss."""
    epoch_end: EpochEnd = lambda epoch, figures: None
    """After each epoch (and before the first, as epoch 0): its validation figures."""


def train(
    model: nn.Module,
    train_set: EventConditionedDataset,
    *,
    fixed_set: EventConditionedDataset,
    val_set: EventConditionedDataset,
    config: EventLoraConfig,
    accelerator: Accelerator,
    log: MetricLog,
    progress: Progress,
) -> list[float]:
    """Train in place; returns the loss on `fixed_set` in eval mode, untrained first, then after every epoch.

    Raises:
        TrainingError: a loss or gradient is not finite; the step, and the symbols and dates of its batch,
            are named.
    """
    torch.manual_seed(config.seed)
    steps_per_epoch = math.ceil(len(train_set) / config.batch_size)
    targets_per_step = train_set.n_targets / steps_per_epoch
    groups = parameter_groups(
        model, learning_rate=config.learning_rate, event_learning_rate=config.event_learning_rate
    )
    optimizer = accelerator.prepare(AdamW(groups, weight_decay=config.weight_decay))
    rate = partial(cosine_with_warmup, warmup=config.warmup_steps, total=steps_per_epoch * config.epochs)
    scheduler = LambdaLR(optimizer, rate)
    parameters = [parameter for _, parameter in trainable(model)]

    def measure(epoch: int, step: int) -> float:
        figures = _epoch_figures(model, fixed_set, val_set, accelerator, config.windows_at_once)
        log.log(figures, step=step, epoch=epoch)
        progress.epoch_end(epoch, figures)
        return figures["train/fixed_loss"]

    step = 0
    fixed_losses = [measure(0, step)]
    for epoch in range(1, config.epochs + 1):
        train_set.set_epoch(epoch)
        training_mode(model)
        for samples in _batches(train_set, config.batch_size, config.seed, epoch):
            loss = _accumulate(model, samples, targets_per_step, config.windows_at_once, accelerator)
            norm = accelerator.clip_grad_norm_(parameters, config.clip)
            _require_finite(loss, norm, step, train_set, samples)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
            mean = loss * targets_per_step / sum(float(sample["loss_weight"].sum()) for sample in samples)
            lora_rate, event_rate = (float(value) for value in scheduler.get_last_lr())
            log.log(
                {
                    "train/loss": mean,
                    "train/grad_norm": float(norm),
                    "train/lr": lora_rate,
                    "train/event_lr": event_rate,
                },
                step=step,
                epoch=epoch,
            )
            progress.advance(len(samples), mean)
        fixed_losses.append(measure(epoch, step))
    return fixed_losses


def _accumulate(
    model: nn.Module,
    samples: Sequence[Sample],
    targets_per_step: float,
    at_once: int,
    accelerator: Accelerator,
) -> float:
    """Add the gradients of a batch, `at_once` windows at a time, and return its loss."""
    total = torch.zeros((), device=accelerator.device)
    for begin in range(0, len(samples), at_once):
        batch = send_to_device(collate(samples[begin : begin + at_once]), accelerator.device)
        loss = weighted_loss(model, batch, accelerator) / targets_per_step
        accelerator.backward(loss)
        total += loss.detach()
    return float(total)


def weighted_loss(model: nn.Module, batch: Batch, accelerator: Accelerator) -> Tensor:
    """Sum over the scored targets of weight x (CE(s1) + CE(s2))."""
    with accelerator.autocast():
        s1, s2 = token_losses(model, batch)
    return ((s1 + s2) * batch["weight"]).sum()


def cosine_with_warmup(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: linear up over `warmup` steps, then a half cosine down
    to 0 at `total`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _batches(
    dataset: EventConditionedDataset, batch_size: int, seed: int, epoch: int
) -> Iterator[list[Sample]]:
    """Each window once, in an order shuffled by (seed, epoch)."""
    order = np.random.default_rng((seed, epoch)).permutation(len(dataset))
    return iter(DataLoader(dataset, batch_size, sampler=order.tolist(), collate_fn=list))


def _require_finite(
    loss: float, norm: Tensor | float, step: int, dataset: EventConditionedDataset, samples: Sequence[Sample]
) -> None:
    if math.isfinite(loss) and math.isfinite(float(norm)):
        return
    windows = [dataset.windows[sample["index"]] for sample in samples]
    targets = [dataset.series[w.series].dates[[w.first_target, w.stop - 1]] for w in windows]
    symbols = sorted({dataset.series[window.series].symbol for window in windows})
    raise TrainingError(
        f"step {step + 1}: loss {loss:g}, gradient norm {float(norm):g} (expected finite numbers) in "
        f"a batch of {', '.join(symbols)} from {np.min(targets)} to {np.max(targets)}: lower the "
        "learning rate, or look at these bars"
    )


def _epoch_figures(
    model: nn.Module,
    fixed_set: EventConditionedDataset,
    val_set: EventConditionedDataset,
    accelerator: Accelerator,
    micro_batch: int,
) -> dict[str, float]:
    model.eval()
    val = summarize(score(model, val_set, accelerator, micro_batch=micro_batch))
    figures = {
        f"val/{group}_{name}": val[group][name] for group in ("event", "quiet", "all") for name in LOSSES
    }
    return {"train/fixed_loss": mean_weighted_loss(model, fixed_set, accelerator, micro_batch), **figures}


@torch.inference_mode()
def mean_weighted_loss(
    model: nn.Module, dataset: EventConditionedDataset, accelerator: Accelerator, micro_batch: int
) -> float:
    """The weighted mean loss over all targets of a dataset."""
    total = weight = 0.0
    for batch in DataLoader(dataset, batch_size=micro_batch, collate_fn=collate):
        total += float(weighted_loss(model, send_to_device(batch, accelerator.device), accelerator))
        weight += float(batch["weight"].sum())
    return total / weight
