"""The trainings of one run: adapter, control (channels zeroed) and placebo (rows permuted by date)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from peft import PeftModel

from kronos_service.finetune.event_conditioned import present
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.gain import Gain, paired_gain
from kronos_service.finetune.event_conditioned.lora import Part, adapt
from kronos_service.finetune.event_conditioned.metrics import MetricLog
from kronos_service.finetune.event_conditioned.series import Conditioning
from kronos_service.finetune.event_conditioned.splits import Splits
from kronos_service.finetune.event_conditioned.train import train
from kronos_service.finetune.event_conditioned.validate import score
from kronos_service.model.factory import Bundle

FIXED_SUBSET = 64
"""Train windows whose loss in eval mode is followed from epoch to epoch."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one training shows its model, and what it leaves out of the adapter."""

    name: str
    conditioning: Conditioning = "real"
    without: Part | None = None


ADAPTER = Variant(name="adapter")
CONTROL = Variant(name="control", conditioning="zeroed")
PLACEBO = Variant(name="placebo", conditioning="permuted")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training and what it came to."""

    model: PeftModel
    fixed_losses: list[float]
    """Loss on the fixed train subset: untrained, then after each epoch."""
    records: pd.DataFrame
    """Validation losses per target, as `validate.score` gives them."""
    seconds: float
    peak_bytes: int | None
    """Most GPU memory allocated at once; None on a CPU."""


def train_arms(
    config: EventLoraConfig, splits: Splits, bundle: Bundle, accelerator: Accelerator, run_dir: Path
) -> dict[str, Arm]:
    """Train the adapter, and the control and the placebo where they are asked for; keys are their names."""
    wanted = {ADAPTER: True, CONTROL: config.control, PLACEBO: config.placebo}
    return {
        variant.name: train_arm(
            variant,
            config,
            splits,
            bundle,
            accelerator,
            run_dir if variant == ADAPTER else run_dir / variant.name,
        )
        for variant, asked in wanted.items()
        if asked
    }


def gains_over_control(arms: Mapping[str, Arm], seed: int) -> dict[str, Gain]:
    """Gains `adapter_event`, `adapter_quiet` and the placebo's; empty where no control was trained."""
    if "control" not in arms:
        return {}
    return {
        f"{name}_{group}": paired_gain(
            arms["control"].records, arm.records, on_event=group == "event", seed=seed
        )
        for name, arm in arms.items()
        if name != "control"
        for group in ("event", "quiet")
    }


def train_arm(
    variant: Variant,
    config: EventLoraConfig,
    splits: Splits,
    bundle: Bundle,
    accelerator: Accelerator,
    directory: Path,
) -> Arm:
    """Train one variant with the settings of `config`, and score it on the validation split; its figures go
    to `directory`.
    """
    begun = time.monotonic()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    conditioned = splits.conditioned(variant.conditioning, config.seed)
    oversample, seed = config.event_oversample, config.seed
    train_set = conditioned.dataset("train", oversample=oversample, blank=config.blank_probability, seed=seed)
    fixed_set = conditioned.dataset("train", oversample=oversample, seed=seed, at_most=FIXED_SUBSET)
    val_set = conditioned.dataset("val")
    model = adapt(
        bundle.model,
        rank=config.rank,
        dropout=config.lora_dropout,
        taps=config.taps,
        seed=config.seed,
        without=variant.without,
    )
    with (
        MetricLog(directory) as log,
        present.training(variant.name, len(train_set), config.epochs) as progress,
    ):
        fixed_losses = train(
            model,
            train_set,
            fixed_set=fixed_set,
            val_set=val_set,
            config=config,
            accelerator=accelerator,
            log=log,
            progress=progress,
        )
    return Arm(
        model=model,
        fixed_losses=fixed_losses,
        records=score(model, val_set, accelerator, micro_batch=config.windows_at_once),
        seconds=time.monotonic() - begun,
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )
