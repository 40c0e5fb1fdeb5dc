"""A forecast for people: a table and a fan chart of one symbol, the base beside its adapter.

Both draw from the same seed, so that what differs between them is the adapter and the events it is told.
Letters: N sample paths, H horizon in bars.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from rich.console import Console

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import Snapshot, SnapshotError
from kronos_service.events.encoder import EventTables, prepare
from kronos_service.events.scenario import Scenario
from kronos_service.events.sessions import session_dates
from kronos_service.events.taxonomy import FAMILIES, IMPACT_WEIGHTS
from kronos_service.inference.forecast.bands import Bands, Floats
from kronos_service.inference.forecast.scenario_text import parse_suppositions
from kronos_service.inference.forecast.table import Families, Forecast, print_forecast
from kronos_service.inference.models.base_model import PACKAGED, BaseChoice, base_named_by
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.adapter.canary import check_canary
from kronos_service.model.adapter.read import Adapter, AdapterError, attach, merge, read_adapter
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.generate import generate
from kronos_service.model.generation.inputs import Prepared, prepare_history, to_prices
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import MANIFEST
from kronos_shared.adapter_store import latest_version
from kronos_shared.cli import ConfigError

if TYPE_CHECKING:
    from kronos_service.inference.forecast.chart import Chart

SHORTEST_HISTORY: Final = 64
"""Bars that the base alone is given at least, as in training."""
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
    shortest: int
    """Bars of history at least."""


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
        KronosError: anything the user can mend, named by its subclass.
    """
    console = console or Console()
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


def _load(config: ForecastConfig, console: Console) -> _Models:
    directory = _adapter_directory(config.adapter)
    if directory is None:
        bundle = BaseChoice(model=config.base_model or PACKAGED).load("cpu")
        console.print(
            f"no adapter in {DEFAULT_ADAPTERS}/: base {bundle.base.repo} alone, which knows no calendar"
        )
        return _Models(
            bundle=bundle, adapted=None, name="", context=bundle.context, shortest=SHORTEST_HISTORY
        )
    adapter = read_adapter(directory)
    choice = BaseChoice(model=config.base_model) if config.base_model else base_named_by(adapter.manifest)
    bundle = choice.load("cpu")
    console.print(f"base {bundle.base.repo}, adapter {directory}", highlight=False)
    return _Models(
        bundle=bundle,
        adapted=_merged(adapter, bundle),
        name=directory.resolve().name,
        context=min(bundle.context, adapter.manifest.normalization.context),
        shortest=adapter.manifest.normalization.min_history,
    )


def _adapter_directory(asked: Path | None) -> Path | None:
    """The version to load; None where nothing was asked for and nothing has been published."""
    root = asked or DEFAULT_ADAPTERS
    if (root / MANIFEST).exists():
        return root
    version = latest_version(root)
    if version is None and asked is not None:
        raise AdapterError(
            f"{asked} holds no adapter: expected a {MANIFEST} or a LATEST.json; train one with event-lora"
        )
    return version


def _merged(adapter: Adapter, bundle: Bundle) -> Kronos:
    model = merge(attach(adapter, bundle))
    check_canary(model, adapter.manifest.canary)
    return model


def _forecast(config: ForecastConfig, series: _Series, models: _Models) -> Forecast:
    base = _prepare(config, series, models, None)
    told = _prepare(config, series, models, series.tables)
    families = _families(told, config.horizon)
    fans = [_fan("base, which knows no calendar", models.bundle.model, base, config, models)]
    if models.adapted is not None:
        fans.append(_fan(f"adapter {models.name}", models.adapted, told, config, models))
    if config.scenario:
        if models.adapted is None:
            raise ConfigError("--scenario needs an adapter: the base knows no events")
        days = [day.item() for day in told.future_dates]
        scheduled = {day: [name for name, _ in on] for day, on in zip(days, families, strict=True)}
        scenario = parse_suppositions(config.scenario, scheduled)
        supposed = _prepare(config, series, models, series.tables, scenario)
        fans.append(_fan(f"what if {', '.join(config.scenario)}", models.adapted, supposed, config, models))
    return Forecast(
        symbol=config.symbol,
        origin=series.bars["ts"].iloc[-1].date(),
        as_of=told.as_of,
        missing_leaders=told.missing_leaders,
        dates=told.future_dates,
        families=families,
        fans=tuple(fans),
    )


def _prepare(
    config: ForecastConfig,
    series: _Series,
    models: _Models,
    tables: EventTables | None,
    scenario: Scenario | None = None,
) -> Prepared:
    return prepare_history(
        series.bars,
        series.asset_class,
        tables,
        horizon=config.horizon,
        longest=models.context - config.horizon,
        min_history=models.shortest,
        seed=config.seed,
        scenario=scenario,
    )


def _fan(label: str, model: Kronos, prepared: Prepared, config: ForecastConfig, models: _Models) -> Bands:
    generated = generate(
        models.bundle.tokenizer,
        model,
        [prepared.history],
        horizon=config.horizon,
        paths=config.paths,
        sampling=Sampling(),
        context=models.context,
    )
    closes = to_prices(generated.bars[0], prepared)[:, :, 3]
    return Bands(label=label, last_close=prepared.last_close, closes=closes)


def _families(prepared: Prepared, horizon: int) -> tuple[Families, ...]:
    """What the adapter is told about each forecast bar: the last H rows of its event channels."""
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
        fans=result.fans,
        events=[(bar, names) for bar, names in high if names],
        later=series.later,
    )
