"""The normaliser and the time features."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kronos_shared.normalization import denormalize, feature_matrix, normalize, statistics, time_features

bars = hnp.arrays(np.float64, (20, 6), elements=st.floats(1, 1e6, allow_nan=False))


@given(bars)
def test_denormalizing_gives_back_what_was_not_clipped(x: np.ndarray) -> None:
    mean, std = statistics(x)
    z = normalize(x, mean, std)
    inside = np.abs(z) < 5
    float32_rounding = 1e-6 * (5 * std + np.abs(x).max())
    assert (np.abs(denormalize(z, mean, std) - x) <= float32_rounding)[inside].all()


def test_normalizing_matches_the_formula_of_the_released_code_at_a_price_of_100() -> None:
    x = np.array([[98.0], [99.0], [103.0]]) * np.ones((1, 6))
    mean, std = statistics(x)
    expected = (x - 100.0) / (np.sqrt((4 + 1 + 9) / 3) + 1e-5)
    np.testing.assert_allclose(normalize(x, mean, std), expected, rtol=1e-6)


def test_values_far_out_are_clipped_at_five_and_a_constant_column_is_zero() -> None:
    x = np.ones((10, 6))
    x[:, 0] = np.arange(10)
    mean, std = statistics(x)
    z = normalize(np.vstack([x, np.full((1, 6), 1e9)]), mean, std)
    assert z.max() == 5.0
    assert (z[:10, 1:] == 0).all()


def test_a_null_amount_is_volume_times_the_mean_price() -> None:
    row = {"open": 1.0, "high": 4.0, "low": 1.0, "close": 2.0, "volume": 10.0}
    frame = pd.DataFrame([row | {"amount": np.nan}, row | {"amount": 7.0}])
    assert feature_matrix(frame)[:, 5].tolist() == [20.0, 7.0]


def test_time_features_are_minute_hour_weekday_day_month() -> None:
    ts = pd.DatetimeIndex(["2024-02-29 13:45:00+00:00"])
    assert time_features(ts).tolist() == [[45, 13, 3, 29, 2]]
