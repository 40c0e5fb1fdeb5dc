"""The forecast command: a table and a fan chart of one symbol, the base beside its adapter.

Both draw with the same seed, so only the adapter and the events that it is shown make them differ.
Letters: N sample paths, H horizon in bars.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from rich.console import Console

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import EventTables, prepare
from kronos_service.events.sessions import LONGEST_CLOSURE, session_dates, sessions
from kronos_service.events.taxonomy import FAMILIES, IMPACT_WEIGHTS
from kronos_service.inference.forecast.bands import Bands, Floats
from kronos_service.inference.forecast.scenario_text import parse_scenario
from kronos_service.inference.forecast.table import Families, Forecast, print_forecast
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.adapter.read import NoAdapterError, find_adapter, load_adapter, read_adapter
from kronos_service.model.factory import PACKAGED, BaseChoice, Bundle, base_named_by
from kronos_service.model.generation.inputs import Prepared, forecast_prices, prepare_history
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_shared.cli import ConfigError
from kronos_shared.columns import CLOSE
from kronos_shared.normalization import MIN_HISTORY

if TYPE_CHECKING:
    from kronos_service.inference.forecast.chart import Chart

SHOWN_PAST: Final = 24
"""Bars before the origin in the chart."""
DEFAULT_ADAPTERS: Final = Path("adapters")


@dataclass(frozen=True, kw_only=True)
class _Models:
    """The base, and where there is an adapter, the base with it merged in."""

    bundle: Bundle
    adapted: Kronos | None
    name: str
    """Of the adapter's version."""
    context: int
    min_history: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Series:
    """One symbol, cut at the origin."""

    bars: pd.DataFrame
    asset_class: str
    tables: EventTables
    later: Floats
    """Closes after the origin that are known today."""


def forecast(config: ForecastConfig, console: Console | None = None) -> Forecast:
    """Forecast one symbol with the base and its adapter; print a table, and draw a chart where asked to.

    Raises:
        KronosError: anything the user can fix, named by its subclass.
    """
    console = console or Console()
    if config.plot is not None:
        from kronos_service.inference.forecast.chart import require_drawable

        require_drawable(config.plot)
    snapshot = snapshots.load_snapshot(config.snapshot or sample_snapshot_path())
    series = _cut(snapshot, config)
    models = _load(config, console)
    if config.horizon >= models.context:
        raise ConfigError(f"--horizon must be below the model's {models.context} bars, got {config.horizon}")
    result = _forecast(config, series, models)
    print_forecast(console, result)
    if config.plot is not None:
        from kronos_service.inference.forecast.chart import draw_chart

        draw_chart(_chart(result, series), config.plot)
        console.print(f"chart {config.plot}", highlight=False)
    return result


def _cut(snapshot: Snapshot, config: ForecastConfig) -> _Series:
    bars = snapshots.series(snapshot, config.symbol)
    asset_class = snapshot.symbols.set_index("symbol")["asset_class"][config.symbol]
    until = len(bars)
    if config.as_of is not None:
        _require_reached(config.as_of, config.symbol, str(asset_class), bars["ts"].iloc[-1].date())
        until = int((bars["ts"] <= pd.Timestamp(config.as_of, tz="UTC")).sum())
    if until == 0:
        raise SnapshotError(
            f"snapshot {snapshot.name} has no bar of {config.symbol} up to {config.as_of}; its first is of "
            f"{bars['ts'].iloc[0]:%Y-%m-%d}"
        )
    return _Series(
        bars=bars[:until],
        asset_class=str(asset_class),
        tables=prepare(snapshot.calendar, snapshots.leader_data(snapshot)),
        later=bars["close"].to_numpy(dtype=np.float64)[until : until + config.horizon],
    )


def _require_reached(as_of: date, symbol: str, asset_class: str, last: date) -> None:
    """Refuse a date on which there would be a newer bar than the snapshot's last."""
    following = sessions(asset_class, last + timedelta(days=1), last + LONGEST_CLOSURE).dates[0].item()
    if as_of >= following:
        raise SnapshotError(
            f"--as-of {as_of} is later than the data: the last bar of {symbol} is of {last}; leave --as-of "
            "out to forecast from it, or export newer bars"
        )


