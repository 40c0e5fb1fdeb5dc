"""Draw the tokens of paths that continue a history.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.generation.decoder import PathDecoder, ReadHistory, read_history
from kronos_service.model.generation.sampling import Sampling, sample
from kronos_service.model.generation.static_decoder import StaticDecoder, static_decoder
from kronos_service.model.kronos import Kronos

Wanted = Callable[[], bool]
"""Whether anybody still waits for a history's paths."""


@dataclass(frozen=True, kw_only=True)
class TokenHistory:
    """One history in tokens, with stamps and events up to the last forecast bar."""

    tokens: Tensor
    """(T, 2)"""
    stamps: Tensor
    """(T + H - 1, 5)"""
    events: Tensor | None
    """(T + H - 1, C), C event channels"""


@dataclass(frozen=True, kw_only=True)
class PathSampler:
    """A model and how its next tokens are drawn."""

    model: Kronos
    sampling: Sampling
    upstream_decode: bool = False
    static: bool = False
    """Decode with shapes that never change, which a CUDA device replays as graphs, and draw on the device."""

    def read(self, history: TokenHistory) -> ReadHistory:
        return read_history(
            self.model, history.tokens, history.stamps, history.events, upstream_decode=self.upstream_decode
        )

    def roll_out(
        self, histories: Sequence[ReadHistory], draws: Tensor, wanted: Sequence[Wanted] | None = None
    ) -> Tensor:
        """Draws (B, P, H, 2) -> tokens (B, P, H, 2); P is a whole number of groups.

        Each history's `wanted` is asked before every bar; where it says no, its other tokens stay 0.
        """
        paths, horizon = draws.shape[1:3]
        with self._decoder(histories, paths, horizon) as decoder:
            return self._draw_all(decoder, histories, draws, wanted)

    @contextmanager
    def _decoder(
        self, histories: Sequence[ReadHistory], paths: int, horizon: int
    ) -> Iterator[PathDecoder | StaticDecoder]:
        upstream = self.upstream_decode
        if not self.static:
            yield PathDecoder(self.model, histories, paths=paths, horizon=horizon, upstream_decode=upstream)
            return
        with static_decoder(
            self.model, histories, paths=paths, horizon=horizon, upstream_decode=upstream
        ) as decoder:
            yield decoder

    def _draw_all(
        self,
        decoder: PathDecoder | StaticDecoder,
        histories: Sequence[ReadHistory],
        draws: Tensor,
        wanted: Sequence[Wanted] | None,
    ) -> Tensor:
        paths, horizon = draws.shape[1:3]
        device = histories[0].hidden.device
        if self.static:
            draws = draws.to(device)
        kept = list(range(len(histories)))
        tokens = torch.zeros(draws.shape, dtype=torch.int64, device=device)
        for bar in range(horizon):
            left = [series for series in kept if wanted is None or wanted[series]()]
            if not left:
                break
            if len(left) < len(kept):
                decoder.keep([kept.index(series) for series in left])
                kept = left
            if bar:
                decoder.advance(*tokens[kept, :, bar - 1].flatten(0, 1).unbind(-1))
            drawn = self._next(decoder, draws[kept, :, bar].flatten(0, 1))
            tokens[kept, :, bar] = drawn.view(len(kept), paths, 2)
        return tokens

    def _next(self, decoder: PathDecoder | StaticDecoder, uniform: Tensor) -> Tensor:
        """The tokens (R, 2) of the next bar, given draws (R, 2)."""
        s1 = self._draw(decoder.s1_logits(), uniform[:, 0])
        s2 = self._draw(decoder.s2_logits(s1), uniform[:, 1])
        return torch.stack((s1, s2), dim=-1)

    def _draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens (R,) on the device of the logits; drawn where the draws are."""
        return sample(logits.to(uniform.device), uniform, self.sampling).to(logits.device)
