"""Leaderboards: one row per model, the best first, and in each column the best marked.

A column that rests on fewer than 20 dates is marked too: in it nobody is the best.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kronos_service.finetune.event_conditioned.evaluation.criteria import FEWEST_DATES
from kronos_service.finetune.event_conditioned.report.forecast_tables import DAYS
from kronos_service.finetune.event_conditioned.report.tables import (
    NOTHING,
    YARDSTICK,
    Figures,
    Table,
    number,
    percent,
    shown,
)

ABOUT: Final[Mapping[str, str]] = {
    "adapter": "this adapter, shown the events",
    "zeroed": "this adapter, shown no events",
    "control": "the same training without events",
    "placebo": "the same training, dates of events shuffled",
    "base": "the model before this training",
    "har": "a regression on past ranges",
    YARDSTICK: "a regression that knows the tier-1 days too",
    "garch": "volatility clusters, per symbol",
    "random_walk": "as volatile as the last 20 days",
    "persistence": "the price stays",
}
ORDER: Final = ("all", "event", "quiet")
WHAT: Final = {
    "return": ("Error of the next bar's return", "CRPS in % of price", 3),
    "range": ("Error of the next bar's range", "CRPS of the log range, times 100", 1),
}


def next_bar(found: Figures, what: str) -> Table:
    """Models and yardsticks by the CRPS of the next bar's `return` or `range`, per kind of day."""
    title, unit, digits = WHAT[what]
    groups = {one["group"]: one for one in found["groups"] if one["asset_class"] == "all"}
    days = [day for day in ("all", *DAYS) if day in groups]
    models = list(groups["all"]["models"]) if "all" in groups else []
    scores = {
        model: [groups[day]["models"].get(model, {}).get(f"{what}_crps") for day in days] for model in models
    }
    heads = [(f"{shown(day)} days", int(groups[day]["dates"])) for day in days]
    return _board(f"{title} ({unit}; lower is better)", heads, scores, lambda value: percent(value, digits))


def losses(results: Figures) -> Table:
    """Trained variants and base by their loss per target, on event days, non-event days and all."""
    dates = results.get("val_dates", {})
    heads = [(f"{shown(group)} days", dates.get(group, sum(dates.values()))) for group in ORDER]
    scores = {
        model: [summary[group]["total"] for group in ORDER] for model, summary in results["val"].items()
    }
    return _board("Loss of the next bar (nats per target; lower is better)", heads, scores, number)


def _board(
    title: str,
    heads: Sequence[tuple[str, int]],
    scores: Mapping[str, Sequence[float | None]],
    show: Any,
) -> Table:
    """`heads` are the columns and the dates they rest on; the first column orders the rows."""
    order = sorted(scores, key=lambda model: (scores[model][0] is None, scores[model][0]))
    rows = [
        (shown(model), *(NOTHING if one is None else show(one) for one in scores[model])) for model in order
    ]
    notes = [ABOUT.get(model, "") for model in order]
    marks = {}
    for column, (_, dates) in enumerate(heads):
        known = [one for model in order if (one := scores[model][column]) is not None]
        for row, model in enumerate(order):
            if dates < FEWEST_DATES:
                marks[row, column + 1] = "few"
            elif known and scores[model][column] == min(known):
                marks[row, column + 1] = "best"
    columns = ("model", *(f"{name} ({dates} dates)" for name, dates in heads))
    return Table(title=title, columns=columns, rows=rows, marks=marks, notes=notes)
