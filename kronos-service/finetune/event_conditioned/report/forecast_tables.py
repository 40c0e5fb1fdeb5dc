"""Tables and a sentence about forecasts: how models score, the next bar against yardsticks, and the bars
around an event.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kronos_service.finetune.event_conditioned.evaluation.criteria import is_headline
from kronos_service.finetune.event_conditioned.report.tables import (
    GROUPS,
    NOTHING,
    YARDSTICK,
    Figures,
    Table,
    count,
    number,
    percent,
    shown,
)

SCORES: Final = ("CRPS", "pinball", "in 50 %", "in 80 %", "in 90 %", "direction", "spread")
DAYS: Final = ("tier1", "other_event", "quiet")


def forecast_scores(forecasts: Figures, *, steps: str) -> Table:
    """Every model's scores over event days, non-event days and all targets, for the first bar or all bars."""
    found = {one["group"]: one for one in forecast_groups(forecasts, steps, ("day", "all"))}
    rows = [
        (group, shown(model), *_scores(means), count(found[group]["targets"]))
        for group in GROUPS
        if group in found
        for model, means in found[group]["models"].items()
    ]
    return Table(
        title=f"Forecasts of {_bars(forecasts, steps)}",
        columns=("targets", "model", *SCORES, "count"),
        rows=rows,
        labels=2,
    )


def forecast_gains(forecasts: Figures, *, steps: str, by: Sequence[str]) -> Table:
    """How much lower the adapter's CRPS is than the others', per group of targets, with intervals."""
    against = ("base", "zeroed", "random_walk")
    sizes = ("targets", "origins", "dates")
    rows = [
        (
            one["group"],
            percent(one["models"]["adapter"]["crps"], 3),
            *(_crps_gain(one["gain"][name]) for name in against),
            *(count(one[size]) for size in sizes),
        )
        for one in forecast_groups(forecasts, steps, by)
    ]
    return Table(
        title=f"CRPS of the adapter against others, {_bars(forecasts, steps)}",
        columns=("targets", "adapter", *(f"over {shown(name)}" for name in against), "count", *sizes[1:]),
        rows=rows,
    )


def yardstick_verdict(forecasts: Figures) -> str:
    """Whether the adapter's CRPS of the next bar is below that of `har_events`, and on which days."""
    if "next_bar" not in forecasts:
        return "Not compared with har_events: this evaluation was made before there were yardsticks."
    cells = [(day, what, gain) for day, what, _, gain in _against_yardstick(forecasts["next_bar"])]
    if not cells:
        return "Not compared with har_events: it has no training bars of these symbols."

    def those(verdict: str) -> str:
        found = [f"{what} on {shown(day)} days" for day, what, gain in cells if _judged(gain) == verdict]
        return ", ".join(found)

    better, worse, few = (those(verdict) for verdict in ("better", "worse", "too few"))
    start = f"The adapter beats har_events: {better}." if better else "The adapter does not beat har_events."
    return " ".join(
        [start]
        + ([f"It is worse: {worse}."] if worse else [])
        + ([f"Too few forecasts to say: {few}; make more with evaluate --origins."] if few else [])
    )


def against_yardstick(next_bar: Figures) -> Table:
    """The adapter's CRPS of the next bar against `har_events`, per kind of day."""
    rows = []
    for day, what, group, gain in _against_yardstick(next_bar):
        means = (group["models"][name][f"{what}_crps"] for name in (YARDSTICK, "adapter"))
        limits = NOTHING if gain["low"] is None else f"[{100 * gain['low']:+.3f}, {100 * gain['high']:+.3f}]"
        cells = (*(percent(mean, 3) for mean in means), f"{100 * gain['mean']:+.3f}", limits, _judged(gain))
        rows.append((day, what, *cells, count(gain["targets"]), count(gain["dates"])))
    return Table(
        title="CRPS of the next bar, adapter against har_events",
        columns=("targets", "of its", YARDSTICK, "adapter", "gain", "95 % interval", "", "count", "dates"),
        rows=rows,
        labels=2,
    )


