"""Which windows make up which step of a training, and at which learning rate."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The order of windows, a function of the seed and the step alone: a resumed run needs no generator."""

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
        """Windows that the first `step` steps read, over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch * self.windows + within * self.batch_size


def cosine_with_warmup(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: linear up over `warmup` steps, then a half cosine down
    to 0 at `total`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
