"""One symbol's bars, cut at the origin, and what a served model forecasts from them.

The forecast command and the Python front door share it; the service prepares and generates with the same two
functions of `model.generation.inputs`.
Letters: N sample paths, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from kronos_service.events.encoder import EventTables
from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.events.sessions import DAILY, Interval, Times, session_dates
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.inference.forecast.asked import Asked
from kronos_service.inference.forecast.bands import Bands, Floats
from kronos_service.inference.forecast.scenario_text import parse_scenario
from kronos_service.inference.forecast.table import Families, Forecast
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.generation.inputs import Prepared, forecast_prices, prepare_history
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.columns import CLOSE

ScenarioLike = str | Sequence[str] | Scenario
"""Texts such as 'cpi +2' (see `parse_scenario`), or what they mean."""
BASE_LABEL: Final = "base, which knows no calendar"


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One symbol, cut at the origin."""

    symbol: str
    bars: pd.DataFrame
    """Columns ts and `FEATURES`, ascending; the last one is the origin."""
    asset_class: str
    interval: Interval = DAILY


def prepare_series(
    series: Series,
    tables: EventTables | None,
    served: ServedModel,
    asked: Asked,
    scenario: Scenario | None = None,
) -> Prepared:
    """The series as the model reads it; raises as `prepare_history`. Without tables: for the plain base."""
    return prepare_history(
        series.bars,
        series.asset_class,
        tables,
        symbol=series.symbol,
        encoder=served.base.event_encoder,
        context=served.context,
        horizon=asked.horizon,
        seed=asked.seed,
        min_history=served.min_history,
        scenario=scenario,
        recalibration=served.recalibration if asked.recalibrated else None,
        interval=series.interval,
    )


def sample_paths(
    served: ServedModel, prepared: Sequence[Prepared], asked: Asked, *, base_only: bool = False
) -> list[Floats]:
    """Sample paths (N, H, 6) of each series, valid candles in its own units.

    Args:
        base_only: of the base without its adapter; `prepared` must show it no events.
    """
    return forecast_prices(
        served.base.tokenizer,
        served.base.model if base_only else served.model,
        prepared,
        horizon=asked.horizon,
        paths=asked.paths,
        sampling=Sampling(),
        context=served.context,
    )


def scheduled(prepared: Prepared, horizon: int, taxonomy: Taxonomy) -> tuple[Families, ...]:
    """What the adapter is shown about each forecast bar: the last H rows of its event channels."""
    assert prepared.history.events is not None
    rows = prepared.history.events[-horizon:, : len(taxonomy.families)].tolist()
    return tuple(
        tuple((name, weight) for name, weight in zip(taxonomy.families, row, strict=True) if weight)
        for row in rows
    )


def suppose(scenario: ScenarioLike, known: Prepared, horizon: int, taxonomy: Taxonomy) -> Scenario:
    """The scenario that texts such as 'cpi +2' mean on the forecast bars; raises ScenarioError."""
    if isinstance(scenario, Scenario):
        return scenario
    on_each = zip(known.future_dates, scheduled(known, horizon, taxonomy), strict=True)
    families = {day.item(): [name for name, _ in on] for day, on in on_each}
    return parse_scenario(texts_of(scenario), families, taxonomy)


def moved_bars(scenario: Scenario, dates: Times) -> tuple[tuple[int, str], ...]:
    """The bar after each supposed release or move, the first that knows of it, and what is supposed."""
    supposed = [("surprise", scenario.surprises), *scenario.leaders.items()]
    bars = {day.item(): bar for bar, day in enumerate(dates)}
    found = [
        (bars[day] + 1, f"{name} {z:+g} σ on {day.day} {day:%b}")
        for name, values in supposed
        for day, z in values.items()
    ]
    return tuple(sorted(found))


def texts_of(scenario: str | Sequence[str]) -> list[str]:
    """One text or several, as several."""
    return [scenario] if isinstance(scenario, str) else list(scenario)


def scenario_record(scenario: ScenarioLike) -> Any:
    """A scenario in plain JSON: its texts, or its values by date."""
    if not isinstance(scenario, Scenario):
        return texts_of(scenario)
    moves = {name: {str(day): z for day, z in of.items()} for name, of in scenario.leaders.items()}
    return {"surprises": {str(day): z for day, z in scenario.surprises.items()}, "leaders": moves}


def forecast_bands(
    series: Series,
    tables: EventTables,
    served: ServedModel,
    asked: Asked,
    scenario: ScenarioLike | None = None,
) -> Forecast:
    """Bands of the close: of the base, of its adapter where there is one, and of the adapter in the scenario.

    All draw with the same seed, so only the adapter and the events that it is shown make them differ.

    Raises:
        KronosError: anything the user can fix, named by its subclass.
    """
    known = prepare_series(series, tables, served, asked)
    if scenario and series.interval != DAILY:
        raise ScenarioError(f"what-ifs are by date, so {series.interval} bars have none: leave it out")
    told = {} if served.manifest is None else {f"adapter {served.version}": known}
    moved: tuple[tuple[int, str], ...] = ()
    if scenario:
        if served.manifest is None:
            raise ScenarioError("a scenario needs an adapter: the base knows no events")
        supposed = suppose(scenario, known, asked.horizon, tables.taxonomy)
        label = "the scenario" if isinstance(scenario, Scenario) else ", ".join(texts_of(scenario))
        moved = moved_bars(supposed, known.future_dates)
        told[f"what if {label}"] = prepare_series(series, tables, served, asked, supposed)
    base = sample_paths(served, [known.shown("none")], asked, base_only=True)
    adapted = [sample_paths(served, [prepared], asked)[0] for prepared in told.values()]
    return Forecast(
        symbol=series.symbol,
        origin=session_dates(series.bars["ts"].iloc[-1:], series.interval)[0].item(),
        as_of=known.as_of,
        missing_leaders=known.missing_leaders,
        factors=() if known.factors is None else tuple(known.factors.tolist()),
        dates=known.future_dates,
        families=scheduled(known, asked.horizon, tables.taxonomy),
        bands=tuple(
            Bands(label=label, last_close=known.last_close, closes=prices[..., CLOSE])
            for label, prices in zip((BASE_LABEL, *told), (*base, *adapted), strict=True)
        ),
        is_synthetic=served.is_synthetic,
        moved=moved,
    )