def next_bar_scores(next_bar: Figures) -> Table:
    """Every model's and yardstick's scores of the next bar's return and range, per kind of day."""
    scores = ("crps", "log_score", "qlike")
    rows = []
    for day in (*DAYS, "all"):
        for group in _next_bar_groups(next_bar, day):
            for model, means in group["models"].items():
                returns, ranges = (
                    [means[f"{what}_{name}"] for name in scores] for what in ("return", "range")
                )
                cells = (
                    percent(returns[0], 3),
                    *(number(value) for value in returns[1:]),
                    percent(ranges[0], 2),
                    *(number(value) for value in ranges[1:]),
                )
                rows.append((day, shown(model), *cells, count(group["targets"])))
    columns = ("return CRPS", "log score", "QLIKE", "range CRPS", "log score", "QLIKE")
    return Table(
        title="Return and range of the next bar",
        columns=("targets", "model", *columns, "count"),
        rows=rows,
        labels=2,
    )


def _against_yardstick(next_bar: Figures) -> Iterator[tuple[str, str, Figures, Figures]]:
    """Kind of day, return or range, the group's figures, and the adapter's gain in CRPS."""
    for day in DAYS:
        for group in _next_bar_groups(next_bar, day):
            gains = group["gain"].get("adapter", {}).get(YARDSTICK, {})
            for what in ("return", "range"):
                if gain := gains.get(f"{what}_crps"):
                    yield day, what, group, gain


def _next_bar_groups(next_bar: Figures, day: str) -> list[Figures]:
    """The group of that kind of day over all asset classes, or none."""
    return [one for one in next_bar["groups"] if (one["group"], one["asset_class"]) == (day, "all")]


def _judged(gain: Figures) -> str:
    if gain["low"] is None or not is_headline(gain["targets"], gain["dates"]):
        return "too few"
    if gain["low"] > 0:
        return "better"
    return "worse" if gain["high"] < 0 else "undecided"


def forecast_groups(forecasts: Figures, steps: str, by: Sequence[str]) -> list[Figures]:
    """The groups of targets that were formed `by` day, family and so on, with "1" or "all" forecast bars."""
    return [one for one in forecasts["groups"] if one["by"] in by and one["steps"] == steps]


def event_study(study: Mapping[str, Figures]) -> Table:
    """Forecast dispersion of base and adapter and what came, on the event's bar and around it."""
    models = ("base", "zeroed", "adapter")
    rows = [
        (
            family,
            offset if offset == "0" else f"{int(offset):+d}",
            *(f"{one['models'][name]:.2f}" for name in models),
            f"{one['realised']:.2f}",
            count(one["targets"]),
        )
        for family, offsets in study.items()
        for offset, one in sorted(offsets.items(), key=lambda item: int(item[0]))
    ]
    return Table(
        title="Dispersion of one bar, in 20-day volatilities",
        columns=("family", "bars from event", *models, "came", "count"),
        rows=rows,
        labels=2,
    )


def _scores(means: Figures) -> tuple[str, ...]:
    """The cells of the columns in `SCORES`."""
    pinball = [value for name, value in means.items() if name.startswith("pinball_")]
    return (
        percent(means["crps"], 3),
        percent(sum(pinball) / len(pinball), 3),
        *(percent(means[f"inside_{name}"], 0) for name in ("50", "80", "90")),
        percent(means["hit"], 0),
        percent(means["spread"] or None, 2),
    )


def _crps_gain(gain: Figures) -> str:
    known = gain["low"] is not None and gain["high"] is not None
    spread = f"[{100 * gain['low']:+.3f}, {100 * gain['high']:+.3f}]" if known else "(too few dates)"
    return f"{100 * gain['crps']:+.3f} {spread}"


def _bars(forecasts: Figures, steps: str) -> str:
    return "the next bar" if steps == "1" else f"the next {forecasts['horizon']} bars"
