"""The training loop: checkpoint, stop where asked, validate, and step (batch, loss, backward, clip, log).


A step's loss is the weighted sum over its targets divided by the split's mean number of targets per step. So
an event target counts exactly `event_weight` times one of a non-event day whatever the batch it falls in,
and gradients depend neither on the micro-batch nor on the number of processes that share a batch.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset
from kronos_service.finetune.event_conditioned.training.checkpoints import (
    Checkpoints,
    LoopState,
    TrainingState,
    capture,
    restore,
)
from kronos_service.finetune.event_conditioned.training.distributed import (
    on_main,
    process_number,
    share,
    sum_gradients,
    sum_over_processes,
)
from kronos_service.finetune.event_conditioned.training.lora import parameter_groups, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.event_conditioned.training.schedule import Schedule, cosine_with_warmup
from kronos_service.finetune.event_conditioned.training.signals import Stop
from kronos_service.finetune.event_conditioned.training.tracking import Log
from kronos_service.finetune.event_conditioned.training.validation import (
    LOSSES,
    mean_weighted_loss,
    score,
    summarize,
)
from kronos_shared.errors import KronosError
from kronos_shared.progress import Progress

EPOCH_FIGURES = {
    "train": "train/fixed_loss",
    "val event": "val/event_total",
    "val non-event": "val/quiet_total",
}
"""What is shown of an epoch, and under which name it is logged."""


class TrainingError(KronosError):
    """A loss or gradient is not finite."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a training reads."""

    train: EventConditionedDataset
    fixed: EventConditionedDataset
    """Train windows whose loss in eval mode is followed from epoch to epoch."""
    val: EventConditionedDataset | None
    """None where no target is kept back."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The outcome of a training, beside the trained model."""

    loop: LoopState
    records: pd.DataFrame
    """Validation losses per target after the last epoch, as `validation.score` gives them."""


def train(
    model: nn.Module,
    data: Data,
    *,
    config: EventLoraConfig,
    micro_batch: int,
    accelerator: Accelerator,
    log: Log,
    checkpoints: Checkpoints,
    state: TrainingState | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Trained:
    """Train in place, from the beginning or from `state`, with `micro_batch` windows in memory at once.

    Raises:
        TrainingError: a loss or gradient is not finite; the step, and the symbols and dates of its batch,
            are named.
        Stopped: a signal came; the step it came in is done and in a checkpoint.
        CheckpointError: a checkpoint cannot be written; the ones before it stay.
    """
    progress, stop = progress or Progress(), stop or Stop()
    loop = Loop(model, data, config, micro_batch, accelerator)
    at = LoopState()
    if state:
        restore(state, model, loop.optimizer, loop.scheduler)
        at = state.loop
    before, begun = at.seconds, time.monotonic()
    records = pd.DataFrame()
    progress.begin(loop.schedule.windows_before(at.step))
    # Save and stop come before the step, so the last step needs no second copy of that code.
    while True:
        epoch, within = divmod(at.step, loop.schedule.steps_per_epoch)
        stopping = stop.asked_anywhere()
        at.seconds = before + time.monotonic() - begun
        if within == 0 or stopping or checkpoints.due(at.step):
            at.peak_bytes = max(at.peak_bytes, peak_bytes())
            at.metrics_size = log.size()
            on_main(lambda: checkpoints.write(capture(model, loop.optimizer, loop.scheduler, at)))
        if stopping:
            raise stop.stopped(at.step, loop.schedule.steps)
        # A run killed between an epoch's last checkpoint and its validation still owes that validation.
        if within == 0 and epoch == len(at.fixed_losses):
            figures, records = loop.validate()
            at.fixed_losses.append(figures["train/fixed_loss"])
            log.log(figures, step=at.step, epoch=epoch)
            progress.say(f"{progress.name} {epoch_line(epoch, config.epochs, figures)}")
        elif at.step == loop.schedule.steps:
            return Trained(loop=at, records=records)
        else:
            windows = loop.schedule.batch(at.step)
            figures = loop.step(at.step, windows)
            at.step += 1
            log.log(figures, step=at.step, epoch=epoch + 1)
            progress.advance(len(windows), f"loss {figures['train/loss']:.4f}")


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, float]) -> str:
    """The figures at an epoch's end in one line; epoch 0 is before the first step."""
    shown = "  ".join(
        f"{label} {figures[name]:.4f}" for label, name in EPOCH_FIGURES.items() if name in figures
    )
    return f"epoch {epoch:>2}/{epochs}  {shown}"


