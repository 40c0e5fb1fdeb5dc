"""What a run would need, shown before it begins: memory by micro-batch, steps, time, disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune.event_conditioned.config import LONGEST_CONTEXT, EventLoraConfig
from kronos_service.finetune.event_conditioned.report import terminal
from kronos_service.finetune.event_conditioned.report.tables import Table, count
from kronos_service.finetune.event_conditioned.samples.splits import SplitError, plan_splits
from kronos_service.finetune.event_conditioned.training.checkpoints import KEEP
from kronos_service.finetune.event_conditioned.training.memory_budget import (
    GB,
    MicroBatch,
    largest_fit,
    on_cpu,
    powers_of_two,
)
from kronos_service.finetune.event_conditioned.training.schedule import Schedule
from kronos_service.finetune.event_conditioned.training.setup import require_context
from kronos_service.finetune.event_conditioned.training.step_cost import StepCost, step_cost
from kronos_service.finetune.event_conditioned.training.variants import FIXED_SUBSET
from kronos_service.model.factory import load_bundle
from kronos_service.model.presets import PRESETS
from kronos_shared.progress import say, working

STATED_FLOPS: Final = 30e12
"""A second: an RTX 4060's bf16 peak with dense matrices."""
MB: Final = 10**6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the run of `config` needs."""

    config: EventLoraConfig
    precision: str
    """On a CUDA device."""
    bars: int
    """In the longest window."""
    windows: Mapping[str, int]
    """By split."""
    schedule: Schedule
    kept: StepCost
    recomputed: StepCost
    """With the blocks' activations computed again in the backward pass."""

    @property
    def trainings(self) -> int:
        """The adapter, and the control and the placebo where they are asked for."""
        return 1 + self.config.control + self.config.placebo

    @property
    def flops(self) -> int:
        """Matrix products of all steps and validations; the forecasts at the end are not in it."""
        config, train, val = self.config, self.windows["train"], self.windows["val"]
        scored = (config.epochs + 1) * (val + min(FIXED_SUBSET, train))
        each = config.epochs * train * self.kept.window_flops + scored * self.kept.forward_flops
        return self.trainings * each + val * self.kept.forward_flops  # the base is scored once

    @property
    def checkpoint_bytes(self) -> int:
        """What is trained and AdamW's two moments."""
        return 3 * self.kept.trained_bytes

    @property
    def lasting_bytes(self) -> int:
        """Tokens of all windows (two ids of 2 bytes a bar), each training's weights, the adapter and its
        published copy.
        """
        tokens = sum(self.windows.values()) * (self.bars + 1) * 4
        return tokens + (self.trainings + 2) * self.kept.trained_bytes

    def peak(self, windows: int, checkpointing: bool) -> int:
        """Most bytes at once with so many windows in memory."""
        return (self.recomputed if checkpointing else self.kept).peak(windows)

    def choice(self) -> MicroBatch:
        """What `--vram-budget` chooses by these figures.

        Raises:
            BudgetError: not even one window, or the user's micro-batch, fits.
        """
        asked = self.config.micro_batch
        sizes = [asked] if asked else powers_of_two(self.config.batch_size)
        return largest_fit(self.peak, sizes=sizes, budget=int(self.config.vram_budget * GB))


def plan(config: EventLoraConfig) -> Plan:
    """Count the windows of the snapshot and what a step on them needs; nothing is trained, tokenised or
    written, and of a preset only the shape is read.

    Raises:
        KronosError: snapshot or base cannot be used, or the train split has no window.
    """
    shape, longest, name = _shape(config)
    require_context(config, longest, name)
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    _, planned = plan_splits(
        snapshot,
        dates=config.split_dates(),
        context=config.context or min(longest, LONGEST_CONTEXT),
        scored=config.targets_per_window,
    )
    windows = {split: found for split, (found, _) in planned.items()}
    if not windows["train"]:
        raise SplitError("the train split has no window: export more history or move the split dates")
    bars = max(window.stop - window.start - 1 for window in windows["train"])
    precision = "no" if config.precision == "no" else "bf16"
    kept, recomputed = (
        step_cost(shape, config, bars=bars, precision=precision, checkpointing=again)
        for again in (False, True)
    )
    return Plan(
        config=config,
        precision=precision,
        bars=bars,
        windows={split: len(found) for split, found in windows.items()},
        schedule=Schedule(
            windows=len(windows["train"]),
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
        ),
        kept=kept,
        recomputed=recomputed,
    )


def show_plan(config: EventLoraConfig) -> None:
    """Show what the run of `config` would need.

    Raises:
        KronosError: as `plan` does.
        BudgetError: nothing fits `--vram-budget`; the table is shown before.
    """
    with working("counting windows and bytes"):
        found = plan(config)
    terminal.show(memory_table(found))
    say(
        "estimated by counting tensors, not measured; a run on a CUDA device measures before its first step. "
        "CUDA's own context comes on top"
    )
    for line in lines(found):
        say(line)
    chosen = found.choice()
    how = ", activations recomputed" if chosen.checkpointing else ""
    say(
        f"--vram-budget {config.vram_budget:g} would choose {chosen.windows} windows at once{how}: "
        f"{(chosen.peak_bytes or 0) / GB:.2f} GB"
    )


def memory_table(found: Plan) -> Table:
    """Peak memory by micro-batch."""
    rows = [
        (count(windows), *(f"{found.peak(windows, again) / GB:.2f}" for again in (False, True)))
        for windows in powers_of_two(found.config.batch_size)
    ]
    precision = "fp32" if found.precision == "no" else found.precision
    return Table(
        title=f"GPU memory (GB) of a step, base {found.config.base_model}, windows of {found.bars} bars, "
        f"{precision}",
        columns=("windows at once", "activations kept", "recomputed"),
        rows=rows,
    )


def lines(found: Plan) -> list[str]:
    """Steps, bars, time, disk, and what this machine would do, a line each."""
    config, schedule = found.config, found.schedule
    bars = found.trainings * config.epochs * found.windows["train"] * found.bars
    seconds = found.flops / STATED_FLOPS
    shown = [
        f"steps: {schedule.steps_per_epoch:,} an epoch x {config.epochs} epochs x {found.trainings} "
        f"trainings = {found.trainings * schedule.steps:,}, each of {config.batch_size} windows; "
        f"{bars:,} bars (two tokens each) read",
        f"time: {found.flops / 1e15:.3g} PFLOP with validation: {duration(seconds)} at "
        f"{STATED_FLOPS / 1e12:.0f} TFLOP/s (an RTX 4060's peak), {duration(10 * seconds)} at a tenth of it",
        f"disk: {found.lasting_bytes / MB:,.0f} MB to keep, and while it trains "
        f"{(KEEP + 1) * found.checkpoint_bytes / MB:,.0f} MB of checkpoints",
    ]
    if not torch.cuda.is_available():
        windows = config.micro_batch or on_cpu(config.batch_size, found.bars)
        shown.append(
            f"this machine has no CUDA device: a run here takes {windows} windows at once, without a budget"
        )
    return shown


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, from two hours on hours."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _shape(config: EventLoraConfig) -> tuple[Mapping[str, Any], int, str]:
    """Arguments of the base's predictor, its longest window, its name; weights are read only of a base that
    is no preset.
    """
    name = config.base_model.removeprefix("kronos-")
    for preset_name, preset in PRESETS.items():
        if config.base_model == preset.hub_id or name == preset_name:
            return preset.predictor, preset.context, config.base_model
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
    )
    return bundle.model.config, bundle.context, bundle.base.repo
