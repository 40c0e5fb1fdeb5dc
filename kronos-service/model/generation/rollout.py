"""Draw the tokens of paths, from a history read once or a window that slides past the context limit.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.generation.decoder import PathDecoder, ReadHistory, read_history
from kronos_service.model.generation.packed_linear import whole_groups
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

    def window(self, bars: slice) -> "TokenHistory":
        events = None if self.events is None else self.events[bars]
        return TokenHistory(tokens=self.tokens[bars], stamps=self.stamps[bars], events=events)


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

    def slide(self, history: TokenHistory, draws: Tensor, context: int) -> Tensor:
        """Draws (P, H, 2) -> tokens (P, H, 2), each read from the last `context` bars before it.

        Every bar's rotary position changes with every step, so no key can be cached: each path reads its
        whole window again.
        """
        bars, horizon = len(history.tokens), draws.shape[1]
        paths = history.tokens.expand(len(draws), -1, -1)
        for step in range(horizon):
            window = slice(max(0, bars + step - context), bars + step)
            # before the first step all paths are the same window: one reading serves them
            groups = [slice(None)] if step == 0 else [slice(i, i + 1) for i in range(len(draws))]
            new = [self._first(history, paths[group], window, draws[group, step]) for group in groups]
            paths = torch.cat((paths, torch.cat(new).unsqueeze(1)), dim=1)
        return paths[:, bars:]

    def _first(self, history: TokenHistory, paths: Tensor, window: slice, uniform: Tensor) -> Tensor:
        """Next tokens (P, 2) of equal paths (P, L, 2), given draws (P, 2)."""
        known = TokenHistory(tokens=paths[0], stamps=history.stamps, events=history.events).window(window)
        padded = torch.cat((uniform, uniform[-1:].expand(whole_groups(len(uniform)) - len(uniform), -1)))
        return self.roll_out([self.read(known)], padded[None, :, None])[0, : len(uniform), 0]

    def _next(self, decoder: PathDecoder, uniform: Tensor) -> Tensor:
        """The tokens (R, 2) of the next bar, given draws (R, 2)."""
        logits = decoder.s1_logits()
        s1 = sample(logits.cpu(), uniform[:, 0], self.sampling).to(logits.device)
        s2 = sample(decoder.s2_logits(s1).cpu(), uniform[:, 1], self.sampling).to(logits.device)
        return torch.stack((s1, s2), dim=-1)
