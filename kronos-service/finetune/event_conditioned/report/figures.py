"""The figures of a report: each a list of panels. Two exist as PNG files too, which travel alone."""

from collections.abc import Mapping, Sequence
from datetime import date
from io import BytesIO
from textwrap import wrap
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kronos_service.finetune.event_conditioned.report.drawing import (
    EVENT,
    INK,
    LOOKS,
    MUTED,
    STYLE,
    Drawing,
    Hit,
    columns,
    draw,
    line,
    panel,
)
from kronos_service.finetune.event_conditioned.report.tables import interval, limits, shown

ADAPTER: Final = "#0072b2"
CONTROL: Final = "#b84d00"
"""Colours of the PNG files, which have no theme: those of the pages in the light."""
FANS: Final = (("q05", "q95", 0.16), ("q10", "q90", 0.2), ("q25", "q75", 0.3))
"""Quantiles of the bands, from the widest, and how opaque each is on top of those below it."""


def loss_curves(epochs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Drawing]:
    """Fixed train subset, validation event and non-event days, per epoch and variant; dotted: the base."""
    titles = {
        "train/fixed_loss": "train (fixed subset, weighted)",
        "val/event_total": "validation, event days",
        "val/quiet_total": "validation, non-event days",
    }
    drawings = []
    with matplotlib.rc_context(STYLE):
        for key, title in titles.items():
            axes = panel()
            by_epoch: dict[int, list[str]] = {}
            for name, lines in epochs.items():
                line(axes, [one["epoch"] for one in lines], [one[key] for one in lines], name)
                for one in lines:
                    by_epoch.setdefault(int(one["epoch"]), []).append(f"{name} {one[key]:.4f}")
            # At epoch 0 every variant equals its base.
            untrained = next(iter(epochs.values()))[0][key]
            axes.axhline(untrained, color=LOOKS["base"].color, linestyle=LOOKS["base"].linestyle)
            axes.set(xlabel="epoch", ylabel="nats per target")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            texts = [
                f"epoch {at}: {', '.join(those)}, base {untrained:.4f}" for at, those in by_epoch.items()
            ]
            drawings.append(draw(axes, title, columns(by_epoch, texts)))
    return drawings


