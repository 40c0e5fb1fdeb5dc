"""Sample paths of the next bars of many histories.

Each history is read once, and all its paths continue from its cached keys and values. Every matrix product
has a shape that does not depend on the rest of the batch, so a path is the same to the last bit alone or
beside others (fp32 on a CPU): the service batches requests without changing an answer.
Letters: B series, N paths, P paths padded to whole groups, T bars of history, H horizon in bars, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kronos_service.model.generation.candle_decoder import path_candles, path_candles_at_once
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.rollout import PathSampler, TokenHistory, Wanted
from kronos_service.model.generation.sampling import Sampling, noise
from kronos_service.model.kronos import STAMP_SIZES, Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.columns import FEATURES, HIGH, LOW, PRICES
from kronos_shared.errors import KronosError

ROWS_PER_PASS = 64
"""Paths that are drawn together: more would gain little, and each holds keys and values of its own bars."""


class GenerationError(KronosError):
    """Inputs of a forecast that do not fit together."""


def _always() -> bool:
    return True


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
    """(T + H - 1, C), row i about bar i + 1; None is the plain base."""
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
    static: bool | None = None,
    wanted: Sequence[Wanted] | None = None,
) -> Generated:
    """Sample N paths of the next H bars of each history; histories may differ in length.

    Args:
        context: the model's limit in bars; history is cut to its last `context - horizon` bars.
        upstream_decode: score s2 without rotary angles, as the released code does in effect; for parity.
        static: decode with shapes that never change, as CUDA graphs where the device has them; left out, a
            model on a CUDA device does.
        wanted: of each history, asked between decoding steps; once one says no, its paths are dropped and
            its bars mean nothing.

    Raises:
        GenerationError: shapes that do not fit, values not finite, or a horizon that leaves no history.
    """
    _check_models(tokenizer, model)
    _check_request(horizon, paths, context, histories)
    for i, history in enumerate(histories):
        _check_history(f"histories[{i}]", history, horizon, channels=model.n_channels)
    weights = next(model.parameters())
    kept = [_last_bars(one, context - horizon, weights.device) for one in histories]
    if static is None:
        static = weights.device.type == "cuda"
    sampler = PathSampler(model=model, sampling=sampling, upstream_decode=upstream_decode, static=static)
    padded = whole_groups(paths)
    series_per_pass = _series_per_pass(padded)
    bars = []
    for start in range(0, len(kept), series_per_pass):
        part = slice(start, start + series_per_pass)
        asked = (wanted or [_always] * len(kept))[part]
        bars.append(_forecast(tokenizer, sampler, kept[part], horizon, padded, asked))
    return Generated(bars=torch.cat(bars)[:, :paths], bars_used=tuple(len(one.x) for one in kept))


def passes(series: int, paths: int) -> int:
    """How often `generate` runs all its decoding steps: at most ROWS_PER_PASS paths take each together."""
    padded = whole_groups(paths)
    return math.ceil(series / _series_per_pass(padded)) * math.ceil(padded / ROWS_PER_PASS)


def _series_per_pass(padded: int) -> int:
    return max(1, ROWS_PER_PASS // padded)


def _last_bars(history: History, longest: int, device: torch.device) -> History:
    """The history's last bars, on the model's device.

    A window that slid past the limit would move every bar's position at every step: nothing could be cached.
    """
    cut = max(0, len(history.x) - longest)
    return replace(
        history,
        x=history.x[cut:].to(device),
        stamps=history.stamps[cut:].to(device),
        future_stamps=history.future_stamps.to(device),
        events=None if history.events is None else history.events[cut:].to(device),
    )


def _forecast(
    tokenizer: KronosTokenizer,
    sampler: PathSampler,
    histories: Sequence[History],
    horizon: int,
    paths: int,
    wanted: Sequence[Wanted],
) -> Tensor:
    """(B, P, H, 6) bars; zeros where they are not wanted."""
    known = [_in_tokens(tokenizer, one) for one in histories]
    draws = torch.split(noise([one.seed for one in histories], paths, horizon), ROWS_PER_PASS, dim=1)
    read = [sampler.read(one) for one in known]
    bars = torch.zeros(len(histories), paths, horizon, len(FEATURES), device=known[0].tokens.device)
    start = 0
    for group in draws:
        stop = start + group.shape[1]
        drawn = sampler.roll_out(read, group, wanted)
        left = [series for series, is_wanted in enumerate(wanted) if is_wanted()]
        if not left:
            break
        candles = path_candles_at_once if sampler.static else path_candles
        bars[left, start:stop] = candles(tokenizer, [known[i].tokens for i in left], drawn[left]).to(bars)
        start = stop
    return bars


def _in_tokens(tokenizer: KronosTokenizer, history: History) -> TokenHistory:
    tokens = torch.stack(tokenizer.encode(history.x.unsqueeze(0)), dim=-1)[0]
    stamps = torch.cat((history.stamps, history.future_stamps[:-1]))
    return TokenHistory(tokens=tokens, stamps=stamps, events=history.events)


def repair_candles(bars: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Denormalised bars (..., 6) with high raised and low lowered until they contain open and close."""
    prices = bars[..., PRICES]
    repaired = bars.copy()
    repaired[..., HIGH] = prices.max(axis=-1)
    repaired[..., LOW] = prices.min(axis=-1)
    return repaired


def _check_request(horizon: int, paths: int, context: int, histories: Sequence[History]) -> None:
    if horizon < 1 or paths < 1 or not histories:
        given = f"{horizon}, {paths}, {len(histories)}"
        raise GenerationError(f"horizon, paths and number of histories must be at least 1, got {given}")
    if horizon >= context:
        raise GenerationError(f"horizon must be below the context of {context} bars, got {horizon}")


def _check_history(name: str, history: History, horizon: int, *, channels: int) -> None:
    """Raise GenerationError unless the parts of a history fit together and are finite."""
    bars = len(history.x)
    fields = len(STAMP_SIZES)
    wanted = {
        "x": (max(bars, 1), len(FEATURES)),
        "stamps": (bars, fields),
        "future_stamps": (horizon, fields),
    }
    if history.events is not None:
        wanted["events"] = (bars + horizon - 1, channels)
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
