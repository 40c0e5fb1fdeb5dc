"""Figures as rows of text: one place for how each number looks, on the terminal, in a report, on a card.

The figures are those of results.json, criteria.json and evaluation-<split>.json. `-` is a figure that a model
does not have.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.training.validation import LOSSES

Figures = Mapping[str, Any]

MODEL_NAMES: Final[Mapping[str, str]] = {
    "persistence": "persistence",
    "random_walk": "random walk",
    "base": "base",
    "zeroed": "zeroed",
    "adapter": "adapter",
    "control": "control",
    "placebo": "placebo",
}
SCORES: Final = ("CRPS", "pinball", "in 50 %", "in 80 %", "in 90 %", "direction", "spread")
COUNTS: Final = ("count", "origins", "dates")
NOTHING: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of text; the first `labels` columns are names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int = 1


def losses(summaries: Mapping[str, Figures], title: str) -> Table:
    """Mean token losses per group of targets and model, as `validate.summarize` gives them."""
    return Table(
        title=title,
        columns=("targets", "model", *LOSSES, "count"),
        rows=[
            (
                group,
                MODEL_NAMES.get(model, model),
                *(number(summary[group][name]) for name in LOSSES),
                count(summary[group]["targets"]),
            )
            for group in ("event", "quiet", "all")
            for model, summary in summaries.items()
        ],
        labels=2,
    )


def family_losses(families: Mapping[str, Figures], title: str) -> Table:
    """Total loss on the targets of each event family, adapter against base."""
    base, adapted = families["base"], families["adapter"]
    return Table(
        title=title,
        columns=("family", "base", "adapter", "change", "count"),
        rows=[
            (
                name,
                number(row["total"]),
                number(adapted[name]["total"]),
                f"{100 * (adapted[name]['total'] / row['total'] - 1):+.2f} %",
                count(row["targets"]),
            )
            for name, row in base.items()
        ],
    )


def gains(found: Mapping[str, Figures]) -> Table:
    """Gains over the control, keyed `<model>_<group>`, with their intervals."""
    return Table(
        title="Gain over the control",
        columns=("model", "targets", "gain (nats)", "95 % interval", "gain (%)", "count", "dates"),
        rows=[
            (
                *name.rsplit("_", 1),
                f"{gain['nats']:+.4f}",
                interval(gain["low"], gain["high"]),
                f"{gain['percent']:+.2f}",
                count(gain["targets"]),
                count(gain["dates"]),
            )
            for name, gain in found.items()
        ],
        labels=2,
    )


def family_gains(found: Mapping[str, Figures], title: str) -> Table:
    """Gains per event family with their intervals."""
    return Table(
        title=title,
        columns=("family", "gain (nats)", "95 % interval", "gain (%)", "count", "dates"),
        rows=[
            (
                name,
                f"{gain['nats']:+.4f}",
                interval(gain["low"], gain["high"]) if gain["dates"] >= FEWEST_DATES else NOTHING,
                f"{gain['percent']:+.2f}",
                count(gain["targets"]),
                count(gain["dates"]),
            )
            for name, gain in found.items()
        ],
    )


def criteria(judged: Sequence[Figures]) -> Table:
    """Each success criterion with its figure and verdict."""
    return Table(
        title="Success criteria",
        columns=("criterion", "wanted", "figure", "verdict"),
        rows=[(one["name"], one["wanted"], one["detail"], one["verdict"]) for one in judged],
        labels=4,
    )


def forecast_scores(forecasts: Figures, *, steps: str) -> Table:
    """Every model's scores over event days, quiet days and all targets, for the first bar or all bars."""
    chosen = [one for one in forecasts["groups"] if one["by"] in ("day", "all") and one["steps"] == steps]
    order = {"event": 0, "quiet": 1, "all": 2}
    rows = []
    for one in sorted(chosen, key=lambda found: order[found["group"]]):
        for model, means in one["models"].items():
            pinball = [value for name, value in means.items() if name.startswith("pinball_")]
            rows.append(
                (
                    one["group"],
                    MODEL_NAMES[model],
                    percent(means["crps"], 3),
                    percent(sum(pinball) / len(pinball), 3),
                    *(percent(means[f"inside_{name}"], 0) for name in ("50", "80", "90")),
                    percent(means["hit"], 0),
                    percent(means["spread"], 2) if means["spread"] else NOTHING,
                    count(one["targets"]),
                )
            )
    return Table(
        title=f"Forecasts of {_bars(forecasts, steps)}",
        columns=("targets", "model", *SCORES, "count"),
        rows=rows,
        labels=2,
    )


