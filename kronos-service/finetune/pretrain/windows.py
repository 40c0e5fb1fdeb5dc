"""What pretraining looks at: random windows of bars, each normalised by its own first part."""

from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from kronos_service.data.snapshot.read import Snapshot
from kronos_shared.errors import KronosError
from kronos_shared.normalization import Floats, feature_matrix, normalize, statistics, time_features

VALIDATION_WINDOWS: Final = 256


class WindowError(KronosError):
    """A snapshot holds no window to pretrain on."""


class Batch(NamedTuple):
    """B windows of T bars; no statistic has seen the rows from `cut` on."""

    x: Tensor
    """(B, T, 6) float32, normalised."""
    stamps: Tensor
    """(B, T, 5) int64."""
    cut: int

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(self.x.to(device), self.stamps.to(device), self.cut)


class Series(NamedTuple):
    """The bars of one symbol."""

    x: Floats
    """(N, 6) in market units."""
    stamps: npt.NDArray[np.int64]
    """(N, 5)"""
    rows: int
    """How many of the first rows are trained on; the rest is held out."""


def training_series(snapshot: Snapshot, *, until: date, heldout: float, context: int) -> list[Series]:
    """Tradable and leader bars before `until`, of the symbols that fill a window before the held-out dates.

    Args:
        heldout: share of the dates, the last ones, that is not trained on.
        context: bars per window.

    Raises:
        WindowError: no symbol has that many bars.
    """
    bars = snapshot.bars[snapshot.bars.ts < pd.Timestamp(until, tz="UTC")]
    dates = np.sort(bars.ts.unique())
    first_held_out = dates[int(len(dates) * (1 - heldout))] if len(dates) else None
    wanted = snapshot.symbols.symbol[
        snapshot.symbols.tradable | snapshot.symbols.symbol.isin(snapshot.taxonomy.leaders)
    ]
    data = []
    for _, table in bars[bars.symbol.isin(wanted)].groupby("symbol"):
        rows = int((table.ts < first_held_out).sum())
        if rows >= context:
            data.append(Series(feature_matrix(table), time_features(pd.DatetimeIndex(table.ts)), rows))
    if not data:
        raise WindowError(
            f"no symbol of {snapshot.name} has {context} bars before {until} and its held-out dates: "
            "lower --context or --heldout, or take a longer snapshot"
        )
    return data


def draw_batch(data: Sequence[Series], rng: np.random.Generator, *, size: int, context: int) -> Batch:
    """`size` random windows, all windows of the training rows being equally likely, with a random cut.

    The cut lies between 1/2 and 7/8 of the window, as where a forecast may begin.
    """
    ends = np.cumsum([s.rows - context + 1 for s in data])
    picks = rng.integers(ends[-1], size=size)
    owners = np.searchsorted(ends, picks, side="right")
    cut = int(rng.integers(context // 2, context * 7 // 8, endpoint=True))
    places = [(data[k], int(ends[k] - 1 - pick)) for k, pick in zip(owners, picks, strict=True)]
    return _batch(places, context, cut)


def validation_batch(data: Sequence[Series], *, context: int) -> Batch:
    """Fixed windows whose last quarter is held out: at most 256, spread evenly over symbols and dates."""
    quarter = context // 4
    places = [(s, end - context) for s in data for end in range(len(s.x), s.rows + quarter - 1, -quarter)]
    if not places:
        raise WindowError(f"no symbol has {quarter} bars in the held-out dates: raise --heldout")
    chosen = np.linspace(0, len(places) - 1, min(len(places), VALIDATION_WINDOWS)).astype(int)
    return _batch([places[k] for k in chosen], context, context - quarter)


def _batch(places: Sequence[tuple[Series, int]], context: int, cut: int) -> Batch:
    windows = [s.x[first : first + context] for s, first in places]
    x = np.stack([normalize(window, *statistics(window[:cut])) for window in windows])
    stamps = np.stack([s.stamps[first : first + context] for s, first in places])
    return Batch(torch.from_numpy(x), torch.from_numpy(stamps), cut)
