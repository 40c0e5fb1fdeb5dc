"""Settings of the walk-forward command; only light modules are imported here."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kronos_service.finetune.event_conditioned.config import FEWEST_PATHS, EventLoraConfig, Recipe
from kronos_shared.adapter_location import StoreLocation
from kronos_shared.cli import ConfigError
from kronos_shared.ray_cluster import Engine


class WalkForwardConfig(Recipe):
    """Train and score one period after another, each by what came before it, and pool the targets."""

    out: Path = Path("runs/walk-forward")
    """where table, picture, page and a run per fold and seed go; what has finished there stays"""
    train_start: date = date(2021, 1, 1)
    """first target date of any train split"""
    train_window: str = Field(default="expanding", pattern=r"^(expanding|[1-9][0-9]*m)$")
    """how far before a fold its training reaches: expanding, or months such as 36m"""
    first_val: date = date(2022, 1, 1)
    """first target date of the first fold"""
    last_val: date | None = None
    """last target date of the last fold; the last one that the snapshot can score if left out"""
    fold: str = Field(default="12m", pattern=r"^[1-9][0-9]*m$")
    """length of a fold in months"""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1), min_length=1)
    """seeds of weights and order; each trains every fold"""
    choose_epochs: bool = False
    """choose each fold's epochs, up to --epochs, on the last fifth of its own training dates"""
    placebo: bool = False
    """train the placebo too (calendar and leaders permuted by date)"""
    horizon: int = Field(default=1, ge=1)
    """bars ahead that are forecast; as many sessions before each fold are not trained on"""
    origins: int = Field(default=600, ge=0)
    """bars of each fold to forecast from, drawn by the seed; 0 scores token losses only"""
    paths: int = Field(default=64, ge=FEWEST_PATHS)
    """sample paths from each origin"""
    engine: Engine = "local"
    """ray: a run per worker of a Ray cluster whose nodes see the same paths (docs/scaling.md)"""
    checkpoint_every: int = Field(default=50, ge=1)
    """optimizer steps between checkpoints"""
    publish: bool = False
    """then train one adapter on the newest window, to the snapshot's end, and publish it with the evidence"""
    adapter_store: StoreLocation = Path("adapters")
    """where the adapter is published: a directory, or s3://bucket/prefix"""
    keep_versions: int = Field(default=10, ge=1)
    """published versions to keep; the one LATEST names is always kept"""
    promote: Literal["if-gain", "always"] = "if-gain"
    """with --publish: make the adapter LATEST where the pooled gain's interval lies above 0"""

    @model_validator(mode="after")
    def _folds_follow(self) -> Self:
        if not self.train_start < self.first_val:
            raise ConfigError(
                f"--first-val must lie after --train-start {self.train_start}, got {self.first_val}"
            )
        if self.last_val is not None and self.last_val < self.first_val:
            raise ConfigError(f"--last-val must not lie before --first-val {self.first_val}")
        return self

    @property
    def fold_months(self) -> int:
        """Length of a fold."""
        return int(self.fold[:-1])

    @property
    def train_months(self) -> int | None:
        """Longest training window, or None if it expands."""
        return None if self.train_window == "expanding" else int(self.train_window[:-1])

    def training(self, seed: int, **settings: Any) -> EventLoraConfig:
        """The settings of one of its trainings."""
        shared = {name: getattr(self, name) for name in Recipe.model_fields}
        return EventLoraConfig(**(shared | {"checkpoint_every": self.checkpoint_every} | settings), seed=seed)
