"""The reference for cached generation: every path reads its whole window anew at each step, as upstream does.

Letters: N paths, T bars of history, H horizon in bars, V vocabulary size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.generation.rollout import TokenHistory
from kronos_service.model.generation.sampling import Sampling, sample
from kronos_service.model.kronos import Kronos


@dataclass(frozen=True, kw_only=True)
class Uncached:
    """What was drawn, and from which logits."""

    tokens: Tensor
    """(N, H, 2)"""
    s1_logits: Tensor
    s2_logits: Tensor
    """(N, H, V)"""


@torch.inference_mode()
def uncached_paths(
    model: Kronos,
    history: TokenHistory,
    draws: Tensor,
    *,
    sampling: Sampling,
    context: int,
    upstream_decode: bool = False,
) -> Uncached:
    """Paths of one history, given draws (N, H, 2)."""
    one_by_one = [
        _uncached_path(model, history, uniform, sampling, context, upstream_decode) for uniform in draws
    ]
    return Uncached(
        tokens=torch.stack([tokens for tokens, _, _ in one_by_one]),
        s1_logits=torch.stack([s1 for _, s1, _ in one_by_one]),
        s2_logits=torch.stack([s2 for _, _, s2 in one_by_one]),
    )


def _uncached_path(
    model: Kronos,
    history: TokenHistory,
    uniform: Tensor,
    sampling: Sampling,
    context: int,
    upstream_decode: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, s1_logits, s2_logits = history.tokens, [], []
    for u in uniform:
        window = slice(max(0, len(tokens) - context), len(tokens))
        events = None if history.events is None else history.events[None, window]
        s1_ids, s2_ids = tokens[None, window].unbind(-1)
        h = model.hidden(s1_ids, s2_ids, history.stamps[None, window], events=events)
        s1_logits.append(model.s1_logits(h[:, -1]))
        s1 = sample(s1_logits[-1], u[:1], sampling)
        last = torch.tensor([[h.shape[1] - 1]])
        s2_logits.append(model.s2_logits(h, s1[None], last, upstream_decode=upstream_decode)[0])
        s2 = sample(s2_logits[-1], u[1:], sampling)
        tokens = torch.cat((tokens, torch.stack((s1, s2), dim=-1)))
    return tokens[len(history.tokens) :], torch.cat(s1_logits), torch.cat(s2_logits)
