"""What a person sees while a run goes on and when it ends."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table as RichTable
from rich.text import Text

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.report import forecast_tables, tables
from kronos_service.finetune.event_conditioned.report.tables import Table
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_store import version_in
from kronos_shared.cli import command_line
from kronos_shared.progress import console, follow, say

VERDICTS = {"pass": "green", "fail": "red", "not measured": "yellow"}


def data_table(snapshot: Snapshot, bundle: Bundle, splits: Splits, dead: Sequence[str]) -> None:
    """What is trained on: base, snapshot, targets and event days per split, what is left out or dead."""
    console.print(f"base {bundle.base.repo} ({bundle.base.content_sha256[:12]}), context {bundle.context}")
    console.print(f"snapshot {snapshot.name} ({snapshot.sha256[:12]})")
    if snapshot.flagged:
        say("flagged: the tables came without a manifest, so they were hashed on the spot", style="yellow")
    rows = []
    for name, split in splits.splits.items():
        dataset = splits.dataset(name)
        share = f"{dataset.n_event_targets:,} ({dataset.n_event_targets / max(dataset.n_targets, 1):.1%})"
        sizes = (tables.count(len(split.windows)), tables.count(dataset.n_targets), share)
        span = f"{split.first} to {split.last}"
        rows.append(
            (name, span, *(sizes if split.windows else ("empty", "0", "")), split.left_out.describe())
        )
    columns = ("split", "target dates", "windows", "targets", "event targets", "left out")
    show(Table(title="Splits", columns=columns, rows=rows, labels=len(columns)))
    if dead:
        say(
            f"constant over the whole train split, so nothing can be learnt from them: {', '.join(dead)}",
            style="bold red",
            label="dead channels",
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


def show(table: Table) -> None:
    """A table, as wide as the terminal allows."""
    shown = RichTable(title=table.title)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number < table.labels else "right")
    for row in table.rows:
        shown.add_row(*(_cell(tables.WORDS.get(text, text)) for text in row))
    console.print(shown)


def _cell(text: str) -> Text:
    return Text("FAIL" if text == "fail" else text, style=VERDICTS.get(text, ""))


def results(figures: Mapping[str, Any], criteria: Sequence[Mapping[str, Any]]) -> None:
    """Losses and gains of a run as results.json holds them, and its verdicts as criteria.json does."""
    show(tables.losses(figures["val"], "Validation loss (nats per target)"))
    show(tables.family_losses(figures["val_families"], "Validation loss per event family"))
    if figures["gains"]:
        show(tables.gains(figures["gains"]))
    else:
        say(
            "no control was trained (event-lora --no-control)",
            style="yellow",
            label="conditioning gain not measured",
        )
    show(tables.criteria(criteria))


def _forecasts(forecasts: Mapping[str, Any]) -> None:
    """Scores of the forecasts of one split, and what the adapter gains."""
    settings = forecasts["settings"]
    console.print(
        f"{forecasts['origins']:,} of {forecasts['possible_origins']:,} origins, {settings['paths']} paths "
        "each; log returns of the close in percent"
    )
    show(forecast_tables.forecast_scores(forecasts, steps="1"))
    show(forecast_tables.forecast_gains(forecasts, steps="1", by=("day", "all")))
    if forecasts["horizon"] > 1:
        show(forecast_tables.forecast_gains(forecasts, steps="all", by=("day", "all")))
    show(forecast_tables.next_bar_scores(forecasts["next_bar"]))
    show(forecast_tables.against_yardstick(forecasts["next_bar"]))
    for name, why in forecasts["next_bar"]["not_measured"].items():
        say(why, style="yellow", label=f"{name} not measured")


def evaluation(figures: Mapping[str, Any]) -> None:
    """What an evaluation found."""
    split, span = figures["split"], f"{figures['first']} to {figures['last']}"
    console.print(f"adapter {figures['adapter']}, split {split} ({span})")
    if figures["forecasts"]:
        console.print(forecast_tables.yardstick_verdict(figures["forecasts"]), style="bold", soft_wrap=True)
    console.print(figures["out_of_sample"])
    show(tables.losses(figures["losses"], f"Loss on the {split} split (nats per target)"))
    show(tables.family_losses(figures["family_losses"], "Loss per event family (nats per target)"))
    if figures["forecasts"]:
        _forecasts(figures["forecasts"])


def reported(path: Path) -> None:
    """Where a report is."""
    say(f"report {path}")


def closing(
    config: EventLoraConfig, run_dir: Path, promoted: str | None, against: Sequence[str], seconds: float
) -> None:
    """Where everything is, whether the adapter was promoted, what spoke against it, and what to type next."""
    say(
        f"run {run_dir} ({seconds / 60:.1f} min in all); "
        "figures in criteria.json, results.json, metrics.jsonl"
    )
    if promoted:
        say(f"promoted: {version_in(config.adapter_store, promoted)} is now LATEST", style="green")
        adapter = config.adapter_store
    elif config.promote == "never":
        adapter = run_dir / "adapter"
    else:
        say("not promoted (--promote always would):", style="yellow")
        adapter = run_dir / "adapter"
    for one in against if config.promote != "never" else ():
        say(f"  {'although ' if promoted else ''}{one}")
    say("next:")
    say(command_line(PROGRAM, "evaluate", {"adapter": adapter, **config.sources()}))
    if config.tracker == "tensorboard":
        say(f"tensorboard --logdir {shlex.quote(str(run_dir))}")
