"""Which quantiles are kept of every forecast, in evaluations, forecast files and the database."""

from collections.abc import Mapping
from typing import Final

LEVELS: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
INTERVALS: Final[Mapping[str, tuple[float, float]]] = {
    "50": (0.25, 0.75),
    "80": (0.1, 0.9),
    "90": (0.05, 0.95),
}
"""Central intervals, in percent, between two of the levels."""


def quantile_name(level: float) -> str:
    """`q05` for 0.05."""
    return f"q{round(100 * level):02d}"
