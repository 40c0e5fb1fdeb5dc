"""What is asked of each series: how far, how many paths, from which seed, and which quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kronos_service.inference.models.served_model import ServedModel
from kronos_shared.errors import KronosError
from kronos_shared.normalization import MIN_HISTORY


class AskedError(KronosError):
    """A horizon, a number of paths, a seed or a quantile level that cannot be."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The same seed and model give the same paths."""

    horizon: int
    """Bars to forecast."""
    paths: int
    """Sample paths of each series."""
    seed: int
    recalibrated: bool
    """Whether the adapter's width factors apply, where it has any."""


def asked_of(served: ServedModel, horizon: int, paths: int, seed: int, *, recalibrated: bool) -> Asked:
    """Whole numbers that the model can answer, as the service takes them; raises AskedError."""
    for name, value, least in (("horizon", horizon, 1), ("paths", paths, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise AskedError(f"{name}: expected a whole number from {least} on, got {value!r}")
    most = served.context - MIN_HISTORY
    if horizon > most:
        raise AskedError(
            f"horizon: this model reads {served.context} bars, {MIN_HISTORY} of them history: expected at "
            f"most {most}, got {horizon}"
        )
    return Asked(horizon=int(horizon), paths=int(paths), seed=int(seed), recalibrated=recalibrated)


def require_levels(levels: Sequence[float]) -> list[float]:
    """Quantile levels, each once, above 0 and below 1; raises AskedError."""
    found = [float(level) for level in levels]
    if not all(0 < level < 1 for level in found) or len(set(found)) < len(found):
        raise AskedError(
            f"quantile_levels: expected each level once, above 0 and below 1, got {list(levels)}"
        )
    return found
