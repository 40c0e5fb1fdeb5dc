"""Forecasts: sample paths of the next bars of many histories.

A history is read once, and all its paths go on from what was kept. Paths come in whole groups per history and
every product has a shape that says nothing about the rest of the batch, so a path is the same to the last bit
alone or in company (fp32 on a CPU).
Letters: B series, N paths, P paths with those that fill a group, T bars of history, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kronos_service.model.generation.candle_decoder import path_candles
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise
from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.errors import KronosError

ROWS_PER_PASS = 64
"""Paths that are drawn together; more gain little, and each needs memory for the bars it has drawn."""


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
    drawing = PathSampler(model=model, sampling=sampling, upstream_decode=upstream_decode)
    padded = whole_groups(paths)
    series_per_pass = 1 if exact_window else max(1, ROWS_PER_PASS // padded)
    bars = [
        _forecast(tokenizer, drawing, kept[start : start + series_per_pass], horizon, padded, context)
        for start in range(0, len(kept), series_per_pass)
    ]
    return Generated(bars=torch.cat(bars)[:, :paths], bars_used=tuple(len(one.x) for one in kept))


def _last_bars(history: History, limit: int) -> History:
    """A history whose forecast fits the model's context."""
    cut = max(0, len(history.x) - limit)
    return replace(
        history,
        x=history.x[cut:],
        stamps=history.stamps[cut:],
        events=None if history.events is None else history.events[cut:],
    )


def _forecast(
    tokenizer: KronosTokenizer,
    drawing: PathSampler,
    histories: Sequence[History],
    horizon: int,
    paths: int,
    context: int,
) -> Tensor:
    """(B, P, H, 6) bars."""
    known = [_in_tokens(tokenizer, one) for one in histories]
    draws = torch.split(noise([one.seed for one in histories], paths, horizon), ROWS_PER_PASS, dim=1)
    if len(known[0].tokens) + horizon > context:  # only ever a single history, whose window must slide
        tokens = [drawing.slide(known[0], group[0], context)[None] for group in draws]
    else:
        read = [drawing.read(one) for one in known]
        tokens = [drawing.roll_out(read, group) for group in draws]
    shown = [one.tokens[-(context - horizon) :] for one in known]
    return torch.cat([path_candles(tokenizer, shown, group) for group in tokens], dim=1)


def _in_tokens(tokenizer: KronosTokenizer, history: History) -> TokenHistory:
    tokens = torch.stack(tokenizer.encode(history.x.unsqueeze(0)), dim=-1)[0]
    stamps = torch.cat((history.stamps, history.future_stamps[:-1]))
    return TokenHistory(tokens=tokens, stamps=stamps, events=history.events)


def repair_candles(bars: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Denormalised bars (..., 6) with high raised and low lowered until they contain open and close."""
    prices = bars[..., :4]
    repaired = bars.copy()
    repaired[..., 1] = prices.max(axis=-1)
    repaired[..., 2] = prices.min(axis=-1)
    return repaired


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
