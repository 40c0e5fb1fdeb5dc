"""One admitted request on its way to the model: what to generate, with which model, and until when."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from kronos_service.inference.serving import Serving
from kronos_service.model.generation import Generated, History, generate
from kronos_service.model.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The settings that requests must share to be generated together."""

    horizon: int
    paths: int
    sampling: Sampling


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A request's histories with the model it was admitted with; `future` gets its own part of the batch."""

    serving: Serving
    ask: Ask
    histories: Sequence[History]
    expires_at: float
    """On the monotonic clock: work that has not begun by then is dropped."""
    future: "Future[Generated]" = field(default_factory=Future)

    @property
    def rows(self) -> int:
        """Sample paths."""
        return len(self.histories) * self.ask.paths

    @property
    def cost(self) -> float:
        """Roughly proportional to the time it takes; see `cost_of`."""
        bars = sum(len(history.x) for history in self.histories)
        return cost_of(bars, series=len(self.histories), ask=self.ask)

    def joins(self, other: "Work") -> bool:
        """Whether both can be one batch: the very same model, and equal settings."""
        return self.serving is other.serving and self.ask == other.ask


def cost_of(bars: int, *, series: int, ask: Ask) -> float:
    """Tokens read, with eight paths' next token as dear as eight: a decoding step streams all weights."""
    return bars + 8.0 * ask.horizon * series * -(-ask.paths // 8)


def context_of(serving: Serving) -> int:
    """Bars of history and forecast that the model can read together: as many as it was trained with."""
    manifest = serving.manifest
    limit = serving.base.context
    return limit if manifest is None else min(limit, manifest.normalization.context)


def run_batch(batch: Sequence[Work]) -> list[Generated]:
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
