"""Settings of the event-conditioned commands, and the dates of the three splits.

Only light modules are imported here: flags are checked before torch is loaded.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kronos_service.data.public_facts import AcceptedName
from kronos_service.model.presets import BASES
from kronos_shared.adapter_location import AdapterLocation, StoreLocation
from kronos_shared.adapter_manifest import LoraRecord
from kronos_shared.cli import ConfigError, Settings
from kronos_shared.lora_targets import ALL_LINEAR, DEFAULT_TARGETS, TargetName, linear_names

if TYPE_CHECKING:
    import numpy as np

LONGEST_CONTEXT = 512
"""Bars in a window where neither user nor base asks for fewer."""
FEWEST_PATHS = 20
"""With fewer sample paths the 5 % quantile lies outside them."""

Precision = Literal["auto", "no", "bf16"]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio", "none"]
RENAMED = {
    "scored": "targets_per_window",
    "clip": "max_grad_norm",
    "adapters": "adapter_store",
    "event_oversample": "event_weight",
}
"""Settings as runs of earlier versions stored them."""
RENAMED_FLAGS = {old: "--" + new.replace("_", "-") for old, new in RENAMED.items()} | {
    "force": "--promote always",
    "require_gain": "--promote if-gain",
}


def _split(given: Any) -> Any:
    """Peft's own form, `q_proj,v_proj`, is as good as several values."""
    texts = [given] if isinstance(given, str) else given
    return [name for text in texts for name in text.split(",")] if _all_texts(texts) else given


def _all_texts(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(one, str) for one in values)


def _in_order(chosen: tuple[TargetName, ...]) -> tuple[TargetName, ...]:
    if not chosen:
        raise ConfigError("--target-modules must name at least one layer")
    if ALL_LINEAR not in chosen:
        return linear_names(chosen)
    if len(chosen) > 1:
        raise ConfigError(f"--target-modules {ALL_LINEAR} stands alone, got {' '.join(chosen)}")
    return chosen


TargetModules = Annotated[tuple[TargetName, ...], BeforeValidator(_split), AfterValidator(_in_order)]


class _Source(Settings):
    """Which data, and which base."""

    renamed = RENAMED_FLAGS

    snapshot: Path | None = None
    """directory of a snapshot, or of tables (ohlcv_1d, symbols, economic_calendar); the embedded sample
    if left out"""
    base_model: str = Field(default="kronos-nano", description=BASES)
    revision: str | None = None
    """hub revision of the base; pinned for the released models"""
    tokenizer: str | None = None
    """hub id or directory of the tokenizer, where it does not follow from the base"""
    tokenizer_revision: str | None = None
    """hub revision of the tokenizer"""

    def sources(self) -> dict[str, Any]:
        """The settings that say which data and which base, for a command that is to read the same."""
        return {name: getattr(self, name) for name in _Source.model_fields}


class Recipe(_Source):
    """How one model is trained, whatever its dates."""

    aliases: ClassVar = {"event_oversample": "event_weight"}

    context: int | None = None
    """bars in a window; the base's own context (at most 512) if left out"""
    targets_per_window: int = Field(default=32, ge=1)
    """targets scored at the end of each window; windows step by as many"""

    epochs: int = Field(default=15, ge=1)
    """passes over the train split"""
    batch_size: int = Field(default=32, ge=1)
    """windows in an optimizer step"""
    micro_batch: int | None = Field(default=None, ge=1)
    """windows in memory at once, accumulated to the batch; what fits if left out"""
    vram_budget: float = Field(default=6.0, gt=0)
    """GB of GPU memory that the micro-batch is chosen to fit, by measuring; a CPU has no budget"""
    precision: Precision = "auto"
    """auto: bf16 where it is faster"""
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's peak rate for the LoRA weights, reached after the warm-up"""
    event_learning_rate: float = Field(default=3e-4, gt=0)
    """AdamW's peak rate for the event embedding, which starts from zero"""
    warmup_steps: int = Field(default=100, ge=0)
    """steps of linear warm-up before the cosine decay"""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay"""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """gradients are clipped to this norm"""
    rank: int = Field(default=8, ge=1, le=1024)
    """LoRA rank"""
    alpha: int | None = Field(default=None, ge=1, le=4096)
    """LoRA alpha; twice the rank if left out"""
    target_modules: TargetModules = DEFAULT_TARGETS
    """linear layers that LoRA adapts (docs/training.md), or all-linear: all but the two heads"""
    use_rslora: bool = False
    """scale LoRA's update by alpha / sqrt(rank) instead of alpha / rank"""
    use_dora: bool = False
    """train the magnitude of each adapted output apart from its direction (1.3 times a step's time)"""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """dropout on the LoRA input"""
    taps: Literal["input", "output", "both"] = "both"
    """where the event embedding enters the network"""
    event_start: Literal["all", "tier1"] = "all"
    """channels that the event embedding hears at first: all, or the tier-1 families, all alike; the others
    then start at zero"""
    event_weight: float = Field(default=3.0, ge=1, le=5)
    """weight in the loss of a target with a high-impact event; any other target counts once"""
    blank_probability: float = Field(default=0.15, ge=0, le=1)
    """share of windows whose surprises and leaders are blanked from a random bar on"""

    def lora(self) -> LoraRecord:
        """What LoRA adapts and how, as an adapter's manifest says it."""
        return LoraRecord(
            rank=self.rank,
            alpha=self.alpha or 2 * self.rank,
            dropout=self.lora_dropout,
            target_modules=linear_names(self.target_modules),
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
        )

    @model_validator(mode="after")
    def _bars_come_first(self) -> Self:
        if self.context is not None and self.context <= self.targets_per_window:
            raise ConfigError(
                f"--context must exceed --targets-per-window ({self.targets_per_window}) so that some bars "
                f"come before the first target, got {self.context}"
            )
        return self


