"""The forecast command: a table and a fan chart of one symbol, the base beside its adapter.

Both draw with the same seed, so only the adapter and the events that it is shown make them differ.
Letters: N sample paths, H horizon in bars.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import prepare
from kronos_service.events.sessions import LONGEST_CLOSURE, sessions
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.inference.forecast.asked import Asked
from kronos_service.inference.forecast.bands import Floats
from kronos_service.inference.forecast.series import Series, forecast_bands
from kronos_service.inference.forecast.table import Forecast, print_forecast
from kronos_service.inference.models.served_model import ServedModel, adapter_at, base_alone
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.adapter.read import NoAdapterError, find_adapter, require_interval
from kronos_service.model.factory import PACKAGED, BaseChoice
from kronos_service.model.packaged import SAMPLE
from kronos_shared.adapter_cache import place_of
from kronos_shared.cli import ConfigError

DEFAULT_ADAPTERS: Final = Path("adapters")


def forecast(config: ForecastConfig, console: Console | None = None) -> Forecast:
    """Forecast one symbol with the base and its adapter; print a table, and draw a chart where asked to.

    Raises:
        KronosError: anything the user can fix, named by its subclass.
    """
    console = console or Console(markup=False)
    if config.plot is not None:
        from kronos_service.inference.forecast.chart import require_drawable

        require_drawable(config.plot)
    snapshot = snapshots.load_snapshot(config.snapshot or sample_snapshot_path())
    series, later = _cut(snapshot, config)
    served = _load(config, console, snapshot.taxonomy)
    if served.manifest is not None:
        require_interval(served.manifest, snapshot.interval, f"snapshot {snapshot.name}")
    if config.horizon >= served.context:
        raise ConfigError(f"--horizon must be below the model's {served.context} bars, got {config.horizon}")
    tables = prepare(snapshot.calendar, snapshots.leader_data(snapshot), snapshot.taxonomy)
    asked = Asked(
        horizon=config.horizon, paths=config.paths, seed=config.seed, recalibrated=config.recalibrated
    )
    result = forecast_bands(series, tables, served, asked, config.scenario)
    if snapshot.is_sample:
        result = replace(result, is_synthetic=True)
    print_forecast(console, result)
    if config.plot is not None:
        from kronos_service.inference.forecast.chart import chart_of, draw_chart

        draw_chart(chart_of(result, series, later), config.plot)
        console.print(f"chart {config.plot}", highlight=False)
    return result


def _cut(snapshot: Snapshot, config: ForecastConfig) -> tuple[Series, Floats]:
    """The symbol's bars up to the origin, and the (up to H,) closes after it that are known today."""
    bars = snapshots.series(snapshot, config.symbol)
    asset_class = str(snapshot.symbols.set_index("symbol")["asset_class"][config.symbol])
    until = len(bars)
    if config.as_of is not None:
        _require_reached(config.as_of, config.symbol, asset_class, bars["ts"].iloc[-1].date())
        until = int((bars["ts"] < pd.Timestamp(config.as_of + timedelta(days=1), tz="UTC")).sum())
    if until == 0:
        raise SnapshotError(
            f"snapshot {snapshot.name} has no bar of {config.symbol} up to {config.as_of}; its first is of "
            f"{bars['ts'].iloc[0]:%Y-%m-%d}"
        )
    later = bars["close"].to_numpy(dtype=np.float64)[until : until + config.horizon]
    series = Series(
        symbol=config.symbol, bars=bars[:until], asset_class=asset_class, interval=snapshot.interval
    )
    return series, later


def _require_reached(as_of: date, symbol: str, asset_class: str, last: date) -> None:
    """Refuse a date on which there would be a newer bar than the snapshot's last."""
    following = sessions(asset_class, last + timedelta(days=1), last + LONGEST_CLOSURE).dates[0].item()
    if as_of >= following:
        raise SnapshotError(
            f"--as-of {as_of} is later than the data: the last bar of {symbol} is of {last}; leave --as-of "
            "out to forecast from it, or export newer bars"
        )


def adapter_or_default(named: str | Path | None, console: Console, *, is_sample: bool) -> Path | None:
    """The adapter that is named, else the latest of `adapters/`; where there is none, the one that ships with
    the package (`is_sample`: the sample market is forecast), or None: the base alone.

    Raises:
        KronosError: the one that is named cannot be had.
    """
    try:
        return find_adapter(named or DEFAULT_ADAPTERS)
    except NoAdapterError:
        if named is not None:
            raise
    if is_sample:
        console.print(f"no adapter in {DEFAULT_ADAPTERS}/: {SAMPLE}, the one that ships with the package")
        return find_adapter(SAMPLE)
    console.print(f"no adapter in {DEFAULT_ADAPTERS}/: the base alone, which knows no calendar")
    return None


def _load(config: ForecastConfig, console: Console, taxonomy: Taxonomy) -> ServedModel:
    base = None if config.base_model is None else BaseChoice(model=config.base_model)
    is_sample = config.snapshot is None and base is None
    directory = adapter_or_default(config.adapter, console, is_sample=is_sample)
    if directory is None:
        served = base_alone((base or BaseChoice(model=PACKAGED)).load("cpu", taxonomy))
        console.print(f"base {served.base.base.repo}", highlight=False)
        return served
    served = adapter_at(directory, base=base)
    console.print(f"base {served.base.base.repo}, adapter {place_of(directory)}", highlight=False)
    return served
