"""Upstream's way to forecast, which reads the whole window again at each step, and what it is given to do."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kronos_service.model.generation.generate import History
from kronos_service.model.generation.sampling import Sampling, noise, sample
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer


@dataclass(frozen=True)
class Bench:
    """Random weights, and a history to continue."""

    tokenizer: KronosTokenizer
    model: Kronos
    history: History

    @property
    def horizon(self) -> int:
        return len(self.history.future_stamps)


def random_bench(preset: str, *, bars: int, horizon: int, device: str = "cpu") -> Bench:
    """The shapes of a preset in fp32."""
    torch.manual_seed(0)
    shape = PRESETS[preset]
    tokenizer, model = KronosTokenizer(**shape.tokenizer).eval(), Kronos(**shape.predictor).eval()
    history = History(
        x=torch.randn(bars, 6).to(device),
        stamps=torch.randint(7, (bars, 5)).to(device),
        future_stamps=torch.randint(7, (horizon, 5)).to(device),
        events=None,
        seed=0,
    )
    return Bench(tokenizer.to(device), model.to(device), history)


@dataclass
class Recomputing:
    """Upstream's algorithm: at each step every path, in one batch, reads its whole window again."""

    bench: Bench
    paths: int
    seconds: Callable[[Callable[[], object]], float]
    """Times work: its processor time on a CPU."""

    @torch.inference_mode()
    def __post_init__(self) -> None:
        self.stamps = torch.cat((self.bench.history.stamps, self.bench.history.future_stamps))
        self.draws = noise([0], self.paths, self.bench.horizon)[0]
        self.tokens = self.encode()

    def encode(self) -> Tensor:
        s1, s2 = self.bench.tokenizer.encode(self.bench.history.x.expand(self.paths, -1, -1))
        return torch.stack((s1, s2), dim=-1)

    def step(self, tokens: Tensor, step: int) -> Tensor:
        """Tokens (N, T + step, 2) and one more."""
        model, (s1_ids, s2_ids) = self.bench.model, tokens.unbind(-1)
        h = model.hidden(s1_ids, s2_ids, self.stamps[: tokens.shape[1]].expand(self.paths, -1, -1))
        s1 = self.draw(model.s1_logits(h[:, -1]), step, 0)
        last = torch.full((self.paths, 1), tokens.shape[1] - 1, device=tokens.device)
        s2 = self.draw(model.s2_logits(h, s1[:, None], last)[:, 0], step, 1)
        return torch.cat((tokens, torch.stack((s1, s2), dim=-1)[:, None]), dim=1)

    def draw(self, logits: Tensor, step: int, half: int) -> Tensor:
        return sample(logits.cpu(), self.draws[:, step, half], Sampling()).to(logits.device)

    def zeros(self, paths: int, bars: int) -> Tensor:
        return torch.zeros(paths, bars, 2, dtype=torch.int64, device=self.stamps.device)

    @torch.inference_mode()
    def whole(self) -> None:
        tokens = self.encode()
        for step in range(self.bench.horizon):
            tokens = self.step(tokens, step)
        self.bench.tokenizer.decode(*tokens.unbind(-1))

    @torch.inference_mode()
    def sampled(self) -> float:
        """Seconds of the whole, from a few of its steps; they grow linearly with the window."""
        steps = [
            self.seconds(partial(self.step, self.zeros(self.paths, len(self.bench.history.x) + step), step))
            for step in (0, self.bench.horizon - 1)
        ]
        ends = self.zeros(self.paths, len(self.stamps)).unbind(-1)
        return (
            self.seconds(self.encode)
            + self.bench.horizon * sum(steps) / len(steps)
            + self.seconds(lambda: self.bench.tokenizer.decode(*ends))
        )
