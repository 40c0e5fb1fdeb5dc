"""The figures of a report as inline SVG, in the colours of the page, so that they follow its theme."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kronos_service.finetune.event_conditioned.report.tables import MODEL_NAMES

INK: Final = "#000001"
MUTED: Final = "#000002"
RULE: Final = "#000003"
COLORS: Final[Mapping[str, str]] = {
    "adapter": "#000004",
    "base": "#000005",
    "zeroed": "#000006",
    "control": "#000007",
    "placebo": "#000008",
    "random_walk": "#000009",
    "realised": INK,
}
VARIABLES: Final[Mapping[str, str]] = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    **{color: f"--{name.replace('_', '-')}" for name, color in COLORS.items() if name != "realised"},
}
"""Drawn with colours that stand for the page's variables, and replaced by them afterwards."""
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
WIDTH: Final = 9.0
"""Inches of every figure; the page scales them to its own width."""


def loss_curves(epochs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Fixed train subset, validation event and quiet days, per epoch and arm; dotted: the untrained base."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, 3, height=2.9)
        titles = {
            "train/fixed_loss": "train (fixed subset, weighted)",
            "val/event_total": "validation, event days",
            "val/quiet_total": "validation, quiet days",
        }
        for panel, (key, title) in zip(axes, titles.items(), strict=True):
            for arm, lines in epochs.items():
                panel.plot(
                    [line["epoch"] for line in lines],
                    [line[key] for line in lines],
                    color=COLORS[arm],
                    label=MODEL_NAMES[arm],
                )
            panel.axhline(
                next(iter(epochs.values()))[0][key], color=COLORS["base"], linestyle=":", label="base"
            )
            panel.set(title=title, xlabel="epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("nats per target")
        return _svg(figure, legend=axes[0])


def dots(rows: Sequence[tuple[str, float, float | None, float | None]], xlabel: str) -> str:
    """One line per (name, figure, low, high): a dot with its 95 % interval, against zero."""
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = _panels(1, 1, height=0.75 + 0.27 * len(rows))
        for place, (_, value, low, high) in enumerate(rows):
            if low is not None and high is not None:
                panel.plot([low, high], [place, place], color=COLORS["adapter"], linewidth=2.2, alpha=0.45)
            panel.plot([value], [place], "o", color=COLORS["adapter"], markersize=5)
        panel.axvline(0, color=MUTED, linewidth=1)
        panel.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
        panel.set_yticks(range(len(rows)), [name for name, *_ in rows])
        panel.grid(axis="y", visible=False)
        panel.spines["left"].set_visible(False)
        return _svg(figure)


def crps_by_step(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Mean CRPS of each model per forecast bar, as a share of the random walk's."""
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = _panels(1, 1, height=2.9)
        walk = np.array(list(steps["random_walk"].values()))
        bars = [int(step) for step in steps["random_walk"]]
        for name in ("base", "zeroed", "adapter"):
            panel.plot(
                bars,
                100 * np.array(list(steps[name].values())) / walk,
                color=COLORS[name],
                marker="o",
                markersize=3.5,
                label=MODEL_NAMES[name],
            )
        panel.axhline(100, color=COLORS["random_walk"], linestyle=":", label=MODEL_NAMES["random_walk"])
        panel.set(xlabel="bars ahead", ylabel="CRPS, % of the random walk's")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, legend=panel)


def calibration(calibrations: Mapping[str, Mapping[str, Any]]) -> str:
    """PIT histograms of base and adapter, and how far each quantile is from its share of outcomes."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, 3, height=2.9)
        highest = 0.0
        for panel, name in zip(axes[:2], ("base", "adapter"), strict=True):
            counts = np.array(calibrations[name]["pit"], dtype=np.float64)
            share = 100 * counts / counts.sum()
            highest = max(highest, share.max())
            edges = np.linspace(0, 1, len(counts) + 1)
            panel.bar(edges[:-1], share, width=0.092, align="edge", color=COLORS[name])
            panel.axhline(100 / len(counts), color=MUTED, linewidth=1)
            panel.grid(axis="x", visible=False)
            panel.set(title=f"PIT, {MODEL_NAMES[name]}", xlabel="where the outcome fell")
        axes[0].set(ylabel="% of outcomes", ylim=(0, 1.08 * highest))
        axes[1].set(ylim=(0, 1.08 * highest))
        for name in ("random_walk", "base", "adapter"):
            below = calibrations[name]["below"]
            levels = [float(level[1:]) for level in below]
            axes[2].plot(
                levels,
                100 * np.array(list(below.values())),
                color=COLORS[name],
                marker="o",
                markersize=3.5,
                label=MODEL_NAMES[name],
            )
        axes[2].plot([0, 100], [0, 100], color=MUTED, linewidth=1)
        axes[2].set(title="quantiles", xlabel="quantile, %", ylabel="% of outcomes below")
        return _svg(figure, legend=axes[2])


def event_study(study: Mapping[str, Mapping[str, Any]]) -> str:
    """A panel per family: dispersion of a bar by its distance from the event, base, adapter and what came."""
    with matplotlib.rc_context(STYLE):
        columns = 4
        rows = -(-len(study) // columns)
        figure, axes = _panels(rows, columns, height=0.6 + 1.75 * rows, sharey=True)
        for panel, (family, offsets) in zip(axes, study.items(), strict=False):
            places = sorted(map(int, offsets))
            found = [offsets[str(place)] for place in places]
            panel.plot(
                places,
                [one["realised"] for one in found],
                color=COLORS["realised"],
                linestyle="none",
                marker="_",
                markersize=9,
                label="what came (root mean square)",
            )
            for name in ("base", "adapter"):
                panel.plot(
                    places,
                    [one["models"][name] for one in found],
                    color=COLORS[name],
                    marker="o",
                    markersize=3,
                    label=f"forecast, {MODEL_NAMES[name]}",
                )
            panel.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
            panel.set_title(f"{family.replace('_', ' ')} ({offsets.get('0', {'targets': 0})['targets']})")
            panel.set_xticks(range(-3, 4))
            panel.set_ylim(bottom=0)
        for panel in axes[len(study) :]:
            panel.set_visible(False)
        figure.supxlabel("bars from the event's bar", fontsize=9, color=MUTED)
        figure.supylabel("in 20-day volatilities", fontsize=9, color=MUTED)
        return _svg(figure, legend=axes[0])


def _panels(rows: int, columns: int, *, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def _svg(figure: Figure, legend: Axes | None = None) -> str:
    """The figure as an `<svg>` element without ids, metadata or fixed size."""
    if legend is not None:
        handles, labels = legend.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=1.6)
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg)
    svg = re.sub(r' id="[A-Za-z]+[A-Za-z0-9.]*_\d+"', "", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui")
    return re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found.group()]})", svg)


_METADATA: Final = ("Date", "Creator", "Format", "Type")
