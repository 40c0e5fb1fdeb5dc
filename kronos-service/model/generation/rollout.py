"""Draw the tokens of paths that continue a history.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.generation.decoder import PathDecoder, ReadHistory, read_history
from kronos_service.model.generation.sampling import Sampling, sample
from kronos_service.model.kronos import Kronos


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

    def roll_out(self, histories: Sequence[ReadHistory], draws: Tensor) -> Tensor:
        """Draws (B, P, H, 2) -> tokens (B, P, H, 2); P is a whole number of groups."""
        paths, horizon = draws.shape[1:3]
        decoder = PathDecoder(
            self.model, histories, paths=paths, horizon=horizon, upstream_decode=self.upstream_decode
        )
        tokens: list[Tensor] = []
        for uniform in draws.flatten(0, 1).unbind(1):
            if tokens:
                decoder.advance(*tokens[-1].unbind(-1))
            tokens.append(self._next(decoder, uniform))
        return torch.stack(tokens, dim=1).view(draws.shape)

    def _next(self, decoder: PathDecoder, uniform: Tensor) -> Tensor:
        """The tokens (R, 2) of the next bar, given draws (R, 2)."""
        logits = decoder.s1_logits()
        s1 = sample(logits.cpu(), uniform[:, 0], self.sampling).to(logits.device)
        s2 = sample(decoder.s2_logits(s1).cpu(), uniform[:, 1], self.sampling).to(logits.device)
        return torch.stack((s1, s2), dim=-1)
