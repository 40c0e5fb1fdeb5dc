"""Forecasts by plain recomputation: every step reads the whole window again.

All matrix products have shapes that depend on the window's length only, never on how many series or paths
were asked for. A path is therefore the same to the last bit alone or in any batch.
Letters: B series, N paths, T bars of history, H horizon in bars, R rows, L tokens per row, Q draws per row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kronos_service.model.kronos import Kronos
from kronos_service.model.sampling import Sampling, noise, sample
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.errors import KronosError

TOKENS_PER_PASS = 512
"""Tokens that make one pass efficient on a CPU; short windows share a pass."""
PATHS_PER_PASS = 8
"""Paths of one series that are drawn together at the first step, where they share its history."""


class GenerationError(KronosError):
    """A forecast was asked for with inputs that do not fit together."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A model and the settings by which its next tokens are drawn."""

    model: Kronos
    sampling: Sampling
    context: int
    """Tokens the model sees at most, the latest ones."""
    upstream_decode: bool = False

    def next_tokens(self, tokens: Tensor, stamps: Tensor, events: Tensor | None, uniform: Tensor) -> Tensor:
        """Tokens (R, L, 2) and draws (R, Q, 2) -> next tokens (R, Q, 2); the rest may reach past L."""
        window = slice(max(0, tokens.shape[1] - self.context), tokens.shape[1])

        def one_pass(rows: Tensor) -> Tensor:
            s1, s2 = tokens[rows, window].unbind(-1)
            known = None if events is None else events[rows, window]
            h = self.model.hidden(s1, s2, stamps[rows, window], events=known)
            groups = torch.split(uniform[rows], PATHS_PER_PASS, dim=1)
            return torch.cat([self._draw(h, group) for group in groups], dim=1)

        return _in_passes(one_pass, len(tokens), window.stop - window.start)

    def _draw(self, h: Tensor, uniform: Tensor) -> Tensor:
        """Hidden states (R, L, D) and draws (R, Q, 2) -> tokens (R, Q, 2) after the last position."""
        rows, queries = uniform.shape[:2]
        s1_logits = self.model.s1_logits(h[:, -1]).cpu().repeat_interleave(queries, 0)
        s1 = sample(s1_logits, uniform[..., 0].flatten(), self.sampling).view(rows, queries).to(h.device)
        last = torch.full_like(s1, h.shape[1] - 1)
        s2_logits = self.model.s2_logits(h, s1, last, upstream_decode=self.upstream_decode).cpu()
        s2 = sample(s2_logits.flatten(0, 1), uniform[..., 1].flatten(), self.sampling).view(rows, queries)
        return torch.stack((s1, s2.to(h.device)), dim=-1)


