"""One admitted request on its way to the model: what to generate, with which model, and until when."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.generation.generate import Generated, History, generate
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.sampling import Sampling

STEP: Final = 32.0
"""A decoding step, however many rows it has, in bars of history read."""
ROW: Final = 1.75
"""A row of a decoding step, likewise."""


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """The settings that requests must share to be generated together."""

    horizon: int
    paths: int
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a request asks of the model: the time that it will take is estimated from it.

    Costs are in bars of history read: `tests/benchmarks/test_benchmark_costs.py` holds them against time.
    """

    serving: ServedModel
    ask: BatchKey
    bars: int
    series: int

    @property
    def rows(self) -> int:
        """Sample paths, with those that fill up the groups in which they are drawn."""
        return self.series * whole_groups(self.ask.paths)

    @property
    def cost(self) -> float:
        """What it adds to a batch: its bars read, and its rows in every step."""
        return self.bars + ROW * self.ask.horizon * self.rows

    @property
    def opening(self) -> float:
        """What a batch of its kind costs besides, however many are in it: each step reads all weights."""
        return STEP * self.ask.horizon

    def joins(self, other: "Cost") -> bool:
        """Whether both can be one batch: the very same model, and equal settings."""
        return self.serving is other.serving and self.ask == other.ask


class BatchCost:
    """What demands cost, counted one by one, where those of a kind run together."""

    def __init__(self) -> None:
        self.total = 0.0
        self._kinds: set[tuple[int, BatchKey]] = set()

    def add(self, demand: Cost) -> None:
        """Count one more."""
        kind = (id(demand.serving), demand.ask)
        self.total += demand.cost if kind in self._kinds else demand.opening + demand.cost
        self._kinds.add(kind)


def cost_of(demands: Iterable[Cost]) -> float:
    """What demands cost, where those of a kind run together."""
    costs = BatchCost()
    for demand in demands:
        costs.add(demand)
    return costs.total


@dataclass(frozen=True, kw_only=True, eq=False)
class ForecastJob:
    """A request's histories with the model it was admitted with; `future` gets its own part of the batch."""

    serving: ServedModel
    ask: BatchKey
    histories: Sequence[History]
    expires_at: float
    """On the monotonic clock: work that has not begun by then is dropped."""
    future: "Future[Generated]" = field(default_factory=Future)

    @property
    def demand(self) -> Cost:
        """What it asks of the model."""
        bars = sum(len(history.x) for history in self.histories)
        return Cost(serving=self.serving, ask=self.ask, bars=bars, series=len(self.histories))


def context_of(serving: ServedModel) -> int:
    """Bars of history and forecast that the model can read together: as many as it was trained with."""
    manifest = serving.manifest
    limit = serving.base.context
    return limit if manifest is None else min(limit, manifest.normalization.context)


def run_batch(batch: Sequence[ForecastJob]) -> list[Generated]:
    """Generate works that join each other, in one call; each one's part."""
    first = batch[0]
    together = generate(
        first.serving.base.tokenizer,
        first.serving.model,
        [history for work in batch for history in work.histories],
        horizon=first.ask.horizon,
        paths=first.ask.paths,
        sampling=first.ask.sampling,
        context=context_of(first.serving),
    )
    parts, start = [], 0
    for work in batch:
        stop = start + len(work.histories)
        parts.append(Generated(bars=together.bars[start:stop], bars_used=together.bars_used[start:stop]))
        start = stop
    return parts
