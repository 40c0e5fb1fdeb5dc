"""The page of a walk-forward: one HTML file with its tables and its forest plot."""

from collections.abc import Mapping
from typing import Any, Final

from kronos_service.finetune.event_conditioned.report import figures, tables
from kronos_service.finetune.event_conditioned.report.document import environment

BY: Final = ("day", "year", "family", "asset_class", "fold")


def page(found: Mapping[str, Any]) -> str:
    """The whole page; `found` is what walk_forward.json holds."""
    gains = found["gains"]
    return (
        environment()
        .get_template("walk_forward.html")
        .render(
            found=found,
            warnings=warnings(found),
            days=tables.pooled_gains(gains, "day"),
            finer=[tables.pooled_gains(gains, by) for by in BY[1:]],
            folds=folds_table(found),
            forest=figures.forest(drawn(found)),
        )
    )


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What is to be said of every figure: the base has seen targets of a fold, or may have."""
    return sorted({warning for warning in found["seen"].values() if warning})


def folds_table(found: Mapping[str, Any]) -> tables.Table:
    """What each fold trained on and scored, and for how many epochs."""
    rows = [
        (
            one["name"],
            f"{one['train_first']} to {one['train_last']}",
            f"{one['first']} to {one['last']}",
            tables.NOTHING if one["epochs"] is None else str(one["epochs"]),
            found["seen"][one["name"]] or "new to the base",
        )
        for one in found["folds"]
    ]
    columns = ("fold", "trained on", "scored", "epochs", "base")
    return tables.Table(title="Folds", columns=columns, rows=rows, labels=5)


def drawn(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The gains of the forest plot: days first, then years, families and asset classes."""
    return [one for by in BY[:-1] for one in found["gains"] if one["by"] == by]