@torch.inference_mode()
def generate(
    tokenizer: KronosTokenizer,
    model: Kronos,
    x: Tensor,
    stamps: Tensor,
    future_stamps: Tensor,
    *,
    events: Tensor | None = None,
    horizon: int,
    paths: int,
    sampling: Sampling,
    seeds: Sequence[int],
    context: int,
    upstream_decode: bool = False,
    exact_window: bool = False,
) -> Tensor:
    """Sample paths of the next H bars.

    Args:
        x: (B, T, 6) normalised and clipped history.
        stamps, future_stamps: (B, T, 5) and (B, H, 5) int64 calendar fields of history and forecast.
        events: (B, T + H - 1, 20), row i about bar i + 1; None is the plain base.
        seeds: one per series; path k of a seed is the same whatever else is asked for.
        context: the model's limit in bars; history is cut to its last `context - horizon` bars.
        exact_window: keep all history instead and let the window slide, as upstream does.
        upstream_decode: score s2 as the released code does; for parity and comparison.

    Returns:
        (B, N, H, 6) normalised bars. Each column has its own scale, so candles can be put in order
        (`repair_candles`) only once they are denormalised.

    Raises:
        GenerationError: shapes that do not fit, values not finite, or a horizon that leaves no history.
    """
    _check_shapes(x, stamps, future_stamps, events, horizon, paths, seeds)
    _check_models(tokenizer, model)
    if horizon >= context:
        raise GenerationError(f"horizon must be below the context of {context} bars, got {horizon}")
    if not exact_window:
        cut = max(0, x.shape[1] - (context - horizon))
        x, stamps = x[:, cut:], stamps[:, cut:]
        events = None if events is None else events[:, cut:]
    decoder = Decoder(model=model, sampling=sampling, upstream_decode=upstream_decode, context=context)
    # the first step draws whole groups of paths, so that its shapes do not depend on N either
    draws = noise(seeds, -(-paths // PATHS_PER_PASS) * PATHS_PER_PASS, horizon)
    tokens = _in_passes(lambda rows: torch.stack(tokenizer.encode(x[rows]), dim=-1), *x.shape[:2])
    tokens = roll_out(decoder, tokens, torch.cat((stamps, future_stamps), dim=1), events, draws, paths)
    s1, s2 = tokens[:, -context:].unbind(-1)
    bars = _in_passes(lambda rows: tokenizer.decode(s1[rows], s2[rows]), *s1.shape)
    return bars[:, -horizon:].reshape(len(seeds), paths, horizon, -1)


def roll_out(
    decoder: Decoder, tokens: Tensor, stamps: Tensor, events: Tensor | None, draws: Tensor, paths: int
) -> Tensor:
    """Extend history tokens (B, T, 2) by H drawn ones per path: (B N, T + H, 2); draws (B, >= N, H, 2)."""
    new = decoder.next_tokens(tokens, stamps, events, draws[:, :, 0])[:, :paths]
    tokens = torch.cat((tokens.repeat_interleave(paths, 0), new.flatten(0, 1).unsqueeze(1)), dim=1)
    stamps = stamps.repeat_interleave(paths, 0)
    events = None if events is None else events.repeat_interleave(paths, 0)
    draws = draws[:, :paths].flatten(0, 1)
    for step in range(1, draws.shape[1]):
        new = decoder.next_tokens(tokens, stamps, events, draws[:, step : step + 1])
        tokens = torch.cat((tokens, new), dim=1)
    return tokens


def repair_candles(bars: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Denormalised bars (..., 6) with high raised and low lowered until they contain open and close."""
    prices = bars[..., :4]
    repaired = bars.copy()
    repaired[..., 1] = prices.max(axis=-1)
    repaired[..., 2] = prices.min(axis=-1)
    return repaired


def _in_passes(one_pass: Callable[[Tensor], Tensor], n_rows: int, length: int) -> Tensor:
    """Call `one_pass` on row indices, always the same number of them at a time, and join the results."""
    size = max(1, TOKENS_PER_PASS // length)
    results = []
    for start in range(0, n_rows, size):
        # the last pass is filled up with copies of the last row, whose results are dropped
        rows = torch.arange(start, start + size).clamp(max=n_rows - 1)
        results.append(one_pass(rows)[: n_rows - start])
    return torch.cat(results)


def _check_shapes(
    x: Tensor,
    stamps: Tensor,
    future_stamps: Tensor,
    events: Tensor | None,
    horizon: int,
    paths: int,
    seeds: Sequence[int],
) -> None:
    if horizon < 1 or paths < 1 or x.shape[1] < 1:
        raise GenerationError(
            f"horizon, paths and history must be at least 1, got {horizon}, {paths}, {x.shape[1]}"
        )
    n_series, history = x.shape[:2]
    wanted = {
        "stamps": (stamps, (n_series, history, 5)),
        "future_stamps": (future_stamps, (n_series, horizon, 5)),
    }
    if events is not None:
        wanted["events"] = (events, (n_series, history + horizon - 1, 20))
    problems = [
        f"{name} must be {shape}, got {tuple(value.shape)}"
        for name, (value, shape) in wanted.items()
        if tuple(value.shape) != shape
    ]
    if len(seeds) != n_series:
        problems.append(f"expected one seed for each of {n_series} series, got {len(seeds)}")
    if not x.isfinite().all() or (events is not None and not events.isfinite().all()):
        problems.append("history and events must be finite")
    if problems:
        raise GenerationError("; ".join(problems))


def _check_models(tokenizer: KronosTokenizer, model: Kronos) -> None:
    if tokenizer.training or model.training:
        raise GenerationError(
            "tokenizer and model must be in eval(): dropout would make forecasts unrepeatable"
        )
