"""Tables of text: the one place that decides how a number looks on a terminal, in a report and on a card.

The numbers are those of results.json, criteria.json, evaluation-<split>.json and ablation.json. `-` stands
where there is none.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kronos_service.finetune.event_conditioned.evaluation.criteria import is_headline
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.training.validation import LOSSES

Figures = Mapping[str, Any]

SCORES: Final = ("CRPS", "pinball", "in 50 %", "in 80 %", "in 90 %", "direction", "spread")
GAIN: Final = ("gain (nats)", "95 % interval", "gain (%)", "count", "dates")
GROUPS: Final = ("event", "quiet", "all")
DAYS: Final = ("tier1", "other_event", "quiet")
YARDSTICK: Final = "har_events"
"""What an adapter has to beat: it knows the days of tier-1 events, and prices."""
WORDS: Final = {
    "quiet": "non-event",
    "unknown": "not measured",
    "tier1": "tier 1",
    "other_event": "other event",
    YARDSTICK: YARDSTICK,
}
"""Keys of the JSON files that terminal and report show in other words."""
NOTHING: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of text; the first `labels` columns are names, the others numbers.

    terminal.py and page.html show it, with `WORDS` in the place of its keys; a model card has its Markdown.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int = 1

    @property
    def grouped(self) -> bool:
        """Whether several rows share a name in the first column."""
        return len({row[0] for row in self.rows}) < len(self.rows)

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        lines: Iterable[Sequence[str]] = (self.columns, ["---"] * len(self.columns), *self.rows)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def losses(summaries: Mapping[str, Figures], title: str) -> Table:
    """Mean token losses per group of targets and model, as `validation.summarize` gives them."""
    rows = [
        (group, model, *(number(means[name]) for name in LOSSES), count(means["targets"]))
        for group in GROUPS
        for model, summary in summaries.items()
        for means in (summary[group],)
    ]
    return Table(title=title, columns=("targets", "model", *LOSSES, "count"), rows=rows, labels=2)


def family_losses(families: Mapping[str, Figures], title: str) -> Table:
    """Total loss on the targets of each event family, adapter against base."""
    rows = []
    for name, base in families["base"].items():
        adapted = families["adapter"][name]["total"]
        change = f"{100 * (adapted / base['total'] - 1):+.2f} %"
        rows.append((name, number(base["total"]), number(adapted), change, count(base["targets"])))
    return Table(title=title, columns=("family", "base", "adapter", "change", "count"), rows=rows)


def gains(found: Mapping[str, Figures]) -> Table:
    """Gains over the control, keyed `<model>_<group>`, with their intervals."""
    rows = [(*name.rsplit("_", 1), *_gain(gain)) for name, gain in found.items()]
    return Table(title="Gain over the control", columns=("model", "targets", *GAIN), rows=rows, labels=2)


def family_gains(found: Mapping[str, Figures], title: str) -> Table:
    """Gains per event family with their intervals."""
    rows = [(name, *_gain(gain)) for name, gain in found.items()]
    return Table(title=title, columns=("family", *GAIN), rows=rows)


def criteria(judged: Sequence[Figures]) -> Table:
    """Each success criterion with its figure and verdict."""
    columns = ("criterion", "wanted", "figure", "verdict")
    rows = [(one["name"], one["wanted"], one["detail"], one["verdict"]) for one in judged]
    return Table(title="Success criteria", columns=columns, rows=rows, labels=4)


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


def ablation(found: Figures, group: str) -> Table:
    """Every variant of an ablation on event or non-event targets; `found` is what ablation.json holds."""
    rows = [
        (
            one["name"],
            number(one[group]["loss"]),
            *(_with_interval(one[group][other]) for other in ("over_control", "over_adapter")),
            ", ".join(_seed(seed, one[group]["by_seed"]) for seed in one["seeds"]) or NOTHING,
            count(one["trainable"]),
            f"{one['seconds'] / 60:.1f}",
        )
        for one in found["arms"]
    ]
    sizes = [gain for one in found["arms"] for gain in (one[group]["over_control"],) if gain]
    size = f"{count(sizes[0]['targets'])} targets on {count(sizes[0]['dates'])} dates, " if sizes else ""
    return Table(
        title=f"Ablation, {shown(group)} targets ({size}nats per target, 95 % intervals over dates)",
        columns=("variant", "loss", "gain over control", "gain over adapter", "seeds", "trainable", "min"),
        rows=rows,
    )


def pooled_gains(gains: Sequence[Figures], by: str) -> Table:
    """The pooled gains of a walk-forward, by day, family, asset class, year or fold."""
    rows = [
        (
            one["group"],
            f"{shown(one['model'])} over {shown(one['over'])}",
            *_gain(one["gain"]),
            f"{one['detectable']:.4f}",
        )
        for one in gains
        if one["by"] == by
    ]
    return Table(
        title=f"Pooled gains by {shown(by)} (nats per target, 95 % intervals over dates)",
        columns=("targets", "gain of", *GAIN, "detectable"),
        rows=rows,
        labels=2,
    )


def key_value(found: Mapping[str, Any], title: str) -> Table:
    """Names and what they are."""
    rows = [(name, "none" if value is None else str(value)) for name, value in found.items()]
    return Table(title=title, columns=("name", "value"), rows=rows, labels=2)


def shown(name: str) -> str:
    """A key of the JSON files as people read it."""
    return WORDS.get(name, name.replace("_", " "))


def number(value: float | None) -> str:
    """A loss in nats."""
    return NOTHING if value is None else f"{value:.4f}"


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def percent(value: float | None, digits: int) -> str:
    """A share or a log return, times 100."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """`[+0.0100, +0.0200]`, or a dash where there is none."""
    return NOTHING if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def limits(gain: Figures) -> tuple[float | None, float | None]:
    """A gain's interval; (None, None) on so few dates that it would be far too narrow."""
    return (gain["low"], gain["high"]) if gain["dates"] >= FEWEST_DATES else (None, None)


def _gain(gain: Figures) -> tuple[str, ...]:
    """The cells of the columns in `GAIN`."""
    sizes = (count(gain["targets"]), count(gain["dates"]))
    return (f"{gain['nats']:+.4f}", interval(*limits(gain)), f"{gain['percent']:+.2f}", *sizes)


def _with_interval(gain: Figures | None) -> str:
    return f"{gain['nats']:+.4f} {interval(*limits(gain))}" if gain else NOTHING


def _seed(seed: int, by_seed: Figures) -> str:
    """`0: +0.012`, the seed and its gain over the control, or the seed alone where there is no such gain."""
    gain = by_seed.get(str(seed), {}).get("over_control")
    return str(seed) if gain is None else f"{seed}: {gain:+.3f}"


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
