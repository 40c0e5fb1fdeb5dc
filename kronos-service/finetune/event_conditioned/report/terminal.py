"""What a person sees while a run goes on and when it ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from rich.table import Table as RichTable

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.criteria import Criterion
from kronos_service.finetune.event_conditioned.report import tables
from kronos_service.finetune.event_conditioned.report.tables import Table
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.progress import console, follow
from kronos_service.model.factory import Bundle

if TYPE_CHECKING:
    from kronos_service.finetune.event_conditioned.event_lora import Result

VERDICTS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "unknown": "[yellow]unknown[/]"}


def data_table(snapshot: Snapshot, bundle: Bundle, splits: Splits, dead: Sequence[str]) -> None:
    """What is trained on: base, snapshot, targets and event days per split, what is left out or dead."""
    console.print(f"base {bundle.base.repo} ({bundle.base.content_sha256[:12]}), context {bundle.context}")
    console.print(f"snapshot {snapshot.name} ({snapshot.sha256[:12]})")
    if snapshot.flagged:
        console.print(
            "[yellow]flagged: the tables came without a manifest, so they were hashed on the spot[/]"
        )
    table = RichTable(
        "split", "target dates", "windows", "targets", "event targets", "left out", title="Splits"
    )
    for name, split in splits.splits.items():
        dataset = splits.dataset(name)
        share = f"{dataset.n_event_targets:,} ({dataset.n_event_targets / max(dataset.n_targets, 1):.1%})"
        counted = (
            (f"{len(split.windows):,}", f"{dataset.n_targets:,}", share)
            if split.windows
            else ("empty", "0", "")
        )
        table.add_row(name, f"{split.first} to {split.last}", *counted, split.left_out.describe())
    console.print(table)
    if dead:
        console.print(
            "[bold red]dead channels[/]: constant over the whole train split, so nothing can be learnt "
            f"from them: {', '.join(dead)}"
        )


def machine(accelerator: Accelerator, micro_batch: int) -> None:
    """What it is trained on."""
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    number, device = accelerator.num_processes, accelerator.device.type
    processes = f"{number} processes" if number > 1 else "one process"
    console.print(f"{processes} on {device}, {precision}, at most {micro_batch} windows in memory at once")


@contextmanager
def forecasting() -> Iterator[Callable[[int, int], None]]:
    """Progress of forecasts: yields what is told (done, all)."""
    with follow("forecasting", unit="origins") as progress:
        yield progress.reach


def show(grid: Table) -> None:
    """A table of figures."""
    table = RichTable(title=grid.title)
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if number < grid.labels else "right")
    for row in grid.rows:
        table.add_row(*(VERDICTS.get(cell, cell) for cell in row))
    console.print(table)


def loss_table(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Validation losses in nats: one row per target group and model."""
    show(tables.losses(summaries, "Validation loss (nats per target)"))


def family_table(families: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Total loss on the targets of each event family, adapter against base."""
    show(tables.family_losses(families, "Validation loss per event family"))


def gain_table(gains: Mapping[str, Gain]) -> None:
    """Gains over the control with their intervals, or a line that says that they are unknown."""
    if gains:
        show(tables.gains({name: asdict(gain) for name, gain in gains.items()}))
    else:
        console.print("[yellow]conditioning gain unknown[/]: no control was trained (add --control)")


def criteria_table(criteria: Sequence[Criterion]) -> None:
    """Each success criterion with its figure and verdict."""
    show(tables.criteria([asdict(one) for one in criteria]))


def forecast_tables(forecasts: Mapping[str, Any]) -> None:
    """Scores of the forecasts of one split, and what the adapter gains."""
    settings = forecasts["settings"]
    console.print(
        f"{forecasts['origins']:,} of {forecasts['possible_origins']:,} origins, {settings['paths']} paths "
        "each; log returns of the close in percent"
    )
    show(tables.forecast_scores(forecasts, steps="1"))
    show(tables.forecast_gains(forecasts, steps="1", by=("day", "all")))
    if forecasts["horizon"] > 1:
        show(tables.forecast_gains(forecasts, steps="all", by=("day", "all")))


def evaluation(figures: Mapping[str, Any]) -> None:
    """What an evaluation found."""
    split, span = figures["split"], f"{figures['first']} to {figures['last']}"
    console.print(f"adapter {figures['adapter']}, split {split} ({span})")
    console.print(figures["out_of_sample"])
    show(tables.losses(figures["losses"], f"Loss on the {split} split (nats per target)"))
    show(tables.family_losses(figures["family_losses"], "Loss per event family (nats per target)"))
    if figures["forecasts"]:
        forecast_tables(figures["forecasts"])


def reported(path: Path) -> None:
    """Where a report is."""
    console.print(f"report {path}", highlight=False, soft_wrap=True)


def closing(config: EventLoraConfig, result: "Result", seconds: float) -> None:
    """Where everything is, whether the adapter was promoted, and what to type next."""
    console.print(
        f"run {result.run_dir} ({seconds / 60:.1f} min in all); "
        "figures in criteria.json, results.json, metrics.jsonl"
    )
    if result.promoted:
        console.print(
            f"[green]promoted[/]: {config.adapter_store / 'versions' / result.promoted} is now LATEST"
        )
        adapter = str(config.adapter_store)
    else:
        console.print(
            "[yellow]not promoted[/]: the criteria above do not allow it (--promote always ignores them)"
        )
        adapter = str(result.run_dir / "adapter")
    snapshot = f" --snapshot {config.snapshot}" if config.snapshot else ""
    console.print(
        f"next: python -m kronos_service.finetune evaluate --adapter {adapter}{snapshot} "
        f"--base-model {config.base_model}"
    )
    console.print(f"      tensorboard --logdir {result.run_dir / 'tensorboard'}", highlight=False)