class Training(Recipe):
    """A recipe and the dates of its splits."""

    train_start: date = date(2021, 1, 1)
    """first target date of the train split"""
    train_end: date | None = None
    """last target date of the train split; the day before --val-start if left out"""
    val_start: date = date(2025, 1, 1)
    """first target date of the validation split"""
    test_start: date = date(2025, 7, 1)
    """first target date of the test split; validation ends the day before"""
    test_end: date = date(2026, 3, 31)
    """last target date of the test split"""

    @model_validator(mode="after")
    def _dates_ascend(self) -> Self:
        if not self.train_start < self.val_start < self.test_start <= self.test_end:
            raise ConfigError(
                "split dates must ascend: --train-start < --val-start < --test-start <= --test-end, got "
                f"{self.train_start}, {self.val_start}, {self.test_start}, {self.test_end}"
            )
        if self.train_end is not None and not self.train_start <= self.train_end < self.val_start:
            raise ConfigError(
                f"--train-end must lie from --train-start ({self.train_start}) to the day before --val-start "
                f"({self.val_start}), got {self.train_end}"
            )
        return self


class EventLoraConfig(Training):
    """Teach a frozen base what scheduled events and leaders do to the next bars, and publish the adapter."""

    run_dir: Path | None = None
    """where the run writes; runs/event-lora-<UTC time> if left out"""
    adapter_store: StoreLocation = Path("adapters")
    """where adapters are published: a directory, or s3://bucket/prefix"""
    checkpoint_every: int = Field(default=50, ge=1)
    """optimizer steps between checkpoints"""
    keep_versions: int = Field(default=10, ge=1)
    """published versions to keep; the one LATEST names is always kept"""
    tracker: Tracker = "tensorboard"
    """where losses and rates are shown while it trains; metrics.jsonl holds them in any case"""
    seed: int = Field(default=0, ge=0)
    """seed of initial weights, window order, dropout and blanking"""
    forecast_origins: int = Field(default=24, ge=0)
    """validation bars to forecast from for the report at the end; evaluate takes more"""
    forecast_horizon: int = Field(default=5, ge=1)
    """bars ahead of these forecasts"""
    forecast_paths: int = Field(default=32, ge=FEWEST_PATHS)
    """sample paths from each of them"""
    recalibrate: bool = False
    """forecast from up to 500 validation bars at the end, and store by what factor the widths were off, which
    every forecast of the adapter then makes up for"""
    control: bool = True
    """train the control alongside (all channels zeroed), which takes as long again; without it the gain is
    not measured"""
    placebo: bool = False
    """train the placebo alongside (calendar and leaders permuted by date)"""
    promote: Literal["if-better", "if-gain", "always", "never"] = "if-gain"
    """make the adapter LATEST where it is better than its base, no worse than the adapter that LATEST names,
    and the conditioning gain's interval lies above 0; if-better: without asking for the gain"""

    @model_validator(mode="after")
    def _gain_is_measured(self) -> Self:
        if self.promote == "if-gain" and not self.control:
            raise ConfigError(
                "--promote if-gain, the default, needs the control: leave --no-control out, or add "
                "--promote if-better"
            )
        return self

    def split_dates(self) -> "dict[str, tuple[np.datetime64, np.datetime64]]":
        """First and last target date of each split."""
        import numpy as np

        one_day = np.timedelta64(1, "D")
        train, val, test, end = map(
            np.datetime64, (self.train_start, self.val_start, self.test_start, self.test_end)
        )
        train_end = np.datetime64(self.train_end) if self.train_end else val - one_day
        return {"train": (train, train_end), "val": (val, test - one_day), "test": (test, end)}


