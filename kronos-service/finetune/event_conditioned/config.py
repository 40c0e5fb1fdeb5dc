"""Settings of the event-lora job and the dates of its three splits."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from kronos_service.finetune.precision import PRECISIONS
from kronos_shared.options import option, require

LONGEST_CONTEXT = 512
"""Bars in a window where neither user nor base asks for fewer."""


@dataclass(frozen=True, kw_only=True)
class EventLoraConfig:
    """Teach a frozen base what scheduled events and leaders do to the next bars, and publish the adapter."""

    snapshot: Path | None = option(
        None,
        help="directory of a snapshot, or of tables (ohlcv_1d, symbols, economic_calendar); "
        "the embedded sample if left out",
    )
    base_model: str = option(
        "kronos-nano", help="kronos-nano (embedded), small, base, a hub id, or a directory"
    )
    revision: str | None = option(None, help="hub revision of the base; pinned for the released models")
    tokenizer: str | None = option(
        None, help="hub id or directory of the tokenizer, where it does not follow from the base"
    )
    tokenizer_revision: str | None = option(None, help="hub revision of the tokenizer")
    run_dir: Path | None = option(None, help="where the run writes; runs/event-lora-<UTC time> if left out")
    adapters: Path = option(Path("adapters"), help="where adapters are published")
    checkpoint_every: int = option(50, help="optimizer steps between checkpoints")
    keep_versions: int = option(10, help="published versions to keep; the one LATEST names is always kept")

    train_start: date = option(date(2021, 1, 1), help="first target date of the train split")
    val_start: date = option(
        date(2025, 1, 1), help="first target date of the validation split; train ends the day before"
    )
    test_start: date = option(
        date(2025, 7, 1), help="first target date of the test split; validation ends the day before"
    )
    test_end: date = option(date(2026, 3, 31), help="last target date of the test split")
    context: int | None = option(
        None, help="bars in a window; the base's own context (at most 512) if left out"
    )
    scored: int = option(32, help="targets scored at the end of each window; windows step by as many")

    epochs: int = option(15, help="passes over the train split")
    batch_size: int = option(32, help="windows in an optimizer step")
    micro_batch: int | None = option(
        None, help="windows in memory at once, accumulated to the batch; what fits if left out"
    )
    vram_budget: float = option(
        6.0, help="GB of GPU memory that the micro-batch is chosen to fit, by measuring; a CPU has no budget"
    )
    precision: str = option("auto", help="auto: bf16 where it is the faster", choices=PRECISIONS)
    learning_rate: float = option(
        1e-4, help="AdamW's peak rate for the LoRA weights, reached after the warm-up"
    )
    event_learning_rate: float = option(
        3e-4, help="AdamW's peak rate for the event embedding, which starts from nothing"
    )
    warmup_steps: int = option(100, help="steps of linear warm-up before the cosine decay")
    weight_decay: float = option(0.01, help="AdamW's weight decay")
    clip: float = option(1.0, help="largest gradient norm")
    rank: int = option(8, help="LoRA rank on q_proj and v_proj; alpha is twice the rank")
    lora_dropout: float = option(0.05, help="dropout on the LoRA input, in [0, 1)")
    taps: str = option(
        "both", choices=("input", "output", "both"), help="where the event embedding enters the network"
    )
    event_oversample: float = option(
        3.0, help="weight of a target with a high-impact event; a quiet one counts once (1-5)"
    )
    blank_probability: float = option(
        0.15, help="share of windows whose surprises and leaders are blanked from a random bar on"
    )
    seed: int = option(0, help="seed of initial weights, window order, dropout and blanking")

    forecast_origins: int = option(
        24, help="validation bars to forecast from for the report at the end; evaluate takes more"
    )
    control: bool = option(
        False, help="train the control alongside (all channels zeroed); without it the gain is unknown"
    )
    placebo: bool = option(False, help="train the placebo alongside (calendar and leaders permuted by date)")
    require_gain: bool = option(False, help="promote only if the conditioning gain's interval lies above 0")
    force: bool = option(False, help="promote whatever the criteria say")

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank must be at least 1, got {self.rank}")
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        require(
            self.micro_batch is None or self.micro_batch >= 1,
            f"micro_batch must be at least 1, got {self.micro_batch}",
        )
        require(
            self.checkpoint_every >= 1, f"checkpoint_every must be at least 1, got {self.checkpoint_every}"
        )
        require(self.vram_budget > 0, f"vram_budget must be positive, got {self.vram_budget}")
        require(
            self.precision in PRECISIONS, f"precision must be one of {PRECISIONS}, got {self.precision!r}"
        )
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        require(self.scored >= 1, f"scored must be at least 1, got {self.scored}")
        require(
            self.context is None or self.context > self.scored,
            f"context must exceed scored ({self.scored}) so that some bars come before the first target, "
            f"got {self.context}",
        )
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(
            self.event_learning_rate > 0,
            f"event_learning_rate must be positive, got {self.event_learning_rate}",
        )
        require(self.warmup_steps >= 0, f"warmup_steps must not be negative, got {self.warmup_steps}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        require(self.clip > 0, f"clip must be positive, got {self.clip}")
        require(0 <= self.lora_dropout < 1, f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        require(
            self.taps in ("input", "output", "both"), f"taps must be input, output or both, got {self.taps!r}"
        )
        require(
            1 <= self.event_oversample <= 5, f"event_oversample must be in 1-5, got {self.event_oversample}"
        )
        require(
            0 <= self.blank_probability <= 1,
            f"blank_probability must be in [0, 1], got {self.blank_probability}",
        )
        require(
            self.forecast_origins >= 0, f"forecast_origins must not be negative, got {self.forecast_origins}"
        )
        require(self.keep_versions >= 1, f"keep_versions must be at least 1, got {self.keep_versions}")
        require(
            self.train_start < self.val_start < self.test_start <= self.test_end,
            "split dates must ascend: train_start < val_start < test_start <= test_end, got "
            f"{self.train_start}, {self.val_start}, {self.test_start}, {self.test_end}",
        )
        require(self.control or not self.require_gain, "require_gain needs the control: add --control")

    def split_dates(self) -> dict[str, tuple[np.datetime64, np.datetime64]]:
        """First and last target date of each split."""
        one_day = np.timedelta64(1, "D")
        train, val, test, end = map(
            np.datetime64, (self.train_start, self.val_start, self.test_start, self.test_end)
        )
        return {"train": (train, val - one_day), "val": (val, test - one_day), "test": (test, end)}


@dataclass(frozen=True, kw_only=True)
class EventLoraFlags(EventLoraConfig):
    """The settings, and whether a run that has them is to go on."""

    resume: bool = option(
        False,
        help="go on with the newest unfinished run under runs/, or with the one that --run-dir names, "
        "under the settings it began with",
    )
