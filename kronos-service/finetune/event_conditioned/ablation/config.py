"""Settings of the ablate command: those of event-lora that its arms share, and which arms there are."""

from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, chosen
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_shared.options import option, require, same


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """Train the adapter with one thing changed at a time, and compare target by target."""

    out: Path = option(Path("runs/ablation"), help="where tables, picture and records go; finished arms stay")
    arms: tuple[str, ...] = option(
        (),
        choices=tuple(VARIANTS),
        help="arms beside adapter and control; all, if neither --arms nor --vary is given",
    )
    vary: tuple[str, ...] = option(
        (), help="NAME=VALUE: an arm that is the adapter with this one setting changed"
    )
    seeds: tuple[int, ...] = option((0, 1, 2), help="seeds of weights and order; each trains every arm")

    snapshot: Path | None = same(EventLoraConfig, "snapshot")
    base_model: str = same(EventLoraConfig, "base_model")
    revision: str | None = same(EventLoraConfig, "revision")
    tokenizer: str | None = same(EventLoraConfig, "tokenizer")
    tokenizer_revision: str | None = same(EventLoraConfig, "tokenizer_revision")
    train_start: date = same(EventLoraConfig, "train_start")
    val_start: date = same(EventLoraConfig, "val_start")
    test_start: date = same(EventLoraConfig, "test_start")
    context: int | None = same(EventLoraConfig, "context")
    scored: int = same(EventLoraConfig, "scored")
    epochs: int = same(EventLoraConfig, "epochs")
    batch_size: int = same(EventLoraConfig, "batch_size")
    micro_batch: int | None = same(EventLoraConfig, "micro_batch")
    vram_budget: float = same(EventLoraConfig, "vram_budget")
    precision: str = same(EventLoraConfig, "precision")
    learning_rate: float = same(EventLoraConfig, "learning_rate")
    event_learning_rate: float = same(EventLoraConfig, "event_learning_rate")
    warmup_steps: int = same(EventLoraConfig, "warmup_steps")
    weight_decay: float = same(EventLoraConfig, "weight_decay")
    clip: float = same(EventLoraConfig, "clip")
    rank: int = same(EventLoraConfig, "rank")
    lora_dropout: float = same(EventLoraConfig, "lora_dropout")
    taps: str = same(EventLoraConfig, "taps")
    event_oversample: float = same(EventLoraConfig, "event_oversample")
    blank_probability: float = same(EventLoraConfig, "blank_probability")

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "seeds must name at least one seed")
        for arm in chosen(self.arms, self.vary):
            arm.config(self.training(self.seeds[0]))

    def training(self, seed: int) -> EventLoraConfig:
        """The settings that all arms share, for one seed."""
        known = {item.name for item in fields(EventLoraConfig)}
        common = {item.name: getattr(self, item.name) for item in fields(self) if item.name in known}
        return EventLoraConfig(**common, seed=seed)
