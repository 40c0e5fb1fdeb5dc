"""The Python front door: a DataFrame of bars and a calendar in, a DataFrame of forecasts out.

    from kronos_service import KronosEvents

    model = KronosEvents.from_adapter("adapters")
    out = model.predict_df(bars, events=calendar, leaders=leaders, horizon=5)

The service and the forecast command run the same functions, so the same seed, version and data give the same
numbers to the bit (fp32 on a CPU).
Letters: N sample paths, H horizon in bars.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pandas as pd

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.tables import some
from kronos_service.events.scenario import ScenarioError
from kronos_service.events.sessions import DAILY
from kronos_service.inference.forecast.asked import Asked, asked_of, require_levels
from kronos_service.inference.forecast.explanation import without_each
from kronos_service.inference.forecast.frames import (
    AssetClass,
    FrameError,
    Market,
    Names,
    closes_on,
    read_market,
)
from kronos_service.inference.forecast.rows import explanation_rows, path_rows, quantile_rows
from kronos_service.inference.forecast.series import (
    ScenarioLike,
    forecast_bands,
    prepare_series,
    sample_paths,
    scenario_record,
    suppose,
)
from kronos_service.inference.forecast.table import SYNTHETIC
from kronos_service.inference.models.served_model import ServedModel, adapter_at
from kronos_service.model.adapter.hub import hub_adapter
from kronos_service.model.adapter.read import NoAdapterError, require_interval
from kronos_service.model.factory import BaseChoice
from kronos_service.model.generation.inputs import Prepared
from kronos_shared.errors import KronosError

if TYPE_CHECKING:
    from kronos_service.inference.forecast.chart import FanChart

QUANTILES: Final = (0.1, 0.5, 0.9)


class SeriesError(KronosError):
    """One symbol that cannot be forecast; the message begins with its name."""


class SyntheticWarning(UserWarning):
    """A model whose forecasts say nothing of a real market."""


class KronosEvents:
    """A base with its adapter, ready to forecast DataFrames; it holds no state between calls."""

    def __init__(self, served: ServedModel) -> None:
        if served.manifest is not None:
            require_interval(served.manifest, DAILY, "a DataFrame of sessions")
        self.served = served
        if served.is_synthetic:
            warnings.warn(
                f"{SYNTHETIC}: this model has learned from the sample market only, of no real market",
                SyntheticWarning,
                stacklevel=3,
            )

    @classmethod
    def from_adapter(
        cls,
        adapter: str | Path = "adapters",
        *,
        revision: str | None = None,
        base_model: str | None = None,
        device: str = "cpu",
    ) -> Self:
        """Load an adapter and the base that it was made for.

        Args:
            adapter: published adapters (their LATEST) in a directory or at s3://bucket/prefix, one version's
                directory, hub:owner/name@commit, or sample: the adapter that ships, SYNTHETIC; with a
                revision, a hub id owner/name.
            revision: commit of the hub repository.
            base_model: preset, directory or hub id of the base, where the adapter does not name one that can
                be found.
            device: where it computes, such as cpu or cuda:0.

        Raises:
            AdapterError, BaseModelError: the adapter or its base is not there or cannot be used.
        """
        base = None if base_model is None else BaseChoice(model=base_model)
        if revision is not None:
            adapter = hub_adapter(str(adapter), revision)
        elif re.fullmatch(r"[^:/]+/[^/]+", str(adapter)) and not Path(adapter).exists():
            raise NoAdapterError(
                f"{adapter} is no directory here: expected one with an adapter; a hub id needs a revision"
            )
        return cls(adapter_at(adapter, base=base, device=device))

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
        scenario: ScenarioLike | None = None,
        base_only: bool = False,
        recalibrated: bool = True,
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
            recalibrated: with the adapter's width factors, where it has any; base_only has none.
            asset_class: crypto, us_equity, index or fx, for all or by symbol; None reads the column of `bars`
                of that name, else takes leaders for what they are and others for US equities.

        Returns:
            Long, a row per symbol, forecast bar and target: symbol, ts, step (1 to H), target_name,
            predictions (the median), and a column per quantile level, in the symbol's own units. attrs:
            version, digest, base, seed, paths, scenario, synthetic, and by symbol as_of, missing_leaders and
            recalibration (whether it applied, and the factor of each bar's width).

        Raises:
            KronosError (a ValueError): one line with what was expected, what came and what to do.
        """
        levels = require_levels(quantile_levels)
        asked = asked_of(self.served, horizon, paths, seed, recalibrated=recalibrated)
        names = Names(symbol=id_column, ts=timestamp_column)
        market = self._read(bars, events, leaders, asset_class, names, base_only=base_only)
        prepared = self._prepare(market, asked, scenario, base_only=base_only)
        sampled = sample_paths(self.served, prepared, asked, base_only=base_only)
        rows = [
            quantile_rows(one.symbol, market.dates(known), prices, levels)
            for one, known, prices in zip(market.series, prepared, sampled, strict=True)
        ]
        return self._finish(rows, market, prepared, asked, names, scenario, base_only=base_only)

    def paths(
        self,
        bars: pd.DataFrame,
        *,
        events: pd.DataFrame | None = None,
        leaders: pd.DataFrame | None = None,
        horizon: int = 5,
        paths: int = 100,
        seed: int = 0,
        scenario: ScenarioLike | None = None,
        base_only: bool = False,
        recalibrated: bool = True,
        asset_class: AssetClass = None,
        id_column: str = "symbol",
        timestamp_column: str = "ts",
    ) -> pd.DataFrame:
        """The sample paths behind `predict_df`, which has the same arguments and errors.

        Returns:
            A row per symbol, path (from 0) and forecast bar: symbol, path, ts, step, and the candle (open,
            high, low, close, volume). Path k of a seed is the same however many are drawn, but for a
            recalibration, which stretches them around their median. attrs as there.
        """
        asked = asked_of(self.served, horizon, paths, seed, recalibrated=recalibrated)
        names = Names(symbol=id_column, ts=timestamp_column)
        market = self._read(bars, events, leaders, asset_class, names, base_only=base_only)
        prepared = self._prepare(market, asked, scenario, base_only=base_only)
        sampled = sample_paths(self.served, prepared, asked, base_only=base_only)
        rows = [
            path_rows(one.symbol, market.dates(known), prices)
            for one, known, prices in zip(market.series, prepared, sampled, strict=True)
        ]
        return self._finish(rows, market, prepared, asked, names, scenario, base_only=base_only)

    def explain_df(
        self,
        bars: pd.DataFrame,
        *,
        events: pd.DataFrame,
        leaders: pd.DataFrame | None = None,
        horizon: int = 5,
        paths: int = 100,
        seed: int = 0,
        recalibrated: bool = True,
        asset_class: AssetClass = None,
        id_column: str = "symbol",
        timestamp_column: str = "ts",
    ) -> pd.DataFrame:
        """What each scheduled release (of one family, on one bar) and each leader adds to the forecast close.

        The forecast is made again without each of them alone (see `inference.forecast.explanation`), with the
        same random numbers. Arguments and errors are those of `predict_df`.

        Returns:
            A row per symbol, input and forecast bar: symbol, kind (release or leader), name, date (of the
            release, else NaT), ts, step; median and width (of the 90 % band) of the close with all inputs,
            and median_change and width_change, the part of them that goes without this input; in quote
            currency. attrs as there.
        """
        asked = asked_of(self.served, horizon, paths, seed, recalibrated=recalibrated)
        names = Names(symbol=id_column, ts=timestamp_column)
        market = self._read(bars, events, leaders, asset_class, names, base_only=False)
        assert market.tables is not None
        prepared = self._prepare(market, asked, None, base_only=False)
        rows = []
        for series, known in zip(market.series, prepared, strict=True):
            inputs = list(without_each(series, market.tables, self.served, asked, known))
            histories = [known, *(one.prepared for one in inputs)]
            sampled = sample_paths(self.served, histories, asked)
            rows.append(explanation_rows(series.symbol, market.dates(known), inputs, sampled, known))
        return self._finish(rows, market, prepared, asked, names, None, base_only=False)

    def plot(
        self,
        bars: pd.DataFrame,
        *,
        events: pd.DataFrame,
        leaders: pd.DataFrame | None = None,
        actual: pd.DataFrame | None = None,
        horizon: int = 5,
        paths: int = 100,
        seed: int = 0,
        scenario: ScenarioLike | None = None,
        recalibrated: bool = True,
        asset_class: AssetClass = None,
        id_column: str = "symbol",
        timestamp_column: str = "ts",
    ) -> "FanChart":
        """A fan chart of one symbol's close: the base, the adapter, and the scenario where there is one.

        Args:
            bars: of one symbol; the others as in `predict_df`.
            actual: symbol, ts and close of later bars too, to draw what came beside the forecast.

        Returns:
            A matplotlib figure, which a notebook shows; `savefig` writes it to a file.

        Raises:
            KronosError: as `predict_df`, and for bars of several symbols.
        """
        from kronos_service.inference.forecast.chart import chart_of, draw

        asked = asked_of(self.served, horizon, paths, seed, recalibrated=recalibrated)
        names = Names(symbol=id_column, ts=timestamp_column)
        market = self._read(bars, events, leaders, asset_class, names, base_only=False)
        if len(market.series) > 1:
            symbols = some([one.symbol for one in market.series])
            raise FrameError(f"bars: expected one symbol to plot, got {symbols}: choose one")
        (series,) = market.series
        assert market.tables is not None
        forecast = forecast_bands(series, market.tables, self.served, asked, scenario)
        later = np.zeros(0) if actual is None else closes_on(forecast.dates, actual, series.symbol, names)
        return draw(chart_of(forecast, series, later))

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
        taxonomy = self.served.base.taxonomy
        return read_market(bars, events, leaders, asset_class=asset_class, names=names, taxonomy=taxonomy)

    def _prepare(
        self, market: Market, asked: Asked, scenario: ScenarioLike | None, *, base_only: bool
    ) -> list[Prepared]:
        if scenario is not None and base_only:
            raise ScenarioError("a scenario needs the adapter: the base knows no events, drop base_only")
        prepared = []
        for one in market.series:
            try:
                known = prepare_series(one, market.tables, self.served, asked)
                if scenario is not None:
                    supposed = suppose(scenario, known, asked.horizon, self.served.base.taxonomy)
                    known = prepare_series(one, market.tables, self.served, asked, supposed)
            except KronosError as error:
                raise SeriesError(f"{one.symbol}: {error}") from error
            prepared.append(known)
        return prepared

    def _finish(
        self,
        rows: list[pd.DataFrame],
        market: Market,
        prepared: Sequence[Prepared],
        asked: Asked,
        names: Names,
        scenario: ScenarioLike | None,
        *,
        base_only: bool,
    ) -> pd.DataFrame:
        """One frame; attrs say what conditioned it, in plain JSON, so that Parquet keeps them."""
        out = pd.concat(rows, ignore_index=True).rename(columns={"symbol": names.symbol, "ts": names.ts})
        by_symbol = [(one.symbol, known) for one, known in zip(market.series, prepared, strict=True)]
        out.attrs = {
            "version": None if base_only else self.served.version,
            "digest": None if base_only else self.served.digest,
            "base": self.served.base.base.repo,
            "seed": asked.seed,
            "paths": asked.paths,
            "as_of": {one: f"{np.datetime_as_string(known.as_of, unit='s')}Z" for one, known in by_symbol},
            "missing_leaders": {one: list(known.missing_leaders) for one, known in by_symbol},
            "recalibration": {one: known.recalibration() for one, known in by_symbol},
            "scenario": None if scenario is None else scenario_record(scenario),
            "synthetic": self.served.is_synthetic,
        }
        return out


def sample_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars (the leaders' too) and calendar of the embedded sample market; SYNTHETIC."""
    snapshot = load_snapshot(sample_snapshot_path())
    return snapshot.bars, snapshot.calendar
