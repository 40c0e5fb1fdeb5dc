"""The Python front door: a DataFrame of bars and a calendar in, a DataFrame of forecasts out.

    from kronos_service import KronosEvents

    model = KronosEvents.from_adapter("adapters")
    out = model.predict_df(bars, events=calendar, leaders=leaders, horizon=5)

The service and the forecast command run the same functions, so the same seed, version and data give the same
numbers to the bit (fp32 on a CPU).
Letters: N sample paths, H horizon in bars.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.inference.forecast.frames import AssetClass, FrameError, Market, Names, read_market
from kronos_service.inference.forecast.series import Asked, prepare_series, sample_paths, suppose
from kronos_service.inference.models.served_model import ServedModel, adapter_at
from kronos_service.model.factory import BaseChoice
from kronos_service.model.generation.inputs import Prepared
from kronos_shared.columns import FEATURES
from kronos_shared.errors import KronosError
from kronos_shared.normalization import MIN_HISTORY, Floats

TARGETS: Final = FEATURES[:5]
"""What is forecast; turnover follows from volume and prices."""
QUANTILES: Final = (0.1, 0.5, 0.9)
ScenarioLike = str | Sequence[str] | Scenario | None


class AskedError(KronosError):
    """A horizon, a number of paths or a quantile level that cannot be."""


class SeriesError(KronosError):
    """One symbol that cannot be forecast; the message begins with its name."""


class KronosEvents:
    """A base with its adapter, ready to forecast DataFrames; it holds no state between calls."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served

    @classmethod
    def from_adapter(
        cls, adapter: str | Path = "adapters", *, base_model: str | None = None, device: str = "cpu"
    ) -> Self:
        """Load an adapter and the base that it was made for.

        Args:
            adapter: a directory of published adapters (its LATEST), one version's directory, or sample: the
                adapter that ships with the package, SYNTHETIC.
            base_model: preset, directory or hub id of the base, where the adapter does not name one that can
                be found.
            device: where it computes, such as cpu or cuda:0.

        Raises:
            AdapterError, BaseModelError: the adapter or its base is not there or cannot be used.
        """
        base = None if base_model is None else BaseChoice(model=base_model)
        return cls(adapter_at(Path(adapter), base=base, device=device))

    def predict_df(
        self,
        bars: pd.DataFrame,
        *,
        events: pd.DataFrame | None = None,
        leaders: pd.DataFrame | None = None,
        horizon: int = 5,
        quantile_levels: Sequence[float] = QUANTILES,
        paths: int = 100,
        seed: int = 0,
        scenario: ScenarioLike = None,
        base_only: bool = False,
        asset_class: AssetClass = None,
        id_column: str = "symbol",
        timestamp_column: str = "ts",
    ) -> pd.DataFrame:
        """Forecast the next sessions of every symbol of `bars`, from its own last bar.

        Args:
            bars: long, a row per symbol and session: symbol, ts (session date), open, high, low, close,
                volume, and where there are, amount and asset_class. At least 64 sessions a symbol; holidays
                come from the exchange's calendar, so no frequency is asked.
            events: economic calendar: event_type, impact, release_at, currency, and where there are, actual,
                forecast, event_id, first_seen_at (null: always known). Rows first seen after a symbol's as_of
                change nothing. It must reach 10 days past the last forecast bar.
            leaders: symbol, ts and close of BTCUSDT, SPY, DXY and VIX; None takes those among `bars`. What
                is missing is named in attrs, and its channel is 0.
            quantile_levels: over the sample paths, each above 0 and below 1.
            scenario: what if: texts such as 'cpi +2' (see the forecast command), or a `Scenario`.
            base_only: forecast with the base alone, which is shown no events.
            asset_class: crypto, us_equity, index or fx, for all or by symbol; None reads the column of `bars`
                of that name, else takes leaders for what they are and others for US equities.

        Returns:
            Long, a row per symbol, forecast bar and target: symbol, ts, step (1 to H), target_name,
            predictions (the median), and a column per quantile level, in the symbol's own units. attrs:
            version, digest, base, seed, paths, scenario, synthetic, and by symbol as_of and missing_leaders.

        Raises:
            KronosError (a ValueError): one line with what was expected, what came and what to do.
        """
        levels = _levels(quantile_levels)
        asked = self._asked(horizon, paths, seed)
        names = Names(symbol=id_column, ts=timestamp_column)
        market = self._read(bars, events, leaders, asset_class, names, base_only=base_only)
        prepared = self._prepare(market, asked, scenario, base_only=base_only)
        sampled = sample_paths(self.served, prepared, asked, base_only=base_only)
        rows = [
            _quantiles(one.symbol, _dates(known, market), prices, levels)
            for one, known, prices in zip(market.series, prepared, sampled, strict=True)
        ]
        out = pd.concat(rows, ignore_index=True).rename(columns={"symbol": id_column, "ts": timestamp_column})
        out.attrs = self._attrs(market, prepared, asked, scenario, base_only=base_only)
        return out

    def _asked(self, horizon: int, paths: int, seed: int) -> Asked:
        for name, value, least in (("horizon", horizon, 1), ("paths", paths, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise AskedError(f"{name}: expected a whole number from {least} on, got {value!r}")
        most = self.served.context - MIN_HISTORY
        if horizon > most:
            raise AskedError(
                f"horizon: this model reads {self.served.context} bars, {MIN_HISTORY} of them history: "
                f"expected at most {most}, got {horizon}"
            )
        return Asked(horizon=int(horizon), paths=int(paths), seed=int(seed))

    def _read(
        self,
        bars: pd.DataFrame,
        events: pd.DataFrame | None,
        leaders: pd.DataFrame | None,
        asset_class: AssetClass,
        names: Names,
        *,
        base_only: bool,
    ) -> Market:
        if base_only:
            events = None
        elif events is None:
            raise FrameError(
                "events: expected an economic calendar, got none: pass events, or base_only=True for the "
                "base alone"
            )
        return read_market(bars, events, leaders, asset_class=asset_class, names=names)

    def _prepare(
        self, market: Market, asked: Asked, scenario: ScenarioLike, *, base_only: bool
    ) -> list[Prepared]:
        if scenario is not None and base_only:
            raise ScenarioError("a scenario needs the adapter: the base knows no events, drop base_only")
        texts = [scenario] if isinstance(scenario, str) else scenario
        prepared = []
        for one in market.series:
            try:
                known = prepare_series(one, market.tables, self.served, asked)
                if texts is not None:
                    supposed = texts if isinstance(texts, Scenario) else suppose(texts, known, asked.horizon)
                    known = prepare_series(one, market.tables, self.served, asked, supposed)
            except KronosError as error:
                raise SeriesError(f"{one.symbol}: {error}") from error
            prepared.append(known)
        return prepared

    def _attrs(
        self,
        market: Market,
        prepared: Sequence[Prepared],
        asked: Asked,
        scenario: ScenarioLike,
        *,
        base_only: bool,
    ) -> dict[str, Any]:
        """What conditioned a forecast; plain JSON values, so that Parquet keeps them."""
        symbols = [one.symbol for one in market.series]
        return {
            "version": None if base_only else self.served.version,
            "digest": None if base_only else self.served.digest,
            "base": self.served.base.base.repo,
            "seed": asked.seed,
            "paths": asked.paths,
            "as_of": {
                symbol: f"{np.datetime_as_string(known.as_of, unit='s')}Z"
                for symbol, known in zip(symbols, prepared, strict=True)
            },
            "missing_leaders": {
                symbol: list(known.missing_leaders) for symbol, known in zip(symbols, prepared, strict=True)
            },
            "scenario": _scenario_record(scenario),
            "synthetic": self.served.is_synthetic,
        }


def sample_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars (the leaders' too) and calendar of the embedded sample market; SYNTHETIC."""
    snapshot = load_snapshot(sample_snapshot_path())
    return snapshot.bars, snapshot.calendar


def _levels(levels: Sequence[float]) -> list[float]:
    found = [float(level) for level in levels]
    if not all(0 < level < 1 for level in found) or len(set(found)) < len(found):
        raise AskedError(
            f"quantile_levels: expected each level once, above 0 and below 1, got {list(levels)}"
        )
    return found


def _dates(known: Prepared, market: Market) -> pd.DatetimeIndex:
    """The session dates (H,) of the forecast bars, with a time zone where the user's have one."""
    dates = pd.DatetimeIndex(known.future_dates).as_unit("ns")
    return dates if market.is_naive else dates.tz_localize("UTC")


def _quantiles(symbol: str, dates: pd.DatetimeIndex, prices: Floats, levels: Sequence[float]) -> pd.DataFrame:
    """The rows of one symbol from its sample paths (N, H, 6): target by target, bar by bar."""
    horizon, targets = len(dates), len(TARGETS)
    # the same call as the service's, whose answers these numbers equal
    values = np.quantile(prices, [0.5, *levels], axis=0)[..., :targets]
    columns = values.transpose(0, 2, 1).reshape(len(values), -1)
    return pd.DataFrame(
        {
            "symbol": symbol,
            "ts": dates.append([dates] * (targets - 1)),
            "step": np.tile(np.arange(1, horizon + 1), targets),
            "target_name": np.repeat(TARGETS, horizon),
            **dict(zip(("predictions", *map(str, levels)), columns, strict=True)),
        }
    )


def _scenario_record(scenario: ScenarioLike) -> Any:
    if scenario is None:
        return None
    if not isinstance(scenario, Scenario):
        return [scenario] if isinstance(scenario, str) else list(scenario)
    moves = {name: {str(day): z for day, z in of.items()} for name, of in scenario.leaders.items()}
    return {"surprises": {str(day): z for day, z in scenario.surprises.items()}, "leaders": moves}
