"""One admitted request on its way to the model: what to generate, by which model, at what cost, by when."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event
from typing import Final

import numpy as np
import torch

from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.generation.generate import ROWS_PER_PASS, Generated, History, generate, passes
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import STAMP_SIZES
from kronos_shared.columns import FEATURES

STEP: Final = 32.0
"""Cost of a decoding step, however many rows it has: it reads every weight once."""
ROW: Final = 1.75
"""Cost of one row of a decoding step."""
WARM_UP_HORIZON: Final = 2


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """The settings that requests must share to be generated together."""

    horizon: int
    paths: int
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a request costs, in bars of history read; its time is estimated from it.

    `tests/benchmarks/test_benchmark_costs.py` holds the estimate against measured time.
    """

    serving: ServedModel
    key: BatchKey
    bars: int
    series: int

    @property
    def rows(self) -> int:
        """Sample paths, padded to the groups in which they are drawn."""
        return self.series * whole_groups(self.key.paths)

    @property
    def marginal(self) -> float:
        """What it adds to a batch: its bars read, and its rows in every step."""
        return self.bars + ROW * self.key.horizon * self.rows

    @property
    def fixed(self) -> float:
        """What its decoding steps cost, however many rows they have; who joins its batch shares them."""
        return STEP * self.key.horizon * passes(self.series, self.key.paths)

    def joins(self, other: "Cost") -> bool:
        """Whether both can be one batch: the very same model, and equal settings."""
        return self.serving is other.serving and self.key == other.key


class BatchCost:
    """The cost of requests, added one by one, where those that join each other run together.

    A full batch takes no more: thirty requests of which two fill a batch run as fifteen.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._free_rows: dict[tuple[int, BatchKey], int] = {}
        """Of the latest batch of each kind."""

    def add(self, cost: Cost) -> None:
        """Add one request."""
        kind = (id(cost.serving), cost.key)
        free = self._free_rows.get(kind, 0)
        if cost.rows > free:
            self.total += cost.fixed
            free = max(cost.rows, ROWS_PER_PASS)
        self.total += cost.marginal
        self._free_rows[kind] = free - cost.rows


def cost_of(costs: Iterable[Cost]) -> float:
    """The cost of requests, where those that join each other run together."""
    batches = BatchCost()
    for cost in costs:
        batches.add(cost)
    return batches.total


@dataclass(frozen=True, kw_only=True, eq=False)
class ForecastJob:
    """A request's histories with the model it was admitted with; `future` gets its own part of the batch."""

    serving: ServedModel
    key: BatchKey
    histories: Sequence[History]
    expires_at: float
    """On the monotonic clock: a job that has not begun by then is dropped."""
    future: "Future[Generated]" = field(default_factory=Future)
    owner: str = ""
    """Name of the key that asked for it."""
    gone: Event = field(default_factory=Event)
    """Set once nobody waits for it any more: its rows are dropped at the next decoding step."""

    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.gone.is_set()

    @property
    def cost(self) -> Cost:
        """What it costs the model."""
        bars = sum(len(history.x) for history in self.histories)
        return Cost(serving=self.serving, key=self.key, bars=bars, series=len(self.histories))


def run_batch(batch: Sequence[ForecastJob]) -> list[Generated]:
    """Generate jobs that join each other in one call, and give each its part."""
    first = batch[0]
    together = generate(
        first.serving.base.tokenizer,
        first.serving.model,
        [history for job in batch for history in job.histories],
        horizon=first.key.horizon,
        paths=first.key.paths,
        sampling=first.key.sampling,
        context=first.serving.context,
        wanted=[job.is_wanted for job in batch for _ in job.histories],
    )
    parts, start = [], 0
    for job in batch:
        stop = start + len(job.histories)
        parts.append(Generated(bars=together.bars[start:stop], bars_used=together.bars_used[start:stop]))
        start = stop
    return parts


def warm_up(serving: ServedModel) -> float:
    """A first forecast of a model that is about to serve, so that no request pays for packing its weights.

    Returns the seconds it took per unit of cost.

    Raises:
        ValueError: the forecast is not finite.
    """
    bars = serving.context - WARM_UP_HORIZON  # the longest history: admission then never guesses too low
    noise = np.random.default_rng(0).normal(size=(bars, len(FEATURES)))
    stamps = torch.ones(bars + WARM_UP_HORIZON, len(STAMP_SIZES), dtype=torch.int64)
    rows = bars + WARM_UP_HORIZON - 1
    history = History(
        x=torch.from_numpy(noise.astype(np.float32)),
        stamps=stamps[:bars],
        future_stamps=stamps[bars:],
        events=torch.zeros(rows, serving.model.n_channels) if serving.manifest is not None else None,
        seed=0,
    )
    key = BatchKey(horizon=WARM_UP_HORIZON, paths=8, sampling=Sampling())
    job = ForecastJob(serving=serving, key=key, histories=[history], expires_at=0.0)
    started = time.monotonic()
    (generated,) = run_batch([job])
    seconds = time.monotonic() - started
    if not generated.bars.isfinite().all():
        raise ValueError("the model's first forecast is not finite: its weights are broken")
    return seconds / cost_of([job.cost])
