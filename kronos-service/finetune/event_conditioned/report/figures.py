"""The figures of a report as inline SVG, in the colours of the page, so that they follow its theme."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from textwrap import wrap
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kronos_service.finetune.event_conditioned.report.tables import limits, shown

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
}
VARIABLES: Final[Mapping[str, str]] = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    **{color: f"--{name.replace('_', '-')}" for name, color in COLORS.items()},
}
"""matplotlib takes no CSS variables: it draws in colours that stand for them, and `_svg` replaces those."""
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
    "lines.markersize": 3.5,
}
WIDTH: Final = 9.0
"""Inches of every figure; the page scales them to its own width."""


def loss_curves(epochs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Fixed train subset, validation event and non-event days, per epoch and variant; dotted: the base."""
    titles = {
        "train/fixed_loss": "train (fixed subset, weighted)",
        "val/event_total": "validation, event days",
        "val/quiet_total": "validation, non-event days",
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, 3, height=2.9)
        for panel, (key, title) in zip(axes, titles.items(), strict=True):
            for name, lines in epochs.items():
                _line(
                    panel, [line["epoch"] for line in lines], [line[key] for line in lines], name, marker=""
                )
            # At epoch 0 every variant equals its base.
            untrained = next(iter(epochs.values()))[0][key]
            panel.axhline(untrained, color=COLORS["base"], linestyle=":", label="base")
            panel.set(title=title, xlabel="epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("nats per target")
        return _svg(figure, legend=axes[0])


def family_gains(gains: Mapping[str, Mapping[str, Any]], reference: str) -> str:
    """A line per event family: its gain over the reference with the interval, and its number of dates."""
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = _panels(1, 1, height=0.75 + 0.27 * len(gains))
        for place, gain in enumerate(gains.values()):
            _gain(panel, place, gain, COLORS["adapter"])
        panel.axvline(0, color=MUTED, linewidth=1)
        panel.set_xlabel(f"gain over the {reference}, nats per target")
        _names(panel, [f"{shown(name)} ({gain['dates']})" for name, gain in gains.items()])
        return _svg(figure)


def ablation(found: Mapping[str, Any]) -> str:
    """`ablation_figure` in the colours of the page."""
    with matplotlib.rc_context(STYLE):
        figure = ablation_figure(found, event=COLORS["adapter"], other=COLORS["base"])
        return _svg(figure, legend=figure.axes[0])


def ablation_png(found: Mapping[str, Any]) -> bytes:
    """`ablation_figure` as a PNG file, in colours of its own."""
    figure = ablation_figure(found, event="tab:red", other="tab:blue")
    figure.axes[0].legend(loc="best", frameon=False)
    return _png(figure)


def ablation_figure(found: Mapping[str, Any], *, event: str, other: str) -> Figure:
    """Gains over the control and over the adapter: a line per variant, its event targets (in the colour
    `event`) above its non-event targets (`other`).
    """
    names = [one["name"] for one in found["arms"]]
    figure, panels = _panels(1, 2, height=1.2 + 0.4 * len(names), sharey=True)
    for panel, reference in zip(panels, ("control", "adapter"), strict=True):
        panel.axvline(0, color="0.5", linewidth=1)
        for group, shift, color in (("event", -0.12, event), ("quiet", 0.12, other)):
            panel.plot([], [], "o", color=color, label=f"{shown(group)} targets")
            for place, one in enumerate(found["arms"]):
                if gain := one[group][f"over_{reference}"]:
                    _gain(panel, place + shift, gain, color)
        panel.set(title=f"gain over the {reference}", xlabel="nats per target, 95 % interval over dates")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        _names(panel, names)
    return figure


def forest(gains: Sequence[Mapping[str, Any]]) -> str:
    """`forest_figure` in the colours of the page, which shows the warnings itself."""
    with matplotlib.rc_context(STYLE):
        return _svg(forest_figure(gains, color=COLORS["adapter"]))


def forest_png(gains: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> bytes:
    """`forest_figure` as a PNG file: it travels without its page, so the warnings stand in it."""
    return _png(forest_figure(gains, warnings, color="tab:blue"))


def forest_figure(gains: Sequence[Mapping[str, Any]], warnings: Sequence[str] = (), *, color: str) -> Figure:
    """The adapter's pooled gains over the control: a line per group with its interval and number of dates."""
    chosen = [one for one in gains if (one["model"], one["over"]) == ("adapter", "control")]
    lines = [line for warning in warnings for line in wrap(warning, 90)]
    figure, (panel,) = _panels(1, 1, height=0.9 + 0.27 * len(chosen) + 0.15 * len(lines))
    panel.set_title("\n".join(lines), loc="left", fontsize=8, color="tab:red")
    panel.axvline(0, color="0.5", linewidth=1)
    for place, one in enumerate(chosen):
        _gain(panel, place, one["gain"], color)
    panel.set_xlabel("gain over the control, nats per target, 95 % interval over dates")
    _names(panel, [f"{shown(one['group'])} ({one['gain']['dates']})" for one in chosen])
    return figure


def crps_by_step(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Mean CRPS of each model per forecast bar, as a share of the random walk's."""
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = _panels(1, 1, height=2.9)
        walk = np.array(list(steps["random_walk"].values()))
        bars = [int(step) for step in steps["random_walk"]]
        for name in ("base", "zeroed", "adapter"):
            _line(panel, bars, 100 * np.array(list(steps[name].values())) / walk, name)
        panel.axhline(100, color=COLORS["random_walk"], linestyle=":", label=shown("random_walk"))
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
            panel.set(title=f"PIT, {name}", xlabel="where the outcome fell")
        for panel in axes[:2]:
            panel.set_ylim(0, 1.08 * highest)
        axes[0].set_ylabel("% of outcomes")
        for name in ("random_walk", "base", "adapter"):
            below = calibrations[name]["below"]
            levels = [float(level[1:]) for level in below]
            _line(axes[2], levels, 100 * np.array(list(below.values())), name)
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
                color=INK,
                linestyle="none",
                marker="_",
                markersize=9,
                label="what came (root mean square)",
            )
            for name in ("base", "adapter"):
                spread = [one["models"][name] for one in found]
                _line(panel, places, spread, name, label=f"forecast, {name}")
            panel.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
            panel.set_title(f"{shown(family)} ({offsets.get('0', {'targets': 0})['targets']})")
            panel.set_xticks(range(-3, 4))
            panel.set_ylim(bottom=0)
        for panel in axes[len(study) :]:
            panel.set_visible(False)
        figure.supxlabel("bars from the event's bar", fontsize=9, color=MUTED)
        figure.supylabel("in 20-day volatilities", fontsize=9, color=MUTED)
        return _svg(figure, legend=axes[0])


def _line(panel: Axes, x: Any, y: Any, name: str, *, label: str = "", marker: str = "o") -> None:
    """A model's line, in its colour and under its name."""
    panel.plot(x, y, color=COLORS[name], marker=marker, label=label or shown(name))


def _gain(panel: Axes, place: float, gain: Mapping[str, Any], color: str) -> None:
    """A dot with its 95 % interval."""
    low, high = limits(gain)
    if low is not None and high is not None:
        panel.plot([low, high], [place, place], color=color, linewidth=2.2, alpha=0.45)
    panel.plot([gain["nats"]], [place], "o", color=color, markersize=5)


def _names(panel: Axes, names: Sequence[str]) -> None:
    """A named line per place, from the top."""
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_yticks(range(len(names)), names)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)


def _panels(rows: int, columns: int, *, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def _svg(figure: Figure, legend: Axes | None = None) -> str:
    """The figure as an `<svg>` element without ids, metadata or fixed size."""
    if legend is not None:
        handles, labels = legend.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=1.6)
    out = StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg)
    svg = re.sub(r' id="[A-Za-z]+[A-Za-z0-9.]*_\d+"', "", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui")
    return re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found.group()]})", svg)