def forecast_gains(forecasts: Figures, *, steps: str, by: Sequence[str]) -> Table:
    """How much lower the adapter's CRPS is than the others', per group of targets, with intervals."""
    chosen = [one for one in forecasts["groups"] if one["by"] in by and one["steps"] == steps]
    against = ("base", "zeroed", "random_walk")
    return Table(
        title=f"CRPS of the adapter against others, {_bars(forecasts, steps)}",
        columns=("targets", "adapter", *(f"over {MODEL_NAMES[name]}" for name in against), *COUNTS),
        rows=[
            (
                one["group"],
                percent(one["models"]["adapter"]["crps"], 3),
                *(_gain(one["gain"][name]) for name in against),
                count(one["targets"]),
                count(one["origins"]),
                count(one["dates"]),
            )
            for one in chosen
        ],
    )


def event_study(study: Mapping[str, Figures]) -> Table:
    """Forecast dispersion of base and adapter and what came, on the event's bar and around it."""
    rows = []
    for family, offsets in study.items():
        for offset in sorted(offsets, key=int):
            one = offsets[offset]
            models = [f"{one['models'][name]:.2f}" for name in ("base", "zeroed", "adapter")]
            place = offset if offset == "0" else f"{int(offset):+d}"
            rows.append((family, place, *models, f"{one['realised']:.2f}", count(one["targets"])))
    return Table(
        title="Dispersion of one bar, in 20-day volatilities",
        columns=("family", "bars from event", "base", "zeroed", "adapter", "came", "count"),
        rows=rows,
        labels=2,
    )


def ablation(found: Figures) -> Table:
    """Every arm of an ablation: its losses and its gains over the control, event and quiet days."""
    rows = []
    for arm in found["arms"]:
        for group in ("event", "quiet"):
            over = arm[group]["over_control"]
            gained = (
                (f"{over['nats']:+.4f}", interval(over["low"], over["high"])) if over else (NOTHING, NOTHING)
            )
            seeds = ", ".join(map(str, arm["seeds"])) or NOTHING
            rows.append((arm["name"], group, arm["question"], seeds, number(arm[group]["loss"]), *gained))
    return Table(
        title="Ablation",
        columns=("arm", "targets", "question", "seeds", "loss", "over control (nats)", "95 % interval"),
        rows=rows,
        labels=4,
    )


def facts(found: Mapping[str, Any], title: str) -> Table:
    """Names and what they are."""
    return Table(
        title=title,
        columns=("name", "value"),
        rows=[(name, "none" if value is None else str(value)) for name, value in found.items()],
        labels=2,
    )


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


def markdown(grid: Table) -> str:
    """The grid as a Markdown table, without its title."""
    lines: Iterable[Sequence[str]] = (grid.columns, ["---"] * len(grid.columns), *grid.rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gain(gain: Figures) -> str:
    known = gain["low"] is not None and gain["high"] is not None
    limits = f" [{100 * gain['low']:+.3f}, {100 * gain['high']:+.3f}]" if known else " (too few dates)"
    return f"{100 * gain['crps']:+.3f}{limits}"


def _bars(forecasts: Figures, steps: str) -> str:
    return "the next bar" if steps == "1" else f"the next {forecasts['horizon']} bars"
