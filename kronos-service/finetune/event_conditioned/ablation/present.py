"""What a person sees of an ablation: which training goes on, how long is left, and the table."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from kronos_service.finetune.event_conditioned.ablation.table import Comparison, Row
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.criteria import Criterion
from kronos_service.finetune.event_conditioned.report.terminal import criteria_table
from kronos_service.finetune.progress import console


def announce(name: str, seed: int, number: int, count: int, done: Sequence[Row]) -> None:
    """Which training begins, and the time left."""
    console.print(f"training {number + 1} of {count}: {name}, seed {seed}{_time_left(done, count - number)}")


def _time_left(done: Sequence[Row], trainings: int) -> str:
    """From the mean duration of what is finished."""
    seconds = [row.seconds for row in done if row.trainable]
    if not seconds:
        return ""
    return f", about {trainings * sum(seconds) / len(seconds) / 60:.0f} min left"


def show(rows: Sequence[Row], criteria: Sequence[Criterion], out: Path) -> None:
    """The table of every arm on event and on quiet targets, the verdicts, and where the files are."""
    for group in ("event", "quiet"):
        console.print(_table(group, rows))
    criteria_table(criteria)
    console.print(f"ablation.json, ablation.png and the records are in {out}")


def _table(group: str, rows: Sequence[Row]) -> Table:
    counted = _one(rows[0], group)
    any_gain = counted.over_control or counted.over_adapter
    size = f"{any_gain.targets:,} targets on {any_gain.dates:,} dates, " if any_gain else ""
    shown = Table(
        "arm",
        "loss",
        "gain over control",
        "gain over adapter",
        "by seed",
        "trainable",
        "min",
        title=f"Ablation, {group} targets ({size}nats per target, 95 % intervals over dates)",
    )
    for row in rows:
        one = _one(row, group)
        shown.add_row(
            row.name,
            f"{one.loss:.4f}",
            _gain(one.over_control),
            _gain(one.over_adapter),
            _seeds(one),
            f"{row.trainable:,}",
            f"{row.seconds / 60:.1f}",
        )
    return shown


def _one(row: Row, group: str) -> Comparison:
    return row.event if group == "event" else row.quiet


def _gain(gain: Gain | None) -> str:
    return f"{gain.nats:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]" if gain else "-"


def _seeds(one: Comparison) -> str:
    """Gain over the control, seed by seed."""
    gains = [figures.get("over_control") for figures in one.by_seed.values()]
    return " ".join(f"{gain:+.3f}" for gain in gains if gain is not None)
