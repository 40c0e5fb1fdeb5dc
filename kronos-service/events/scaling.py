"""Values in standard deviations, for the surprise and leader channels."""

from typing import Final

import numpy as np
import numpy.typing as npt

CLIP: Final = 5.0
CONSTANT: Final = 1e-9
"""A standard deviation up to this is rounding noise of a constant series."""

Floats = npt.NDArray[np.float64]


def standardize(value: Floats, sigma: Floats) -> Floats:
    """value / sigma clipped to +-5, elementwise; 0 where sigma is 0 or rounding noise."""
    scaled = np.divide(value, sigma, out=np.zeros_like(value), where=sigma > CONSTANT)
    return np.clip(scaled, -CLIP, CLIP)
