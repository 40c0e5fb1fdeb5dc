"""Width factors of forecasts: which one a bar takes, and how sample paths are stretched by them.

How the factors are found is told in `finetune.event_conditioned.evaluation.recalibration`.
Letters: N sample paths, H horizon in bars, C event channels.
"""

import numpy as np
import numpy.typing as npt

from kronos_service.events.encoder import Events
from kronos_service.events.taxonomy import IMPACT_WEIGHTS, Taxonomy
from kronos_shared.adapter_manifest import DAY_KINDS, RecalibrationRecord
from kronos_shared.columns import CLOSE, PRICES
from kronos_shared.normalization import Floats

Kinds = npt.NDArray[np.int64]
"""Numbers of `DAY_KINDS`."""


def day_kinds(rows: Events, taxonomy: Taxonomy) -> Kinds:
    """The kind (H,) of each forecast bar, from its rows (H, C) of the event tensor, known at the origin."""
    high = rows[:, : len(taxonomy.families)] == np.float32(IMPACT_WEIGHTS["high"])
    tier1, event = high[:, taxonomy.tier1_channels].any(axis=1), high.any(axis=1)
    names = np.where(tier1, "tier1", np.where(event, "other_event", "quiet"))
    kinds: Kinds = np.array([DAY_KINDS.index(name) for name in names.tolist()], dtype=np.int64)
    return kinds


def step_factors(table: RecalibrationRecord, rows: Events, taxonomy: Taxonomy) -> Floats:
    """The factor (H,) of each forecast bar, from its rows (H, C) of the event tensor.

    A step past the table's last one takes the last one's.
    """
    factors = np.array([table.factors[kind] for kind in DAY_KINDS], dtype=np.float64)
    steps = np.minimum(np.arange(len(rows)), factors.shape[1] - 1)
    chosen: Floats = factors[day_kinds(rows, taxonomy), steps]
    return chosen


def stretch(prices: Floats, factors: Floats, *, lowest: float) -> Floats:
    """Sample paths (N, H, 6) whose log closes lie `factors` (H,) times as far from their median.

    Each candle moves as a whole, with its close: its order and its range stay, because the factors were found
    from closes (docs/decisions.md). So do the median of the close (of its log, where N is even), the rank of
    each path, volume and amount, and every bar whose factor is 1, to the bit. No price falls below `lowest`.
    """
    logs = np.log(prices[..., CLOSE])
    moved = np.exp((factors - 1) * (logs - np.median(logs, axis=0)))
    stretched = prices.copy()
    stretched[..., PRICES] *= moved[..., None]
    stretched[..., PRICES] = np.maximum(stretched[..., PRICES], np.minimum(prices[..., PRICES], lowest))
    return stretched
