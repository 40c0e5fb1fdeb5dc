"""Draw the tokens of paths that continue a history.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.generation.decoder import PathDecoder, ReadHistory, read_history
from kronos_service.model.generation.sampling import Sampling, sample
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
        decoder = PathDecoder(
            self.model, histories, paths=paths, horizon=horizon, upstream_decode=self.upstream_decode
        )
        kept = list(range(len(histories)))
        tokens = torch.zeros(draws.shape, dtype=torch.int64, device=histories[0].hidden.device)
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

    def _next(self, decoder: PathDecoder, uniform: Tensor) -> Tensor:
        """The tokens (R, 2) of the next bar, given draws (R, 2)."""
        logits = decoder.s1_logits()
        s1 = sample(logits.cpu(), uniform[:, 0], self.sampling).to(logits.device)
        s2 = sample(decoder.s2_logits(s1).cpu(), uniform[:, 1], self.sampling).to(logits.device)
        return torch.stack((s1, s2), dim=-1)
