"""What a person sees while a run goes on and when it ends."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from kronos_service.data.snapshot import Snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.criteria import Criterion
from kronos_service.finetune.event_conditioned.gain import Gain
from kronos_service.finetune.event_conditioned.progress import Progress, training_progress
from kronos_service.finetune.event_conditioned.splits import Splits
from kronos_service.finetune.event_conditioned.validate import LOSSES
from kronos_service.model.factory import Bundle

if TYPE_CHECKING:
    from kronos_service.finetune.event_conditioned.job import Result

console = Console()
VERDICTS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "unknown": "[yellow]unknown[/]"}


def status(text: str) -> AbstractContextManager[object]:
    """A spinner while something short goes on."""
    return console.status(text)


def data_table(snapshot: Snapshot, bundle: Bundle, splits: Splits, dead: Sequence[str]) -> None:
    """What is trained on: base, snapshot, targets and event days per split, what is left out or dead."""
    console.print(f"base {bundle.base.repo} ({bundle.base.content_sha256[:12]}), context {bundle.context}")
    console.print(f"snapshot {snapshot.name} ({snapshot.sha256[:12]})")
    if snapshot.flagged:
        console.print(
            "[yellow]flagged: the tables came without a manifest, so they were hashed on the spot[/]"
        )
    table = Table("split", "target dates", "windows", "targets", "event targets", "left out", title="Splits")
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


def training(name: str, windows: int, epochs: int) -> AbstractContextManager[Progress]:
    """Progress of a training, with loss, rate and time left, and a line per epoch."""
    return training_progress(console, name, windows, epochs)


def loss_table(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Validation losses in nats: one row per target group and model."""
    table = Table("targets", "model", *LOSSES, "count", title="Validation loss (nats per target)")
    for group in ("event", "quiet", "all"):
        for model, summary in summaries.items():
            row = summary[group]
            table.add_row(group, model, *(_nats(row[name]) for name in LOSSES), f"{row['targets']:,}")
    console.print(table)


def family_table(families: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Total loss on the targets of each event family, adapter against base."""
    base, adapted = families["base"], families["adapter"]
    table = Table("family", "base", "adapter", "change", "targets", title="Validation loss per event family")
    for name, row in base.items():
        after = adapted[name]["total"]
        change = f"{100 * (after / row['total'] - 1):+.2f} %"
        table.add_row(name, _nats(row["total"]), _nats(after), change, f"{row['targets']:,}")
    console.print(table)


def gain_table(gains: Mapping[str, Gain]) -> None:
    """Gains over the control with their intervals, or a line that says that they are unknown."""
    if not gains:
        console.print("[yellow]conditioning gain unknown[/]: no control was trained (add --control)")
        return
    table = Table(
        "model",
        "targets",
        "gain (nats)",
        "95 % interval",
        "gain (%)",
        "count",
        "dates",
        title="Gain over the control",
    )
    for name, gain in gains.items():
        model, group = name.rsplit("_", 1)
        table.add_row(
            model,
            group,
            f"{gain.nats:+.4f}",
            f"[{gain.low:+.4f}, {gain.high:+.4f}]",
            f"{gain.percent:+.2f}",
            f"{gain.targets:,}",
            f"{gain.dates:,}",
        )
    console.print(table)


def criteria_table(criteria: Sequence[Criterion]) -> None:
    """Each success criterion with its figure and verdict."""
    table = Table("criterion", "wanted", "figure", "verdict", title="Success criteria")
    for one in criteria:
        table.add_row(one.name, one.wanted, one.detail, VERDICTS[one.verdict])
    console.print(table)


def closing(config: EventLoraConfig, result: "Result", seconds: float) -> None:
    """Where everything is, whether the adapter was promoted, and what to type next."""
    console.print(
        f"run {result.run_dir} ({seconds / 60:.1f} min in all); "
        "figures in criteria.json, results.json, metrics.jsonl"
    )
    if result.promoted:
        console.print(f"[green]promoted[/]: {config.adapters / 'versions' / result.promoted} is now LATEST")
        adapter = str(config.adapters)
    else:
        console.print("[yellow]not promoted[/]: the criteria above do not allow it (--force promotes anyway)")
        adapter = str(result.run_dir / "adapter")
    snapshot = f" --snapshot {config.snapshot}" if config.snapshot else ""
    console.print(
        f"next: python -m kronos_service.finetune evaluate --adapter {adapter}{snapshot} "
        f"--base-model {config.base_model}"
    )
    console.print(f"      tensorboard --logdir {result.run_dir / 'tensorboard'}", highlight=False)


def model_card(
    config: EventLoraConfig,
    bundle: Bundle,
    snapshot: Snapshot,
    summaries: Mapping[str, Mapping[str, Mapping[str, Any]]],
    gain: Gain | None,
) -> str:
    """The adapter's README.md."""
    rows = "\n".join(
        f"| {group} | {model} | "
        + " | ".join(_nats(summary[group][name]) for name in LOSSES)
        + f" | {summary[group]['targets']} |"
        for group in ("event", "quiet", "all")
        for model, summary in summaries.items()
    )
    known = (
        f"{gain.nats:+.4f} nats per event target, 95 % interval [{gain.low:+.4f}, {gain.high:+.4f}]"
        if gain
        else "unknown (no control was trained)"
    )
    return f"""---
library_name: peft
base_model: {bundle.base.repo}
---
# Event-conditioned adapter for {bundle.base.repo}

LoRA rank {config.rank} (alpha {2 * config.rank}) on q_proj and v_proj, plus an event embedding (taps:
{config.taps}), trained for {config.epochs} epochs on targets from {config.train_start} to the day before
{config.val_start} of snapshot `{snapshot.name}` ({snapshot.sha256[:12]}).

Validation loss, nats per target:

| targets | model | s1 | s2 | total | count |
|---|---|---|---|---|---|
{rows}

Conditioning gain over a control trained without events: {known}.

The released Kronos bases were pretrained on data to February 2024: for them, no target before June 2024 is
out of sample.
"""


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