class EventLoraFlags(EventLoraConfig):
    """The settings, and whether a run that has them is to be started, resumed or only planned."""

    resume: bool = False
    """resume the newest unfinished run under runs/, or the one that --run-dir names, under its settings"""
    plan: bool = False
    """train nothing: show memory, steps, time and disk that the run would need, in seconds"""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.resume and self.plan:
            raise ConfigError("--plan is about a new run, and --resume continues one: leave one of them out")
        return self


def current(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of a run, which may be of an earlier version, under today's names."""
    settings = {RENAMED.get(name, name): value for name, value in stored.items()}
    if "force" in settings or "require_gain" in settings:
        force, if_gain = settings.pop("force", False), settings.pop("require_gain", False)
        settings["promote"] = "always" if force else "if-gain" if if_gain else "if-better"
    return settings


class EvaluateConfig(_Source):
    """Score an adapter against its base on one split of a snapshot."""

    base_model: str = Field(
        default="kronos-nano", description=f"the base that the adapter was trained on: {BASES}"
    )
    adapter: AdapterLocation = Path("adapters")
    """an adapter directory, published adapters (their LATEST) in a directory or at s3://bucket/prefix, or
    hub:owner/name@commit"""
    split: Literal["train", "val", "test"] = "val"
    """which of the adapter's splits, by target date"""
    open_test_split: bool = False
    """look at the test split, once everything is decided; each look is logged"""
    out: Path | None = None
    """where figures and report go; the adapter's run directory, or runs/evaluate-<version>, if left out"""
    targets_per_window: int = Field(default=32, ge=1)
    """targets scored at the end of each window"""
    micro_batch: int = Field(default=32, ge=1)
    """windows in memory at once"""
    origins: int = Field(default=120, ge=0)
    """bars to forecast from, drawn from the split by the seed; 0 scores token losses only"""
    horizon: int = Field(default=10, ge=1)
    """bars ahead"""
    paths: int = Field(default=64, ge=FEWEST_PATHS)
    """sample paths from each origin; with fewer than 20 the 5 % quantile lies outside them"""
    temperature: float = 1.0
    """how tokens are drawn; 1 is the model's own distribution"""
    top_p: float = 1.0
    """share of probability that tokens are drawn from; below 1 cuts tails"""
    seed: int = Field(default=0, ge=0)
    """seed of origins, paths and intervals"""

    @model_validator(mode="after")
    def _test_split_is_meant(self) -> Self:
        if self.split == "test" and not self.open_test_split:
            raise ConfigError(
                "the test split stays closed until everything is decided: whatever is chosen after a look at "
                "it makes its figures too good; add --open-test-split to look, and the look is logged"
            )
        if self.split != "test" and self.open_test_split:
            raise ConfigError(f"--open-test-split belongs to --split test, got --split {self.split}")
        return self


class AuditConfig(_Source):
    """Recompute what the model is given, independently, and show every row that knows the future."""

    train_start: date = Training.model_fields["train_start"].default
    """first target date of the train split"""
    val_start: date = Training.model_fields["val_start"].default
    """first target date of the validation split; train ends the day before"""
    test_start: date = Training.model_fields["test_start"].default
    """first target date of the test split; validation ends the day before"""
    test_end: date = Training.model_fields["test_end"].default
    """last target date of the test split"""
    quick: bool = False
    """a few seconds instead of minutes: fewer symbols, rows and futures"""
    accept: tuple[AcceptedName, ...] = ()
    """departures from what is public about releases and markets that are meant, by their names"""
    seed: int = 0
    """seed of the draw of symbols, rows and futures"""

    @model_validator(mode="after")
    def _dates_ascend(self) -> Self:
        self._training()
        return self

    def split_dates(self) -> "dict[str, tuple[np.datetime64, np.datetime64]]":
        """First and last target date of each split."""
        return self._training().split_dates()

    def _training(self) -> EventLoraConfig:
        names = ("train_start", "val_start", "test_start", "test_end")
        return EventLoraConfig(**{name: getattr(self, name) for name in names})


class DoctorConfig(_Source):
    """Check that this machine, this data and this base can do a real run."""

    adapter_store: StoreLocation = Path("adapters")
    """where adapters are published: a directory, or s3://bucket/prefix"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a CUDA device if there is one; cuda: a machine without one is a fault"""


class ReportConfig(Settings):
    """Write the report of a run again, from what its directory holds now."""

    run: Path
    """the run directory, or the directory of an evaluation"""
    ablation: Path | None = None
    """an ablation.json to show; the run's own if left out"""
