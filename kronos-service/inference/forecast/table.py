"""A forecast as lines on a terminal."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from kronos_service.events.taxonomy import IMPACT_WEIGHTS
from kronos_service.inference.forecast.bands import BANDS, Bands

Families = tuple[tuple[str, float], ...]
"""The event families on one bar, each with the weight of its impact."""

SYNTHETIC: Final = "SYNTHETIC"
"""What a forecast says that comes from the sample market alone."""
_IMPACTS = {weight: impact for impact, weight in IMPACT_WEIGHTS.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """What was forecast, from where, and what was known about the bars to come."""

    symbol: str
    origin: date
    """Session date of the last bar used; when it opened, if it is shorter than a day."""
    as_of: np.datetime64
    """Nothing that became known later (UTC) was used."""
    missing_leaders: tuple[str, ...]
    factors: tuple[float, ...]
    """(H,) by which the adapter's widths are recalibrated; () where they are as drawn."""
    dates: npt.NDArray[np.datetime64]
    """(H,) session dates of the forecast bars, or when they open."""
    families: tuple[Families, ...]
    """(H,) what is scheduled on each of them, as of the origin."""
    bands: tuple[Bands, ...]
    """The base, then the adapter, then the adapter in the scenario."""
    is_synthetic: bool
    """Whether model or bars are of a sample market alone."""
    moved: tuple[tuple[int, str], ...] = ()
    """First bar that each supposed value of the scenario moves (0 to H - 1), and that value in words."""


def print_forecast(console: Console, forecast: Forecast) -> None:
    """Print the origin, and a table of bands for every model; the last one names the events on each bar."""
    moment = np.datetime_as_string(forecast.as_of, unit="m").replace("T", " ")
    close = _price(forecast.bands[0].last_close)
    opened = isinstance(forecast.origin, datetime)
    when = f"in the bar of {forecast.origin:%Y-%m-%d %H:%M} UTC" if opened else f"on {forecast.origin}"
    console.print(f"{forecast.symbol} closed at {close} {when}", highlight=False)
    console.print(f"forecast with what was known at {moment} UTC", highlight=False)
    if forecast.missing_leaders:
        console.print(f"not known by then, so taken as unmoved: {', '.join(forecast.missing_leaders)}")
    if forecast.factors:
        shown = " ".join(f"{factor:.2f}" for factor in forecast.factors)
        console.print(f"the adapter's widths are recalibrated, times {shown}", highlight=False)
    if forecast.is_synthetic:
        console.print(f"{SYNTHETIC}: made from a sample market, so it says nothing of any real one")
    for one in forecast.bands:
        console.print(_table(forecast, one, with_events=one is forecast.bands[-1]))


def _table(forecast: Forecast, bands: Bands, *, with_events: bool) -> Table:
    title = f"Close: {bands.label}" + (f", {SYNTHETIC}" if forecast.is_synthetic else "")
    table = Table("date", "median", title=title, title_justify="left", box=SIMPLE)
    names = list(reversed(BANDS))
    for name in names:
        table.add_column(f"{name} band")
    if with_events:
        table.add_column("events (impact)")
    intervals = [bands.band(name) for name in names]
    for bar, median in enumerate(bands.median()):
        ends = [f"{_price(low[bar])} - {_price(high[bar])}" for low, high in intervals]
        events = [", ".join(_event(*one) for one in forecast.families[bar])] if with_events else []
        table.add_row(str(forecast.dates[bar]).replace("T", " "), _price(median), *ends, *events)
    return table


def _event(family: str, weight: float) -> str:
    return f"{family} ({_IMPACTS[weight]})"


def _price(value: float) -> str:
    """Five significant digits, and no fewer than the whole number has."""
    digits = max(0, 4 - int(np.floor(np.log10(value))))
    return f"{value:,.{digits}f}"
