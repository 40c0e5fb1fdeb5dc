"""A fan chart of forecasts side by side, with the scheduled events, as a file for a README or a mail.

The colours of the page in the light, none of which carries meaning alone: panels are titled, medians dashed,
bars hatched, events named, and a what-if is marked on the first bar that it moves.
Letters: N sample paths, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kronos_service.events.sessions import session_dates
from kronos_service.events.taxonomy import IMPACT_WEIGHTS
from kronos_service.inference.forecast.bands import BANDS, Bands, Floats
from kronos_service.inference.forecast.series import Series
from kronos_service.inference.forecast.table import SYNTHETIC, Forecast
from kronos_shared.atomic import why_not_writable
from kronos_shared.cli import did_you_mean
from kronos_shared.errors import KronosError

Dates = npt.NDArray[np.datetime64]

COLOURS: Final = ("#6b6b6b", "#0072b2", "#b84d00")
"""Base, adapted, what-if."""
DASHES: Final[tuple[Any, ...]] = ((0, (1, 1)), "-", (0, (5, 2)))
"""Of their medians."""
EVENT_COLOUR: Final = "#9c3f6c"
INK: Final = "#1c2024"
FEW_BARS: Final = 12
"""With more forecast bars than these, the names of events stand upright."""
SHOWN_PAST: Final = 24
"""Bars before the origin."""
DPI: Final = 100
_LEGEND: Final = {"fontsize": 8, "frameon": False}


class ChartError(KronosError):
    """A chart that cannot be written where it was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """What is drawn: P past bars, H future bars, and one panel for each model's bands."""

    title: str
    past_dates: Dates
    """(P,), ending with the origin."""
    past_closes: Floats
    """(P,)"""
    dates: Dates
    """(H,)"""
    bands: Sequence[Bands]
    events: Sequence[tuple[int, str]]
    """Forecast bar (0 to H - 1), and what is scheduled on it, a line each."""
    later: Floats
    """(up to H,) closes that are known today, where the origin lies in the past."""
    moved: Sequence[tuple[int, str]] = ()
    """First bar that each supposed value moves, and that value; for the last panel."""


def require_drawable(path: Path) -> None:
    """Check that a chart can be written to a path.

    Raises:
        ChartError: an unknown suffix, or a path that cannot be written.
    """
    known = [f".{name}" for name in Figure().canvas.get_supported_filetypes()]
    if path.suffix.lower() not in known:
        near = did_you_mean(path.suffix, known)
        got = path.suffix or "no suffix"
        raise ChartError(f"--plot {path} has {got}{near}; name a .png, .svg or .pdf")
    why = f"{path} is a directory" if path.is_dir() else why_not_writable(path.parent)
    if why:
        raise ChartError(f"--plot {path} cannot be written: {why}")


def chart_of(forecast: Forecast, series: Series, later: Floats) -> Chart:
    """The chart of a symbol's forecast, with its last bars and the closes that came `later`."""
    past = series.bars[-SHOWN_PAST:]
    high = [
        (bar, "\n".join(name for name, weight in on if weight == IMPACT_WEIGHTS["high"]))
        for bar, on in enumerate(forecast.families)
    ]
    origin, synthetic = forecast.origin, f"{SYNTHETIC}: " if forecast.is_synthetic else ""
    return Chart(
        title=f"{synthetic}{forecast.symbol}: {len(forecast.dates)} bars after {origin.day} {origin:%B %Y}",
        past_dates=session_dates(past["ts"], series.interval),
        past_closes=past["close"].to_numpy(dtype=np.float64),
        dates=forecast.dates,
        bands=forecast.bands,
        events=[(bar, names) for bar, names in high if names],
        later=later,
        moved=forecast.moved,
    )


def draw_chart(chart: Chart, path: Path) -> None:
    """Write the chart; the suffix of the path (.png, .svg, .pdf) is its format.

    Raises:
        ChartError: an unknown suffix, or a path that cannot be written.
    """
    figure = draw(chart)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise ChartError(f"cannot write the chart to {path}: {error}; name a .png, .svg or .pdf") from None


