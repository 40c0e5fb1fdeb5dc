"""The closes that one model expects, as bands.

Letters: N sample paths, H horizon in bars.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kronos_service.model.generation.inputs import own_moves

Floats = npt.NDArray[np.float64]

BANDS: Final = {"90 %": (0.05, 0.95), "50 %": (0.25, 0.75)}
"""Name of a band -> its quantiles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bands:
    """One model's sample paths of the close."""

    label: str
    last_close: float
    """At the origin, in quote currency."""
    closes: Floats
    """(N, H) in quote currency."""

    def median(self) -> Floats:
        """(H,) median close."""
        middle: Floats = np.median(self.closes, axis=0)
        return middle

    def band(self, name: str) -> tuple[Floats, Floats]:
        """(H,) lower and (H,) upper end of a band of the close."""
        low, high = np.quantile(self.closes, BANDS[name], axis=0)
        return low, high

    def width(self) -> Floats:
        """(H,) width of the 90 % band of the close, in quote currency."""
        low, high = self.band("90 %")
        width: Floats = high - low
        return width

    def move_widths(self) -> Floats:
        """(H,) width of the 90 % band of each bar's own move, close to close, in percent."""
        low, high = np.quantile(own_moves(self.closes, self.last_close), BANDS["90 %"], axis=0)
        widths: Floats = high - low
        return widths
