"""The page of a walk-forward: one HTML file with its tables and its forest plot."""

from collections.abc import Mapping
from typing import Any, Final

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.report import figures, tables
from kronos_service.finetune.event_conditioned.report.document import fill
from kronos_service.finetune.event_conditioned.report.next_step import SOURCES, Step, serve_command
from kronos_service.finetune.event_conditioned.report.verdict import (
    Verdict,
    describe_gain,
    gain_check,
    headline_of,
    judge_gain,
)
from kronos_shared.cli import command_line

DAYS: Final = ("event", "tier1", "quiet")
BY: Final = ("day", "year", "family", "asset_class", "fold")


def page(found: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The whole page; `found` is what walk_forward.json holds, `given` the flags of its command."""
    gains, data = found["gains"], found["snapshot"]
    drawn = forest(found)
    return fill(
        "walk_forward.html",
        title="Event-conditioned Kronos: walk-forward",
        synthetic=is_synthetic(data["sha256"], marked=data.get("synthetic", False)),
        sections={"gains": "Gains", "leaderboard": "Leaderboard", "folds": "Folds"},
        verdict=verdict(found),
        step=next_step(found, given),
        found=found,
        warnings=warnings(found),
        days=tables.pooled_gains(gains, "day"),
        finer=[tables.pooled_gains(gains, by) for by in BY[1:]],
        folds=folds_table(found),
        forest=figures.gains(drawn, "control") if drawn else [],
    )


def verdict(found: Mapping[str, Any]) -> Verdict:
    """On event days, on those of tier 1 and on non-event days, over all folds."""
    gains = _over_control(found, "day")
    tone, headline = headline_of(gains.get("event"))
    done = len({one["group"] for one in found["gains"] if one["by"] == "fold"})
    periods = f"{done} of {len(found['folds'])}" if done < len(found["folds"]) else str(done)
    clauses = [describe_gain(gains.get("event"))]
    clauses += [
        describe_gain(gains[name], tables.shown(name)) for name in ("tier1", "quiet") if name in gains
    ]
    sentence = "; ".join(clauses)
    return Verdict(
        tone=tone,
        headline=f"{headline}, over {periods} periods",
        sentence=f"{sentence[0].upper()}{sentence[1:]}.",
        checks=[gain_check(f"{tables.shown(name)} days", gains[name]) for name in DAYS if name in gains],
    )


def next_step(found: Mapping[str, Any], given: Mapping[str, Any]) -> Step:
    """What to type next, with the flags of this walk-forward."""
    if found["unfinished"]:
        return Step(
            why="Resume: train what is missing.", command=command_line(PROGRAM, "walk-forward", given)
        )
    if found.get("published"):
        store = found["settings"].get("adapter_store", "adapters")
        return Step(why=f"Serve {found['published']}.", command=serve_command(store))
    gain = _over_control(found, "day").get("event")
    if judge_gain(gain) == "better":
        why = "Train one adapter on the newest window and publish it with this evidence."
        return Step(why=why, command=command_line(PROGRAM, "walk-forward", {**given, "publish": True}))
    why = "See which part hurts or helps: train with one thing changed at a time."
    return Step(why=why, command=command_line(PROGRAM, "ablate", {name: given.get(name) for name in SOURCES}))


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


def forest(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The adapter's gains over its control that are drawn: days first, then years, families and classes.

    Families that fall on the same targets share a line.
    """
    lines: dict[str, Mapping[str, Any]] = {}
    for by in BY[:-1]:
        gains = _over_control(found, by)
        lines |= (
            tables.merge_alike(gains)
            if by == "family"
            else {tables.shown(name): gain for name, gain in gains.items()}
        )
    return lines


def _over_control(found: Mapping[str, Any], by: str) -> dict[str, Mapping[str, Any]]:
    """The adapter's gains over its control by day, year, family and so on."""
    return {
        one["group"]: one["gain"]
        for one in found["gains"]
        if (one["by"], one["model"], one["over"]) == (by, "adapter", "control")
    }