class FanChart(Figure):
    """A figure that a notebook shows without pyplot, whatever backend is chosen."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png", dpi=DPI)
        return image.getvalue()


def draw(chart: Chart) -> FanChart:
    """The chart as a figure."""
    figure = FanChart(figsize=(4.6 * max(len(chart.bands), 2), 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.7, 1))[:, 0]
    panels = top.subplots(1, len(chart.bands), sharey=True, squeeze=False)[0]
    for number, (axes, bands) in enumerate(zip(panels, chart.bands, strict=True)):
        _draw_bands(axes, chart, bands, number)
    _draw_moved(panels[-1], chart)
    panels[0].set_ylabel("close (quote currency)", fontsize=9)
    _draw_widths(bottom.subplots(), chart)
    top.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", **_LEGEND, ncols=6)
    bottom.legend(*bottom.axes[0].get_legend_handles_labels(), loc="outside lower center", **_LEGEND, ncols=3)
    figure.suptitle(chart.title, fontsize=12, fontweight="bold", color=INK)
    return figure


def _draw_moved(axes: Axes, chart: Chart) -> None:
    """A mark on the lower edge at each bar that is the first to know of a supposed value."""
    edge = axes.get_xaxis_transform()
    for bar, supposed in groupby(chart.moved, key=lambda one: one[0]):
        values = "\n".join(value for _, value in supposed)
        is_late = bar >= len(chart.dates) / 2
        axes.plot(
            [bar + 1], [0.03], "^", transform=edge, color=COLOURS[-1], markeredgecolor="white", markersize=9
        )
        axes.text(
            bar + (0.5 if is_late else 1.5),
            0.03,
            f"{values}\nmoves this bar first",
            transform=edge,
            ha="right" if is_late else "left",
            va="bottom",
            fontsize=8,
            color=COLOURS[-1],
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
        )


def _draw_bands(axes: Axes, chart: Chart, bands: Bands, number: int) -> None:
    colour = COLOURS[number]
    past = np.arange(1 - len(chart.past_closes), 1)
    steps = np.arange(len(chart.dates) + 1)
    origin = bands.last_close
    for name, alpha in zip(BANDS, (0.22, 0.42), strict=True):
        low, high = (np.concatenate([[origin], end]) for end in bands.band(name))
        axes.fill_between(
            steps, low, high, color=colour, alpha=alpha, linewidth=0, label=f"{name} of the paths"
        )
    median = np.concatenate([[origin], bands.median()])
    axes.plot(steps, median, color=colour, linewidth=2, linestyle=DASHES[number], label="median")
    axes.plot(past, chart.past_closes, color=INK, linewidth=1.2, label="close until the origin")
    if len(chart.later):
        came = np.concatenate([[origin], chart.later])
        axes.plot(steps[: len(came)], came, ":", color=INK, marker=".", linewidth=1.2, label="what came")
    for place, (bar, _) in enumerate(chart.events):
        label = "high-impact event" if place == 0 else None
        axes.axvline(bar + 1, color=EVENT_COLOUR, linestyle=(0, (4, 3)), linewidth=1, zorder=0, label=label)
    axes.set_title(bands.label, fontsize=10, color=colour, loc="left")
    _style(axes, np.concatenate([past, steps[1:]]), np.concatenate([chart.past_dates, chart.dates]), 7)


def _draw_widths(axes: Axes, chart: Chart) -> None:
    """Bars of each model's width per forecast bar, and below them what is scheduled."""
    steps = np.arange(1, len(chart.dates) + 1)
    share = 0.8 / len(chart.bands)
    for number, bands in enumerate(chart.bands):
        offset = (number - (len(chart.bands) - 1) / 2) * share
        axes.bar(
            steps + offset,
            bands.move_widths(),
            width=0.9 * share,
            color=COLOURS[number],
            hatch=("", "//", "..")[number],
            edgecolor="white",
            linewidth=0.5,
            label=bands.label,
        )
    axes.set_ylabel("90 % band of each\nbar's move, width (%)", fontsize=9)
    _style(axes, steps, chart.dates, 12)
    ceiling = 1.02 * axes.get_ylim()[1]
    turned = 90 if len(steps) > FEW_BARS else 0
    for bar, names in chart.events:
        axes.text(
            bar + 1, ceiling, names, ha="center", va="bottom", fontsize=8, color=EVENT_COLOUR, rotation=turned
        )


def _style(axes: Axes, positions: npt.NDArray[np.int64], dates: Dates, most_ticks: int) -> None:
    every = -(-len(positions) // most_ticks)
    shown = slice(None, None, every)
    axes.set_xticks(positions[shown], list(map(_tick, dates[shown].tolist())), fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(f"session date ({dates[-1].item():%Y})", fontsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _tick(day: date) -> str:
    clock = f"{day:\n%H:%M}" if isinstance(day, datetime) else ""
    return f"{day.day} {day:%b}{clock}"