class Loop:
    """Model, data and optimizer of one training, with its step and its validation."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        config: EventLoraConfig,
        micro_batch: int,
        accelerator: Accelerator,
    ) -> None:
        self.model, self.data, self.config = model, data, config
        self.micro_batch, self.accelerator = micro_batch, accelerator
        self.schedule = Schedule(
            windows=len(data.train), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
        )
        groups = parameter_groups(
            model, learning_rate=config.learning_rate, event_learning_rate=config.event_learning_rate
        )
        self.optimizer = AdamW(groups, weight_decay=config.weight_decay)
        rate = partial(cosine_with_warmup, warmup=config.warmup_steps, total=self.schedule.steps)
        self.scheduler = LambdaLR(self.optimizer, rate)

    def step(self, step: int, windows: Sequence[int]) -> dict[str, float]:
        """One optimizer step (the `step`-th, from 0) on these windows, and its figures."""
        self.data.train.set_epoch(step // self.schedule.steps_per_epoch + 1)
        training_mode(self.model)
        _seed_dropout(self.config.seed, step)
        parameters = [parameter for _, parameter in trainable(self.model)]
        loss, weight = self._accumulate(share(windows))
        sum_gradients(parameters)  # before the norm is taken, so that clipping sees the whole batch
        loss, weight = sum_over_processes(loss, weight)
        norm = float(self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm))
        _require_finite(loss, norm, step, self.data.train, windows)
        lora_rate, event_rate = (float(rate) for rate in self.scheduler.get_last_lr())
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return {
            "train/loss": loss / weight,
            "train/grad_norm": norm,
            "train/lr": lora_rate,
            "train/event_lr": event_rate,
        }

    def validate(self) -> tuple[dict[str, float], pd.DataFrame]:
        """The figures of an epoch's end, and the validation loss of each target."""
        records, figures = pd.DataFrame(), {}
        if self.data.val is not None:
            records = score(self.model, self.data.val, self.accelerator, micro_batch=self.micro_batch)
            figures = {
                f"val/{group}_{name}": means[name]
                for group, means in summarize(records).items()
                for name in LOSSES
            }
        fixed = mean_weighted_loss(
            self.model, self.data.fixed, self.accelerator, micro_batch=self.micro_batch
        )
        return {"train/fixed_loss": fixed, **figures}, records

    def _accumulate(self, windows: Sequence[int]) -> tuple[float, float]:
        """Add the gradients of the windows, `micro_batch` at a time; their weighted loss and weight."""
        # A constant, not this batch's own count: else a target in a small batch would count more.
        targets_per_step = self.data.train.n_targets / self.schedule.steps_per_epoch
        total = torch.zeros((), device=self.accelerator.device)
        weight = 0.0
        for batch in self.data.train.batches(windows, self.micro_batch):
            loss = weighted_loss(self.model, send_to_device(batch, total.device), self.accelerator)
            self.accelerator.backward(loss / targets_per_step)
            total += loss.detach()  # stays on the device: reading it here would wait for each micro-batch
            weight += float(batch["weight"].sum())
        return float(total), weight


def peak_bytes() -> int:
    """Most GPU memory allocated at once since the peak was last reset; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def _seed_dropout(seed: int, step: int) -> None:
    """Make dropout a function of (seed, step, process): a resumed run draws the same, processes do not."""
    sequence = np.random.SeedSequence((seed, step, process_number()))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


def _require_finite(
    loss: float, norm: float, step: int, dataset: EventConditionedDataset, batch: Sequence[int]
) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    windows = [dataset.windows[number] for number in batch]
    targets = [dataset.series[w.series].dates[[w.first_target, w.stop - 1]] for w in windows]
    symbols = sorted({dataset.series[window.series].symbol for window in windows})
    raise TrainingError(
        f"step {step + 1}: loss {loss:g}, gradient norm {norm:g} (expected finite numbers) in "
        f"a batch of {', '.join(symbols)} from {np.min(targets)} to {np.max(targets)}: lower the "
        "learning rate, or look at these bars"
    )
