"""sktime's own interface asks our forecaster; its numbers are the front door's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service import KronosEvents
from kronos_service.data.snapshot.read import Snapshot
from kronos_shared.errors import KronosError

pytestmark = pytest.mark.ecosystem
COLUMNS = ["open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def parameters(adapter_of: Callable[[int], Path], base_path: Path, market: Snapshot) -> dict[str, Any]:
    return {
        "adapter": str(adapter_of(2)),
        "base_model": str(base_path),
        "events": market.calendar,
        "paths": 6,
        "seed": 3,
    }


@pytest.fixture(scope="module")
def y(market: Snapshot) -> pd.DataFrame:
    bars = market.bars[(market.bars["symbol"] == "SPY") & (market.bars["ts"] <= "2022-09-01")]
    return bars.set_index(bars["ts"].dt.tz_localize(None))[COLUMNS].rename_axis(None)


@pytest.fixture(scope="module")
def X(market: Snapshot) -> pd.DataFrame:
    leaders = market.bars[market.bars["symbol"].isin(["BTCUSDT", "SPY", "DXY", "VIX"])]
    wide = leaders.assign(ts=leaders["ts"].dt.tz_localize(None)).pivot(
        index="ts", columns="symbol", values="close"
    )
    return wide[wide.index <= "2022-09-01"]


def test_points_and_quantiles_are_those_of_the_front_door(
    parameters: dict[str, Any], y: pd.DataFrame, X: pd.DataFrame, market: Snapshot
) -> None:
    from kronos_service.integrations.sktime import KronosEventsForecaster

    forecaster = KronosEventsForecaster(**parameters).fit(y, X=X)
    points = forecaster.predict(fh=[1, 2, 4])
    model = KronosEvents.from_adapter(parameters["adapter"], base_model=parameters["base_model"])
    bars = market.bars[(market.bars["symbol"] == "SPY") & (market.bars["ts"] <= "2022-09-01")]
    out = model.predict_df(
        bars, events=market.calendar, leaders=market.bars, horizon=4, paths=6, seed=3, quantile_levels=[0.2]
    )
    # 5 September 2022 was Labor Day
    assert [str(day.date()) for day in points.index] == ["2022-09-02", "2022-09-06", "2022-09-08"]
    kept = out[out["step"] != 3]
    for name in COLUMNS:
        rows = kept[kept["target_name"] == name]
        np.testing.assert_array_equal(points[name], rows["predictions"])
    quantiles = forecaster.predict_quantiles(fh=[1, 2, 4], alpha=[0.2, 0.8])
    assert list(quantiles.columns) == [(name, level) for name in COLUMNS for level in (0.2, 0.8)]
    np.testing.assert_array_equal(quantiles["close", 0.2], kept.loc[kept["target_name"] == "close", "0.2"])
    interval = forecaster.predict_interval(fh=[1], coverage=0.6)
    assert interval.shape == (1, 10)


def test_dates_may_be_asked_for_and_must_be_sessions(parameters: dict[str, Any], y: pd.DataFrame) -> None:
    from sktime.forecasting.base import ForecastingHorizon

    from kronos_service.integrations.sktime import KronosEventsForecaster

    forecaster = KronosEventsForecaster(**parameters).fit(y)
    days = pd.DatetimeIndex(["2022-09-02", "2022-09-07"])
    asked = forecaster.predict(fh=ForecastingHorizon(days, is_relative=False, freq="D"))
    pd.testing.assert_frame_equal(asked, forecaster.predict(fh=[1, 3]))
    holiday = ForecastingHorizon(pd.DatetimeIndex(["2022-09-05"]), is_relative=False, freq="D")
    with pytest.raises(KronosError, match="expected a horizon of sessions to come"):
        forecaster.predict(fh=holiday)


def test_an_update_moves_the_origin_and_the_base_needs_no_events(
    parameters: dict[str, Any], y: pd.DataFrame
) -> None:
    from kronos_service.integrations.sktime import KronosEventsForecaster

    alone = KronosEventsForecaster(**parameters | {"events": None})
    early = alone.clone().fit(y.iloc[:-3])
    early.update(y.iloc[-3:])
    pd.testing.assert_frame_equal(early.predict(fh=[1]), alone.fit(y).predict(fh=[1]))
    assert not alone.predict(fh=[1]).equals(KronosEventsForecaster(**parameters).fit(y).predict(fh=[1]))


def test_the_tags_say_what_it_can_do() -> None:
    from kronos_service.integrations.sktime import KronosEventsForecaster

    tags = KronosEventsForecaster.get_class_tags()
    assert tags["capability:pred_int"]
    assert tags["capability:exogenous"]
    assert not tags["capability:insample"]
