"""Forecasts by plain recomputation: every step reads the whole window again.

All matrix products have shapes that depend on the window's length only, never on how many series or paths
were asked for. A path is therefore the same to the last bit alone or in any batch.
Letters: B series, N paths, T bars of history, H horizon in bars, R rows, L tokens per row, Q draws per row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
class History:
    """What is known about one series, and the seed of its paths."""

    x: Tensor
    """(T, 6) bars, normalised and clipped."""
    stamps: Tensor
    """(T, 5) int64 calendar fields of the bars."""
    future_stamps: Tensor
    """(H, 5) int64 calendar fields of the bars to forecast."""
    events: Tensor | None
    """(T + H - 1, 20), row i about bar i + 1; None is the plain base."""
    seed: int
    """Path k of a seed is the same whatever else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Sample paths for each history."""

    bars: Tensor
    """(B, N, H, 6) normalised. Each column has its own scale, so candles can be put in order
    (`repair_candles`) only once they are denormalised."""
    bars_used: tuple[int, ...]
    """Per series, the bars of history that the model was shown; fewer than T if it was cut."""


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
    histories: Sequence[History],
    *,
    horizon: int,
    paths: int,
    sampling: Sampling,
    context: int,
    upstream_decode: bool = False,
    exact_window: bool = False,
) -> Generated:
    """Sample N paths of the next H bars of each history; histories may differ in length.

    Args:
        context: the model's limit in bars; history is cut to its last `context - horizon` bars.
        exact_window: keep all history instead and let the window slide, as upstream does.
        upstream_decode: score s2 as the released code does; for parity and comparison.

    Raises:
        GenerationError: shapes that do not fit, values not finite, or a horizon that leaves no history.
    """
    _check_models(tokenizer, model)
    _check_request(horizon, paths, context, histories)
    for i, history in enumerate(histories):
        _check_history(f"histories[{i}]", history, horizon)
    kept = [one if exact_window else _last_bars(one, context - horizon) for one in histories]
    decoder = Decoder(model=model, sampling=sampling, upstream_decode=upstream_decode, context=context)
    bars = torch.stack([_forecast(tokenizer, decoder, one, horizon, paths) for one in kept])
    return Generated(bars=bars, bars_used=tuple(len(one.x) for one in kept))


def _last_bars(history: History, limit: int) -> History:
    """A history whose forecast fits the model's context."""
    cut = max(0, len(history.x) - limit)
    return replace(
        history,
        x=history.x[cut:],
        stamps=history.stamps[cut:],
        events=None if history.events is None else history.events[cut:],
    )


def _forecast(tokenizer: KronosTokenizer, decoder: Decoder, one: History, horizon: int, paths: int) -> Tensor:
    """(N, H, 6) for one series."""
    # the first step draws whole groups of paths, so that its shapes do not depend on N either
    draws = noise([one.seed], -(-paths // PATHS_PER_PASS) * PATHS_PER_PASS, horizon)
    tokens = torch.stack(tokenizer.encode(one.x.unsqueeze(0)), dim=-1)
    stamps = torch.cat((one.stamps, one.future_stamps)).unsqueeze(0)
    events = None if one.events is None else one.events.unsqueeze(0)
    tokens = roll_out(decoder, tokens, stamps, events, draws, paths)
    s1, s2 = tokens[:, -decoder.context :].unbind(-1)
    bars = _in_passes(lambda rows: tokenizer.decode(s1[rows], s2[rows]), *s1.shape)
    return bars[:, -horizon:]


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


def _check_request(horizon: int, paths: int, context: int, histories: Sequence[History]) -> None:
    if horizon < 1 or paths < 1 or not histories:
        given = f"{horizon}, {paths}, {len(histories)}"
        raise GenerationError(f"horizon, paths and number of histories must be at least 1, got {given}")
    if horizon >= context:
        raise GenerationError(f"horizon must be below the context of {context} bars, got {horizon}")


def _check_history(name: str, history: History, horizon: int) -> None:
    """Raise unless the parts of a history fit together and are numbers."""
    bars = len(history.x)
    wanted = {"x": (max(bars, 1), 6), "stamps": (bars, 5), "future_stamps": (horizon, 5)}
    if history.events is not None:
        wanted["events"] = (bars + horizon - 1, 20)
    problems = [
        f"{name}.{part} must be {shape}, got {tuple(getattr(history, part).shape)}"
        for part, shape in wanted.items()
        if tuple(getattr(history, part).shape) != shape
    ]
    finite = history.x.isfinite().all() and (history.events is None or history.events.isfinite().all())
    if not finite:
        problems.append(f"{name}: bars and events must be finite")
    if problems:
        raise GenerationError("; ".join(problems))


def _check_models(tokenizer: KronosTokenizer, model: Kronos) -> None:
    if tokenizer.training or model.training:
        raise GenerationError(
            "tokenizer and model must be in eval(): dropout would make forecasts unrepeatable"
        )
