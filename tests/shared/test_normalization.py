"""The normaliser in any unit, and beside the released code's at ordinary prices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_shared.normalization import Floats, denormalize, normalize, statistics

UNITS = st.integers(-9, 9).map(lambda exponent: 10.0**exponent)


def walk(seed: int, *, level: float = 1.0, volume: float = 1.0, bars: int = 100) -> Floats:
    """Bars of a price that moves about 2 % a day, in the units given."""
    rng = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(rng.normal(0, 0.02, bars)))
    prices = np.stack([close * rng.uniform(0.99, 1.01, bars) for _ in range(3)] + [close], axis=1)
    traded = volume * rng.lognormal(0, 0.5, bars)
    return np.column_stack([prices, traded, traded * prices.mean(axis=1)])


@given(st.integers(0, 2**32), UNITS, UNITS)
def test_no_unit_of_price_or_volume_changes_a_score(seed: int, price: float, volume: float) -> None:
    usual, other = walk(seed), walk(seed, level=price, volume=volume)
    expected, got = (normalize(x, *statistics(x[:80])) for x in (usual, other))
    np.testing.assert_allclose(got, expected, rtol=3e-7, atol=1e-9)


@given(st.integers(0, 2**32), UNITS, UNITS)
def test_what_comes_back_is_in_the_unit_that_went_in(seed: int, price: float, volume: float) -> None:
    x = walk(seed, level=price, volume=volume)
    scale = statistics(x)
    z = normalize(x, *scale)
    inside = np.abs(z) < 5
    np.testing.assert_allclose(denormalize(z, *scale)[inside], x[inside], rtol=1e-5)


@given(st.floats(1e-9, 1e9), st.floats(0, 1e18))
def test_a_flat_window_is_zero_and_stays_finite(price: float, volume: float) -> None:
    x = np.array([[price] * 4 + [volume, volume * price]] * 70)
    mean, std = statistics(x)
    assert np.abs(normalize(x, mean, std)).max() < 1e-7
    back = denormalize(np.full((3, 6), 5.0), mean, std)
    np.testing.assert_allclose(back, x[:3], rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_after_a_window_without_volume_any_volume_is_far_out(unit: float) -> None:
    x = walk(0, volume=0.0)
    scale = statistics(x)
    later = walk(1, volume=unit, bars=2)
    assert (normalize(x, *scale)[:, 4:] == 0).all()
    assert (normalize(later, *scale)[:, 4:] == 5).all()


def test_a_value_that_is_not_a_number_is_not_made_one() -> None:
    x = walk(0, volume=0.0)
    scale = statistics(x)
    x[3, 4] = np.nan
    assert np.isnan(normalize(x, *scale)[3, 4])


@pytest.mark.parametrize(("level", "agrees"), [(20, 5e-5), (100, 1e-6), (400, 2e-5), (5000, 2e-5)])
def test_at_ordinary_prices_scores_are_those_of_the_released_code(level: float, agrees: float) -> None:
    for seed in range(20):
        x = walk(seed, level=level, volume=1e6)
        mean, std = statistics(x)
        released = np.clip((x - mean) / (std + 1e-5), -5, 5)
        np.testing.assert_allclose(normalize(x, mean, std), released, rtol=agrees, atol=1e-7)
