"""A forecaster for sktime (https://www.sktime.net), extra `[sktime]`."""

from datetime import timedelta
from functools import lru_cache
from typing import Any, ClassVar, Self

import pandas as pd
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from kronos_service.events.sessions import sessions
from kronos_service.forecaster import KronosEvents
from kronos_shared.errors import KronosError

Frame = pd.DataFrame | None
load = lru_cache(maxsize=4)(KronosEvents.from_adapter)


class SktimeError(KronosError):
    """A horizon that is not of sessions."""


class KronosEventsForecaster(BaseForecaster):  # type: ignore[misc]
    """Forecasts daily bars zero-shot: `fit` keeps them, `predict` runs the adapter.

    y has the columns open, high, low, close and volume; X, where given, the leaders' closes by date (columns
    BTCUSDT, SPY, DXY, VIX; null where one does not trade), with dates of its own. The calendar is a
    parameter, because a column of X could not say when a release was first scheduled. The index of a forecast
    is the sessions of the exchange, so no frequency is asked for: step 3 is the third
    session. A horizon of dates needs `ForecastingHorizon(dates, is_relative=False, freq="D")`.

    Args:
        adapter, base_model: as in `KronosEvents.from_adapter`.
        events: economic calendar, as in `KronosEvents.predict_df`; None forecasts with the base alone.
        asset_class, paths, seed: as there.
    """

    _tags: ClassVar[dict[str, Any]] = {
        "capability:exogenous": True,
        "capability:multivariate": True,
        "capability:pred_int": True,
        "capability:update": True,
        "capability:pred_int:insample": False,
        "capability:insample": False,
        "capability:missing_values": True,
        "requires-fh-in-fit": False,
        "X-y-must-have-same-index": False,
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
    }

    def __init__(
        self,
        adapter: str = "adapters",
        events: pd.DataFrame | None = None,
        asset_class: str = "us_equity",
        paths: int = 100,
        seed: int = 0,
        base_model: str | None = None,
    ) -> None:
        self.adapter, self.events, self.asset_class = adapter, events, asset_class
        self.paths, self.seed, self.base_model = paths, seed, base_model
        super().__init__()

    def _fit(self, y: pd.DataFrame, X: Frame = None, fh: ForecastingHorizon | None = None) -> Self:
        self._columns = list(y.columns)
        self._bars = y.rename_axis("ts").reset_index().assign(symbol="y")
        self._leaders = None
        if X is not None:
            closes = X.rename_axis("ts").reset_index().melt("ts", var_name="symbol", value_name="close")
            self._leaders = closes.dropna(subset=["close"])
        return self

    def _update(self, y: pd.DataFrame, X: Frame = None, update_params: bool = True) -> Self:
        bars, leaders = self._bars, self._leaders
        self._fit(y, X)
        self._bars = _newest([bars, self._bars])
        closes = [one for one in (leaders, self._leaders) if one is not None]
        self._leaders = _newest(closes) if closes else None
        return self

    def _predict(self, fh: ForecastingHorizon, X: Frame = None) -> pd.DataFrame:
        out = self._forecast(fh, [0.5])
        return out.pivot(index="ts", columns="target_name", values="predictions")[self._columns]

    def _predict_quantiles(self, fh: ForecastingHorizon, X: Frame, alpha: list[float]) -> pd.DataFrame:
        out = self._forecast(fh, alpha).pivot(index="ts", columns="target_name", values=list(map(str, alpha)))
        names = [(name, level) for name in self._columns for level in alpha]
        ours = [(str(level), name) for name, level in names]
        return out[ours].set_axis(pd.MultiIndex.from_tuples(names), axis=1)

    def _forecast(self, fh: ForecastingHorizon, levels: list[float]) -> pd.DataFrame:
        """The rows of the steps or dates that are asked for."""
        wanted, last = fh.to_pandas(), self._bars["ts"].max()
        horizon = wanted.max()
        if not fh.is_relative:
            ahead = sessions(self.asset_class, last.date() + timedelta(days=1), max(horizon, last).date())
            horizon = max(len(ahead.dates), 1)
        out = load(self.adapter, base_model=self.base_model).predict_df(
            self._bars,
            events=self.events,
            leaders=self._leaders,
            horizon=int(horizon),
            quantile_levels=levels,
            paths=self.paths,
            seed=self.seed,
            base_only=self.events is None,
            asset_class=self.asset_class,
        )
        found = out[out["step" if fh.is_relative else "ts"].isin(wanted)]
        if found["ts"].nunique() < len(wanted):
            raise SktimeError("expected a horizon of sessions to come, got other dates: give steps instead")
        return found


def _newest(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all, and of one symbol and date the last."""
    return pd.concat(frames).drop_duplicates(["symbol", "ts"], keep="last").sort_values("ts")
