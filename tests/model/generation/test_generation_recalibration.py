"""Stretched paths: valid candles around the same median, and the factor of a bar by what is known of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.data.snapshot.read import Snapshot, leader_data, series
from kronos_service.events.encoder import EventEncoder, prepare
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.generate import generate
from kronos_service.model.generation.inputs import Prepared, prepare_history, to_prices
from kronos_service.model.generation.recalibration import day_kinds, step_factors, stretch
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_manifest import DAY_KINDS, RecalibrationRecord
from kronos_shared.columns import AMOUNT, CLOSE, HIGH, LOW, OPEN, PRICES, VOLUME
from kronos_shared.normalization import Floats

HORIZON = 3
TABLE = RecalibrationRecord(
    level=0.8,
    factors={"tier1": (2.0, 3.0), "other_event": (1.5, 1.25), "quiet": (1.0, 0.5)},
    forecasts=dict.fromkeys(DAY_KINDS, (40, 40)),
    dates=dict.fromkeys(DAY_KINDS, (20, 20)),
    first="2025-01-02",
    last="2025-06-30",
    paths=64,
)


def candles(seed: int, paths: int, scale: float) -> Floats:
    """Valid candles (N, H, 6) whose log closes scatter by 0.02 times `scale`."""
    rng = np.random.default_rng(seed)
    prices = np.empty((paths, HORIZON, 6))
    moves = rng.normal(scale=0.02 * scale, size=(paths, HORIZON, 2)).cumsum(axis=1)
    prices[..., OPEN], prices[..., CLOSE] = np.moveaxis(100 * np.exp(moves), -1, 0)
    body = prices[..., [OPEN, CLOSE]]
    prices[..., HIGH] = body.max(axis=-1) * np.exp(rng.exponential(0.01, (paths, HORIZON)))
    prices[..., LOW] = body.min(axis=-1) * np.exp(-rng.exponential(0.01, (paths, HORIZON)))
    prices[..., VOLUME:] = rng.lognormal(10, 1, (paths, HORIZON, 2))
    return prices


@given(
    seed=st.integers(0, 2**32),
    half=st.integers(0, 40),
    scale=st.floats(0.01, 3),
    factors=st.lists(st.floats(0.1, 10), min_size=HORIZON, max_size=HORIZON),
)
def test_stretched_paths_keep_median_ranks_and_candles(
    seed: int, half: int, scale: float, factors: list[float]
) -> None:
    drawn = candles(seed, 2 * half + 1, scale)
    got = stretch(drawn, np.array(factors), lowest=1e-300)
    # of an odd number of paths the median is one of them, which does not move
    np.testing.assert_array_equal(np.median(got[..., CLOSE], axis=0), np.median(drawn[..., CLOSE], axis=0))
    order = np.argsort(drawn[..., CLOSE], axis=0, kind="stable")
    ranked = np.take_along_axis(np.log(got[..., CLOSE]), order, axis=0)
    assert (np.diff(ranked, axis=0) >= -1e-12).all()
    assert (got[..., HIGH] == got[..., PRICES].max(axis=-1)).all()
    assert (got[..., LOW] == got[..., PRICES].min(axis=-1)).all()
    for column in (OPEN, HIGH, LOW):
        shape, kept = (np.log(one[..., column] / one[..., CLOSE]) for one in (drawn, got))
        np.testing.assert_allclose(kept, shape, atol=1e-12)
    before, after = (np.quantile(np.log(one[..., CLOSE]), (0.1, 0.9), axis=0) for one in (drawn, got))
    np.testing.assert_allclose(after[1] - after[0], factors * (before[1] - before[0]), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(got[..., VOLUME : AMOUNT + 1], drawn[..., VOLUME : AMOUNT + 1])


@given(seed=st.integers(0, 2**32), paths=st.integers(2, 50), factor=st.floats(0.1, 0.9))
def test_a_factor_of_one_is_the_identity_to_the_bit(seed: int, paths: int, factor: float) -> None:
    drawn = candles(seed, paths, 1.0)
    got = stretch(drawn, np.array([1.0, factor, 1.0]), lowest=1.0)
    assert got[:, [0, 2]].tobytes() == drawn[:, [0, 2]].tobytes()
    assert (got[:, 1] != drawn[:, 1]).any()


def test_no_stretched_price_falls_below_the_lowest() -> None:
    got = stretch(candles(0, 9, 3.0), np.full(HORIZON, 10.0), lowest=50.0)
    assert got[..., PRICES].min() == 50.0
    assert (got[..., HIGH] >= got[..., LOW]).all()


def test_a_bar_is_of_the_strongest_kind_that_is_known_of_it() -> None:
    rows = np.zeros((5, len(DEFAULT_TAXONOMY.channels)), dtype=np.float32)
    tier1, other = (
        DEFAULT_TAXONOMY.families.index(DEFAULT_TAXONOMY.tier1[0]),
        next(i for i, name in enumerate(DEFAULT_TAXONOMY.families) if name not in DEFAULT_TAXONOMY.tier1),
    )
    rows[0, [tier1, other]] = 1.0
    rows[1, other] = 1.0
    rows[2, [tier1, other]] = 0.5  # medium impact
    rows[3, len(DEFAULT_TAXONOMY.families) :] = 1.0  # what is no family says nothing about the schedule
    assert [DAY_KINDS[kind] for kind in day_kinds(rows, DEFAULT_TAXONOMY)] == [
        "tier1",
        "other_event",
        "quiet",
        "quiet",
        "quiet",
    ]
    # the table ends after two steps
    assert step_factors(TABLE, rows, DEFAULT_TAXONOMY).tolist() == [2.0, 1.25, 0.5, 0.5, 0.5]


def prepared(market: Snapshot, **changes: Any) -> Prepared:
    return prepare_history(
        series(market, "SYN02").iloc[:200],
        "us_equity",
        prepare(market.calendar, leader_data(market)),
        symbol="SYN02",
        encoder=EventEncoder(),
        context=72,
        horizon=HORIZON,
        seed=7,
        **changes,
    )


@pytest.fixture(scope="module")
def drawn(market: Snapshot, bundle: Bundle) -> Any:
    """Normalised paths (1, N, H, 6) of the base."""
    base = prepared(market).shown("none")
    settings: dict[str, Any] = {"horizon": HORIZON, "paths": 9, "sampling": Sampling(), "context": 72}
    return generate(bundle.tokenizer, bundle.model, [base.history], **settings).bars


def test_a_series_without_factors_is_as_drawn_and_one_with_them_is_stretched(
    market: Snapshot, drawn: Any
) -> None:
    raw, recalibrated = prepared(market), prepared(market, recalibration=TABLE)
    assert raw.recalibration() == {"applied": False, "factors": []}
    assert recalibrated.factors is not None
    assert recalibrated.recalibration() == {"applied": True, "factors": recalibrated.factors.tolist()}
    assert set(recalibrated.factors) <= {2.0, 1.5, 1.0, 3.0, 1.25, 0.5}
    plain = to_prices(drawn[0], raw)
    got = to_prices(drawn[0], recalibrated)
    np.testing.assert_array_equal(got, stretch(plain, recalibrated.factors, lowest=0.01 * raw.last_close))
    assert (got[..., HIGH] >= got[..., PRICES].max(axis=-1)).all()
    assert (got[..., LOW] <= got[..., PRICES].min(axis=-1)).all()
    ones = replace(raw, factors=np.ones(HORIZON))
    assert to_prices(drawn[0], ones).tobytes() == plain.tobytes()


def test_the_factors_are_the_adapter_s_with_its_events_and_of_no_other(market: Snapshot) -> None:
    one = prepared(market, recalibration=TABLE)
    assert one.shown("known").factors is not None
    assert one.shown("none").factors is None
    assert one.shown("zeroed").factors is None
