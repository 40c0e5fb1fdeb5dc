"""The loop of one pretraining stage; an interrupted run resumes it from its newest checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from kronos_service.finetune.event_conditioned.training.checkpoints import (
    Checkpoints,
    LoopState,
    capture,
    restore,
)
from kronos_service.finetune.event_conditioned.training.schedule import cosine_with_warmup
from kronos_service.finetune.pretrain.windows import Batch
from kronos_shared.errors import KronosError
from kronos_shared.progress import follow

WEIGHT_DECAY: Final = 0.01
MAX_GRAD_NORM: Final = 1.0
WARMUP_STEPS: Final = 100
FINAL_RATE: Final = 0.02
"""Share of the learning rate at which the cosine ends."""


class PretrainError(KronosError):
    """Pretraining cannot continue."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is trained for how long, and where its checkpoints are."""

    name: str
    steps: int
    peak_lr: float
    seed: int
    """All randomness of a step comes from this and the step's number, so a checkpoint needs no generator."""
    checkpoints: Checkpoints


def train_stage(
    stage: Stage,
    module: nn.Module,
    draw: Callable[[np.random.Generator], Batch],
    loss_of: Callable[[Batch], Tensor],
    *,
    accelerator: Accelerator,
    console: Console,
) -> list[float]:
    """Train the module to the stage's end and return the mean loss between one checkpoint and the next.

    Raises:
        PretrainError: a loss is not finite.
        CheckpointError: a checkpoint cannot be written; the ones before it stay.
    """
    # With a rate of 1 the schedule's factor is the rate itself, rounded once.
    optimizer = torch.optim.AdamW(module.parameters(), lr=1.0, weight_decay=WEIGHT_DECAY)
    scheduler = LambdaLR(optimizer, partial(learning_rate, stage.peak_lr, steps=stage.steps))
    module, optimizer = accelerator.prepare(module.train(), optimizer)
    at, recent = LoopState(), list[float]()
    with follow(stage.name, unit="steps", total=stage.steps, on=console) as progress:
        if saved := stage.checkpoints.newest(progress.say):
            restore(saved, module, optimizer, scheduler)
            at = saved.loop
        progress.begin(at.step)
        while at.step < stage.steps:
            batch = _seeded_batch(stage, at.step, draw).to(accelerator.device)
            with accelerator.autocast():
                loss = loss_of(batch)
            recent.append(_finite(float(loss.detach()), stage, at.step))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(module.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            at.step += 1
            progress.advance(1, f"loss {recent[-1]:.4f}")
            if stage.checkpoints.due(at.step) or at.step == stage.steps:
                at.curve.append(round(float(np.mean(recent)), 4))
                recent.clear()
                stage.checkpoints.write(capture(module, optimizer, scheduler, at))
    return at.curve


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over at most a fifth of the steps, then a cosine to 2 % of the peak."""
    warmup = min(WARMUP_STEPS, steps // 5)
    if step < warmup:
        return peak * (step + 1) / warmup
    cosine = cosine_with_warmup(step, warmup=warmup, total=steps)
    return peak * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def _seeded_batch(stage: Stage, step: int, draw: Callable[[np.random.Generator], Batch]) -> Batch:
    rng = np.random.default_rng([stage.seed, *stage.name.encode(), step])
    torch.manual_seed(int(rng.integers(2**63)))  # for dropout
    return draw(rng)


def _finite(loss: float, stage: Stage, step: int) -> float:
    if not np.isfinite(loss):
        raise PretrainError(
            f"{stage.name}: the loss of step {step} is {loss}; lower --{stage.name}-lr and start again"
        )
    return loss
