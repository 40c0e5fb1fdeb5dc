"""Bands of sample paths, against figures worked out by hand."""

import numpy as np
import pytest

from kronos_service.inference.forecast.bands import Bands


def test_bands_are_quantiles_of_the_close_on_each_bar() -> None:
    closes = np.stack([np.linspace(90, 110, 101), np.linspace(80, 120, 101)], axis=1)
    fan = Bands(label="f", last_close=100.0, closes=closes)
    np.testing.assert_allclose(fan.median(), [100, 100])
    np.testing.assert_allclose(fan.band("90 %"), [[91, 82], [109, 118]])
    np.testing.assert_allclose(fan.band("50 %"), [[95, 90], [105, 110]])


def test_the_width_of_a_move_is_that_of_the_bar_alone_not_of_the_path() -> None:
    """The first bar spreads the paths, the second moves all of them by the same 10 %."""
    first = np.linspace(90, 110, 101)
    fan = Bands(label="f", last_close=100.0, closes=np.stack([first, 1.1 * first], axis=1))
    assert fan.move_widths() == pytest.approx([18.0, 0.0])
