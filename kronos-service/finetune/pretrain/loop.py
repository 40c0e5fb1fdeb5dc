"""The loop of one pretraining stage, which an interrupted run continues where its last state was saved."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from kronos_service.finetune.pretrain.windows import Batch
from kronos_shared.errors import KronosError

WEIGHT_DECAY: Final = 0.01
MAX_GRADIENT: Final = 1.0
WARMUP_STEPS: Final = 100
FINAL_RATE: Final = 0.02
"""Share of the learning rate at which the cosine ends."""


class PretrainError(KronosError):
    """Pretraining cannot go on."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is trained for how long, and where its state lies."""

    name: str
    steps: int
    peak_lr: float
    save_every: int
    """Steps."""
    seed: int
    """All randomness of a step comes from this and the step's number, so a state needs no generator."""
    state: Path
    key: str
    """Hash of settings and data: only a state with the same one is continued."""


def train_stage(
    stage: Stage,
    module: nn.Module,
    draw: Callable[[np.random.Generator], Batch],
    loss_of: Callable[[Batch], Tensor],
    *,
    accelerator: Accelerator,
    console: Console,
) -> list[float]:
    """Train the module to the stage's end and return the mean loss between one save and the next.

    Raises:
        PretrainError: the saved state is another run's, or a loss is not finite.
    """
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=WEIGHT_DECAY)
    module, optimizer = accelerator.prepare(module.train(), optimizer)
    first, curve = _restore(stage, module, optimizer)
    recent: list[float] = []
    with _progress(console) as bar:
        task = bar.add_task(stage.name, total=stage.steps, completed=first, loss=float("nan"), rate=0.0)
        for step in range(first, stage.steps):
            begun = time.monotonic()
            batch = _seeded_batch(stage, step, draw).to(accelerator.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage.peak_lr, step, stage.steps)
            with accelerator.autocast():
                loss = loss_of(batch)
            recent.append(_finite(float(loss.detach()), stage, step))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(module.parameters(), MAX_GRADIENT)
            optimizer.step()
            optimizer.zero_grad()
            rate = batch.x[..., 0].numel() / (time.monotonic() - begun)
            bar.update(task, advance=1, loss=recent[-1], rate=rate)
            if (step + 1) % stage.save_every == 0 or step + 1 == stage.steps:
                curve.append(round(float(np.mean(recent)), 4))
                recent.clear()
                _save(stage, step + 1, module, optimizer, curve)
    return curve


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    warmup = min(WARMUP_STEPS, steps // 5)
    if step < warmup:
        return peak * (step + 1) / warmup
    cosine = 0.5 * (1 + np.cos(np.pi * (step - warmup) / (steps - warmup)))
    return peak * float(FINAL_RATE + (1 - FINAL_RATE) * cosine)


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


def _save(
    stage: Stage, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, curve: list[float]
) -> None:
    """Write beside, then rename: a kill leaves the older state or the new one."""
    state = {
        "key": stage.key,
        "step": step,
        "curve": curve,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    stage.state.parent.mkdir(parents=True, exist_ok=True)
    beside = stage.state.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, stage.state)


def _restore(stage: Stage, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    if not stage.state.exists():
        return 0, []
    state = torch.load(stage.state, weights_only=True)
    if state["key"] != stage.key:
        raise PretrainError(
            f"{stage.state.parent} belongs to a run with other settings or data: remove it or change --out"
        )
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), list(state["curve"])


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} bars/s"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)
