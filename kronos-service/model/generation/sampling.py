"""Drawing tokens: settings, noise addressed by (seed, path, step), and a pure function of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kronos_shared.errors import KronosError


class SamplingError(KronosError):
    """Sampling settings out of range, or logits that are not numbers."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from logits; top_k and top_p both apply, in that order."""

    temperature: float = 1.0
    """0 takes the most likely token; above 0 flattens (> 1) or sharpens (< 1) the distribution."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest of the remaining tokens that hold this share of their probability; 1 keeps all."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise SamplingError(f"temperature must be 0 or a positive number, got {self.temperature}")
        if self.top_k < 0:
            raise SamplingError(f"top_k must be 0 (off) or positive, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p must be above 0 and at most 1, got {self.top_p}")


def noise(seeds: Sequence[int], paths: int, steps: int) -> Tensor:
    """Uniform draws in [0, 1), float64 (len(seeds), paths, steps, 2): one for s1 and one for s2.

    A draw depends on its seed, path and step only: a counter-based generator starts each path at its own
    counter, so more paths, more steps or other series change none of the draws already there.
    """
    if any(seed < 0 for seed in seeds):
        raise SamplingError(f"seeds must not be negative, got {min(seeds)}")
    draws = [
        np.random.Generator(np.random.Philox(key=seed, counter=path << 128)).random((steps, 2))
        for seed in seeds
        for path in range(paths)
    ]
    return torch.from_numpy(np.stack(draws)).view(len(seeds), paths, steps, 2)


def sample(logits: Tensor, uniform: Tensor, settings: Sampling) -> Tensor:
    """Token ids (R,) drawn from logits (R, V) by one uniform number in [0, 1) per row."""
    if logits.isnan().any():
        raise SamplingError("logits are not finite: the model or its inputs are broken")
    if settings.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / settings.temperature
    # ranked before the softmax, which rounds nearly equal logits to one probability; stable, so that equal
    # logits keep one order on every machine
    ids = scaled.argsort(dim=-1, descending=True, stable=True)
    p = scaled.softmax(-1).gather(-1, ids)
    if settings.top_k:
        p[:, settings.top_k :] = 0
        p = p / p.sum(-1, keepdim=True)
    if settings.top_p < 1:
        p = p * (p.cumsum(-1) - p < settings.top_p)
    cdf = p.cumsum(-1)
    rank = torch.searchsorted(cdf, uniform.double().unsqueeze(-1) * cdf[:, -1:], right=True)
    return ids.gather(-1, rank).squeeze(-1)
