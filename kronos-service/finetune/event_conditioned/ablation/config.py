"""Settings of the ablation.

Only light modules are imported here: flags are checked before torch is loaded.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kronos_service.finetune.event_conditioned.config import EventLoraConfig, Training
from kronos_shared.cli import ConfigError, check, did_you_mean
from kronos_shared.ray_cluster import Engine

VariantName = Literal[
    "adapter",
    "control",
    "placebo",
    "rank-8",
    "rank-4",
    "all-linear",
    "all-linear-rank-2",
    "rslora",
    "dora",
    "taps-input",
    "taps-output",
    "taps-both",
    "calendar-only",
    "leaders-only",
    "events-only",
    "lora-only",
]
"""The names of `variants.VARIANTS`, which cannot be imported here."""


class AblateConfig(Training):
    """Train the adapter with one thing changed at a time, and compare target by target."""

    aliases: ClassVar = {**Training.aliases, "arms": "variants"}

    out: Path = Path("runs/ablation")
    """where table, picture and a run per training go; what has finished there is not trained again"""
    variants: tuple[VariantName, ...] = ()
    """variants beside adapter and control; all, if neither --variants nor --vary is given"""
    vary: tuple[str, ...] = ()
    """NAME=VALUE: a variant that is the adapter with this one setting changed"""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    """seeds of weights and order; each trains every variant"""
    engine: Engine = "local"
    """ray: a training per worker of a Ray cluster whose nodes see the same paths (docs/scaling.md)"""

    @model_validator(mode="after")
    def _variations_are_settings(self) -> Self:
        for assignment in self.vary:
            variation(assignment)
        return self

    def training(self, seed: int) -> EventLoraConfig:
        """The settings that all variants share, for one seed."""
        return EventLoraConfig(**{name: getattr(self, name) for name in Training.model_fields}, seed=seed)


VARIABLE = (
    "rank",
    "alpha",
    "target_modules",
    "use_rslora",
    "use_dora",
    "taps",
    "event_start",
    "learning_rate",
    "event_learning_rate",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "lora_dropout",
    "event_weight",
    "blank_probability",
    "batch_size",
    "epochs",
)
"""Settings that a variant may change: all leave the targets as they are, so that differences stay paired."""


def variation(assignment: str) -> tuple[str, Any]:
    """Name and value of `NAME=VALUE`.

    Raises:
        ConfigError: not of that form, a setting that cannot be varied, or a value that it cannot have.
    """
    name, _, text = assignment.partition("=")
    name = name.replace("-", "_")
    name = EventLoraConfig.aliases.get(name, name)
    if name not in VARIABLE:
        raise ConfigError(
            f"--vary takes NAME=VALUE with a name among {', '.join(VARIABLE)}; got {assignment!r}"
            f"{did_you_mean(name, VARIABLE)}"
        )
    return name, check(EventLoraConfig, name, text, f"--vary {name}")
