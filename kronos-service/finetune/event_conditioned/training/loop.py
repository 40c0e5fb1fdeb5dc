"""The training loop: checkpoint, stop where asked, validate, and step (batch, loss, backward, clip, log).

The loss of a target is CE(s1) + CE(s2), teacher forced; a step's loss is the weighted sum over its
targets divided by the split's mean number of targets per step. So an event target counts exactly
`event_weight` times a quiet one whatever the batch it falls in, and gradients depend neither on the
micro-batch nor on the number of processes that share a batch.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import Batch, EventConditionedDataset, collate
from kronos_service.finetune.event_conditioned.training.checkpoints import (
    Checkpoints,
    Meters,
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
from kronos_service.finetune.event_conditioned.training.progress import Progress
from kronos_service.finetune.event_conditioned.training.signals import Stop
from kronos_service.finetune.event_conditioned.training.tracking import Log
from kronos_service.finetune.event_conditioned.training.validation import (
    LOSSES,
    score,
    summarize,
    token_losses,
)
from kronos_shared.errors import KronosError


class TrainingError(KronosError):
    """Training cannot go on: a loss or gradient that is not finite."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a training reads."""

    train: EventConditionedDataset
    fixed: EventConditionedDataset
    """Train windows whose loss in eval mode is followed from epoch to epoch."""
    val: EventConditionedDataset


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which windows make up which step."""

    windows: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each window comes once; the last one may be smaller."""
        return math.ceil(self.windows / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    def batch(self, step: int) -> list[int]:
        """The windows of a step (from 0): each epoch has its own order, shuffled by (seed, epoch)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch + 1)).permutation(self.windows)
        windows: list[int] = order[within * self.batch_size :][: self.batch_size].tolist()
        return windows

    def windows_before(self, step: int) -> int:
        """Windows that the first `step` steps have seen, over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch * self.windows + within * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training comes to, beside the trained model."""

    meters: Meters
    records: pd.DataFrame
    """Validation losses per target after the last epoch, as `validate.score` gives them."""


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
    meters = Meters()
    if state:
        restore(state, model, loop.optimizer, loop.scheduler)
        meters = state.meters
    before, begun = meters.seconds, time.monotonic()
    records = pd.DataFrame()
    progress.begin(loop.schedule.windows_before(meters.step))
    while True:
        epoch, within = divmod(meters.step, loop.schedule.steps_per_epoch)
        stopping = stop.asked_anywhere()
        meters.seconds = before + time.monotonic() - begun
        if within == 0 or stopping or checkpoints.due(meters.step):
            meters.peak_bytes = max(meters.peak_bytes, peak_bytes())
            meters.metrics_size = log.size()
            on_main(lambda: checkpoints.write(capture(model, loop.optimizer, loop.scheduler, meters)))
        if stopping:
            raise stop.stopped(f"after step {meters.step} of {loop.schedule.steps}")
        if within == 0 and epoch == len(meters.fixed_losses):
            figures, records = loop.validate()
            meters.fixed_losses.append(figures["train/fixed_loss"])
            log.log(figures, step=meters.step, epoch=epoch)
            progress.epoch_end(epoch, figures)
        elif meters.step == loop.schedule.steps:
            return Trained(meters=meters, records=records)
        else:
            windows = loop.schedule.batch(meters.step)
            figures = loop.step(meters.step, windows)
            meters.step += 1
            log.log(figures, step=meters.step, epoch=epoch + 1)
            progress.advance(len(windows), figures["train/loss"])


class Loop:
    """One training's model, data and optimizer, and what is done with them."""

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
        sum_gradients(parameters)
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
        records = score(self.model, self.data.val, self.accelerator, micro_batch=self.micro_batch)
        val = summarize(records)
        figures = {
            f"val/{group}_{name}": val[group][name] for group in ("event", "quiet", "all") for name in LOSSES
        }
        fixed = mean_weighted_loss(self.model, self.data.fixed, self.accelerator, self.micro_batch)
        return {"train/fixed_loss": fixed, **figures}, records

    def _accumulate(self, windows: Sequence[int]) -> tuple[float, float]:
        """Add the gradients of the windows, `micro_batch` at a time; their weighted loss and weight."""
        targets_per_step = self.data.train.n_targets / self.schedule.steps_per_epoch
        total = torch.zeros((), device=self.accelerator.device)
        weight = 0.0
        for begin in range(0, len(windows), self.micro_batch):
            samples = [self.data.train[window] for window in windows[begin : begin + self.micro_batch]]
            batch = collate(samples)
            loss = weighted_loss(self.model, send_to_device(batch, total.device), self.accelerator)
            self.accelerator.backward(loss / targets_per_step)
            total += loss.detach()
            weight += float(batch["weight"].sum())
        return float(total), weight


def weighted_loss(model: nn.Module, batch: Batch, accelerator: Accelerator) -> Tensor:
    """Sum over the scored targets of weight x (CE(s1) + CE(s2))."""
    with accelerator.autocast():
        s1, s2 = token_losses(model, batch)
    return ((s1 + s2) * batch["weight"]).sum()


@torch.inference_mode()
def mean_weighted_loss(
    model: nn.Module, dataset: EventConditionedDataset, accelerator: Accelerator, micro_batch: int
) -> float:
    """The weighted mean loss over all targets of a dataset, in eval mode."""
    model.eval()
    total = weight = 0.0
    mine = Subset(dataset, share(range(len(dataset))))
    for batch in DataLoader(mine, batch_size=micro_batch, collate_fn=collate):
        total += float(weighted_loss(model, send_to_device(batch, accelerator.device), accelerator))
        weight += float(batch["weight"].sum())
    total, weight = sum_over_processes(total, weight)
    return total / weight


def cosine_with_warmup(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: linear up over `warmup` steps, then a half cosine down
    to 0 at `total`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def peak_bytes() -> int:
    """Most GPU memory allocated at once since the peak was last reset; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def _seed_dropout(seed: int, step: int) -> None:
    """Make the noise of a step a function of (seed, step, process), so that a resumed run draws the same."""
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