def _load(config: ForecastConfig, console: Console) -> _Models:
    try:
        directory = find_adapter(config.adapter or DEFAULT_ADAPTERS)
    except NoAdapterError:
        if config.adapter is not None:
            raise
        bundle = BaseChoice(model=config.base_model or PACKAGED).load("cpu")
        console.print(
            f"no adapter in {DEFAULT_ADAPTERS}/: base {bundle.base.repo} alone, which knows no calendar"
        )
        return _Models(bundle=bundle, adapted=None, name="", context=bundle.context, min_history=MIN_HISTORY)
    adapter = read_adapter(directory)
    choice = BaseChoice(model=config.base_model) if config.base_model else base_named_by(adapter.manifest)
    bundle = choice.load("cpu")
    console.print(f"base {bundle.base.repo}, adapter {directory}", highlight=False)
    loaded = load_adapter(adapter, bundle)
    return _Models(
        bundle=bundle,
        adapted=loaded.merged,
        name=directory.resolve().name,
        context=loaded.context,
        min_history=adapter.manifest.normalization.min_history,
    )


def _forecast(config: ForecastConfig, series: _Series, models: _Models) -> Forecast:
    prepare_with = partial(
        prepare_history,
        series.bars,
        series.asset_class,
        series.tables,
        encoder=models.bundle.event_encoder,
        context=models.context,
        horizon=config.horizon,
        seed=config.seed,
        min_history=models.min_history,
    )
    known = prepare_with()
    families = _families(known, config.horizon)
    base, adapted = models.bundle.model, models.adapted
    bands = [_bands("base, which knows no calendar", base, known.shown("none"), config, models)]
    if adapted is not None:
        bands.append(_bands(f"adapter {models.name}", adapted, known, config, models))
    if config.scenario:
        if adapted is None:
            raise ConfigError("--scenario needs an adapter: the base knows no events")
        days = [day.item() for day in known.future_dates]
        scheduled = {day: [name for name, _ in on] for day, on in zip(days, families, strict=True)}
        what_if = prepare_with(scenario=parse_scenario(config.scenario, scheduled))
        bands.append(_bands(f"what if {', '.join(config.scenario)}", adapted, what_if, config, models))
    return Forecast(
        symbol=config.symbol,
        origin=series.bars["ts"].iloc[-1].date(),
        as_of=known.as_of,
        missing_leaders=known.missing_leaders,
        dates=known.future_dates,
        families=families,
        bands=tuple(bands),
    )


def _bands(label: str, model: Kronos, prepared: Prepared, config: ForecastConfig, models: _Models) -> Bands:
    (prices,) = forecast_prices(
        models.bundle.tokenizer,
        model,
        [prepared],
        horizon=config.horizon,
        paths=config.paths,
        sampling=Sampling(),
        context=models.context,
    )
    return Bands(label=label, last_close=prepared.last_close, closes=prices[..., CLOSE])


def _families(prepared: Prepared, horizon: int) -> tuple[Families, ...]:
    """What the adapter is shown about each forecast bar: the last H rows of its event channels."""
    assert prepared.history.events is not None
    rows = prepared.history.events[-horizon:, : len(FAMILIES)].tolist()
    return tuple(
        tuple((name, weight) for name, weight in zip(FAMILIES, row, strict=True) if weight) for row in rows
    )


def _chart(result: Forecast, series: _Series) -> "Chart":
    from kronos_service.inference.forecast.chart import Chart

    past = series.bars[-SHOWN_PAST:]
    high = [
        (bar, "\n".join(name for name, weight in on if weight == IMPACT_WEIGHTS["high"]))
        for bar, on in enumerate(result.families)
    ]
    return Chart(
        title=f"{result.symbol}: {len(result.dates)} bars after {result.origin.day} {result.origin:%B %Y}",
        past_dates=session_dates(past["ts"]),
        past_closes=past["close"].to_numpy(dtype=np.float64),
        dates=result.dates,
        bands=result.bands,
        events=[(bar, names) for bar, names in high if names],
        later=series.later,
    )