def event_day(day: Mapping[str, Any]) -> list[Drawing]:
    """A fan of base and of adapter around one event day, and what came; percent from the origin's close."""
    past, came = np.array(day["past"]), np.array(day["came"])
    steps, before = np.arange(len(came) + 1), np.arange(1 - len(past), 1)
    ends = [value for model in day["models"].values() for name in ("q05", "q95") for value in model[name]]
    lowest, highest = min(*ends, *past, *came), max(*ends, *past, *came)
    margin = 0.06 * (highest - lowest)
    drawings = []
    with matplotlib.rc_context(STYLE):
        for name, model in day["models"].items():
            axes, look = panel(height=3.1), LOOKS[name]
            for low, high, alpha in FANS:
                band = ([0, *model[low]], [0, *model[high]])
                axes.fill_between(steps, *band, color=look.color, alpha=alpha, linewidth=0)
            axes.plot(steps, [0, *model["q50"]], color=look.color, linestyle=look.linestyle, linewidth=2)
            axes.plot(before, past, color=INK, linewidth=1.2)
            axes.plot(steps[1:], came, color=INK, linestyle="none", marker=LOOKS["came"].marker, markersize=6)
            for bar, names in enumerate(day["events"], start=1):
                if names:
                    axes.axvline(bar, color=EVENT, linestyle=(0, (4, 3)), linewidth=1.1, zorder=0)
            axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
            axes.annotate("known", (-0.4, highest + margin), color=MUTED, ha="right", va="top", fontsize=9.5)
            axes.set_ylim(lowest - margin, highest + margin)
            axes.set(ylabel="% from the last known close")
            dates = [*day["past_dates"], *day["dates"]]
            places = [*before, *steps[1:]]
            every = -(-len(places) // 6)
            axes.set_xticks(places[::every], [_short(one) for one in dates[::every]])
            axes.grid(axis="x", visible=False)
            drawings.append(draw(axes, shown(name), _day_hits(day, model)))
    return drawings


def _day_hits(day: Mapping[str, Any], model: Mapping[str, Sequence[float]]) -> list[Hit]:
    texts = []
    for bar, (on, names) in enumerate(zip(day["dates"], day["events"], strict=True)):
        low, middle, high = (model[name][bar] for name in ("q05", "q50", "q95"))
        event = f" ({', '.join(map(shown, names))})" if names else ""
        said = f"median {middle:+.1f} %, 90 % of paths {low:+.1f} to {high:+.1f} %"
        texts.append(f"{on}{event}: {said}, came {day['came'][bar]:+.1f} %")
    return columns(range(1, len(texts) + 1), texts)


def _short(iso: str) -> str:
    """`3 Mar` of 2025-03-03."""
    on = date.fromisoformat(iso)
    return f"{on.day} {on:%b}"


def gains(found: Mapping[str, Mapping[str, Any]], reference: str) -> list[Drawing]:
    """A line per group of targets: its gain over the reference with the interval, and its number of dates."""
    with matplotlib.rc_context(STYLE):
        axes = panel(height=0.75 + 0.29 * len(found))
        axes.axvline(0, color=MUTED, linewidth=1)
        hits = []
        for place, (name, gain) in enumerate(found.items()):
            _gain(axes, place, gain, LOOKS["adapter"].color)
            size = f"{gain['targets']} targets on {gain['dates']} dates"
            text = f"{name}: {gain['nats']:+.4f} nats {interval(*limits(gain))}, {size}"
            hits.append(Hit(y=(place - 0.5, place + 0.5), text=text))
        axes.set_xlabel(f"gain over the {reference} (nats)", loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _names(axes, [_label(name, gain["dates"]) for name, gain in found.items()])
        return [draw(axes, hits=hits)]


def _label(name: str, dates: int) -> str:
    """A group and its dates, in lines of a width that leaves room for its interval."""
    return "\n".join(wrap(f"{name} ({dates})", 22))


def ablation(found: Mapping[str, Any]) -> list[Drawing]:
    """Gains of each variant over the control and over the adapter, on event and on non-event targets."""
    drawings = []
    with matplotlib.rc_context(STYLE):
        for reference in ("control", "adapter"):
            axes = panel(height=1 + 0.42 * len(found["arms"]))
            drawn = _ablation(axes, found, reference, LOOKS["adapter"].color, LOOKS["base"].color)
            hits = [Hit(y=(at - 0.12, at + 0.12), text=text) for at, text in drawn]
            drawings.append(draw(axes, f"gain over the {reference}", hits))
    return drawings


def ablation_png(found: Mapping[str, Any]) -> bytes:
    """The same as a PNG file, in colours of its own."""
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(found["arms"])), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, reference in zip(panels, ("control", "adapter"), strict=True):
        _ablation(axes, found, reference, ADAPTER, CONTROL)
        axes.set_title(f"gain over the {reference}", loc="left")
    for marker, color, group in (("o", ADAPTER, "event"), ("s", CONTROL, "non-event")):
        panels[0].plot([], [], marker, color=color, label=f"{group} targets")
    panels[0].legend(loc="best", frameon=False)
    return _png(figure)


def _ablation(
    axes: Axes, found: Mapping[str, Any], reference: str, event: str, quiet: str
) -> list[tuple[float, str]]:
    """A line per variant, its event targets above its non-event targets; returns places and their words."""
    axes.axvline(0, color="0.5", linewidth=1)
    drawn = []
    for group, shift, color, marker in (("event", -0.12, event, "o"), ("quiet", 0.12, quiet, "s")):
        for place, one in enumerate(found["arms"]):
            if gain := one[group][f"over_{reference}"]:
                _gain(axes, place + shift, gain, color, marker=marker)
                text = f"{one['name']}, {shown(group)}: {gain['nats']:+.4f} nats {interval(*limits(gain))}"
                drawn.append((place + shift, text))
    axes.set_xlabel("nats per target, 95 % interval over dates")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _names(axes, [one["name"] for one in found["arms"]])
    return drawn


def forest_png(gains: Mapping[str, Mapping[str, Any]], warnings: Sequence[str]) -> bytes:
    """`forest_figure` as a PNG file: it travels without its page, so the warnings stand in it."""
    return _png(forest_figure(gains, warnings))


def forest_figure(gains: Mapping[str, Mapping[str, Any]], warnings: Sequence[str]) -> Figure:
    """The adapter's pooled gains over the control: a line per group with its interval and number of dates."""
    lines = [line for warning in warnings for line in wrap(warning, 90)]
    figure = Figure(figsize=(9, 0.9 + 0.27 * len(gains) + 0.15 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.set_title("\n".join(lines), loc="left", fontsize=8, color="#a82a1e")
    axes.axvline(0, color="0.5", linewidth=1)
    for place, gain in enumerate(gains.values()):
        _gain(axes, place, gain, ADAPTER)
    axes.set_xlabel("gain over the control, nats per target, 95 % interval over dates")
    _names(axes, [f"{name} ({gain['dates']})" for name, gain in gains.items()])
    return figure


def crps_by_step(steps: Mapping[str, Mapping[str, float]]) -> list[Drawing]:
    """Mean CRPS of each model per forecast bar, as a share of the random walk's."""
    with matplotlib.rc_context(STYLE):
        axes = panel()
        walk = np.array(list(steps["random_walk"].values()))
        bars = [int(step) for step in steps["random_walk"]]
        shares = {
            name: 100 * np.array(list(steps[name].values())) / walk for name in ("base", "zeroed", "adapter")
        }
        for name, share in shares.items():
            line(axes, bars, share, name)
        axes.axhline(100, color=LOOKS["random_walk"].color, linestyle=LOOKS["random_walk"].linestyle)
        axes.set(xlabel="bars ahead", ylabel="% of a random walk's")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        texts = [
            f"{bar} ahead: "
            + ", ".join(f"{shown(name)} {share[place]:.0f} %" for name, share in shares.items())
            for place, bar in enumerate(bars)
        ]
        return [draw(axes, hits=columns(bars, texts))]


def calibration(calibrations: Mapping[str, Mapping[str, Any]]) -> list[Drawing]:
    """PIT histograms of base and adapter, and how far each quantile is from its share of outcomes."""
    names = ("base", "adapter")
    drawings = pits({f"PIT, {name}": calibrations[name]["pit"] for name in names})
    with matplotlib.rc_context(STYLE):
        axes = panel()
        levels = [float(level[1:]) for level in calibrations["adapter"]["below"]]
        below = {name: list(calibrations[name]["below"].values()) for name in ("random_walk", *names)}
        for name, shares in below.items():
            line(axes, levels, 100 * np.array(shares), name)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1)
        axes.set(xlabel="quantile, %", ylabel="% of outcomes below")
        hits = [
            Hit(
                x=(level - 4, level + 4),
                text=f"{level:g} % quantile: "
                + ", ".join(f"{shown(name)} {100 * shares[place]:.0f} %" for name, shares in below.items()),
            )
            for place, level in enumerate(levels)
        ]
        return [*drawings, draw(axes, "quantiles", hits)]


def pits(counts: Mapping[str, Sequence[int]]) -> list[Drawing]:
    """Where outcomes fell within each title's forecasts, in equal bins; the line: all bins alike."""
    shares = {title: 100 * np.array(found) / max(sum(found), 1) for title, found in counts.items()}
    highest = 1.08 * max(float(share.max()) for share in shares.values())
    drawings = []
    with matplotlib.rc_context(STYLE):
        for title, share in shares.items():
            axes, bins = panel(), len(share)
            edges = np.linspace(0, 1, bins + 1)
            look = LOOKS["base" if title.endswith("base") else "adapter"]
            axes.bar(edges[:-1], share, width=0.92 / bins, align="edge", color=look.color)
            axes.axhline(100 / bins, color=MUTED, linewidth=1)
            axes.grid(axis="x", visible=False)
            axes.set(xlabel="where the outcome fell", ylabel="% of outcomes", ylim=(0, highest))
            hits = [
                Hit(x=(low, high), text=f"{low:.1f} to {high:.1f}: {count} outcomes, {part:.0f} %")
                for low, high, count, part in zip(edges[:-1], edges[1:], counts[title], share, strict=True)
            ]
            drawings.append(draw(axes, title, hits))
    return drawings


def event_study(study: Mapping[str, Mapping[str, Any]]) -> list[Drawing]:
    """A panel per family: dispersion of a bar by its distance from the event, base, adapter and what came."""
    highest = max(
        value
        for offsets in study.values()
        for one in offsets.values()
        for value in (one["realised"], one["models"]["base"], one["models"]["adapter"])
    )
    drawings = []
    with matplotlib.rc_context(STYLE):
        for family, offsets in study.items():
            axes = panel(height=2.1)
            places = sorted(map(int, offsets))
            found = [offsets[str(place)] for place in places]
            came, marker = [one["realised"] for one in found], LOOKS["came"].marker
            axes.plot(places, came, color=INK, linestyle="none", marker=marker)
            for name in ("base", "adapter"):
                line(axes, places, [one["models"][name] for one in found], name)
            axes.axvline(0, color=EVENT, linewidth=1, linestyle=(0, (4, 3)))
            axes.set(xlabel="bars from the event's bar", ylabel="20-day volatilities")
            axes.set(xticks=range(-3, 4), ylim=(0, 1.08 * highest))
            texts = [
                f"{place:+d}: base {one['models']['base']:.2f}, adapter {one['models']['adapter']:.2f}, "
                f"came {one['realised']:.2f} ({one['targets']})"
                for place, one in zip(places, found, strict=True)
            ]
            title = f"{family} ({offsets.get('0', {'targets': 0})['targets']})"
            drawings.append(draw(axes, title, columns(places, texts)))
    return drawings


def _gain(axes: Axes, place: float, gain: Mapping[str, Any], color: str, marker: str = "o") -> None:
    """A dot with its 95 % interval; hollow where there are so few dates that there is none."""
    low, high = limits(gain)
    face = "none"
    if low is not None and high is not None:
        face = color
        axes.plot([low, high], [place, place], color=color, linewidth=2.2, alpha=0.45)
    axes.plot([gain["nats"]], [place], marker, color=color, markerfacecolor=face, markersize=5)


def _names(axes: Axes, names: Sequence[str]) -> None:
    """A named line per place, from the top."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()
