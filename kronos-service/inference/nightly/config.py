"""Settings of the command forecast-all."""

from datetime import date
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from kronos_service.data.sinks import SinkName
from kronos_service.data.sources import SourceName
from kronos_service.model.presets import BASES
from kronos_shared.adapter_location import AdapterLocation
from kronos_shared.cli import Settings
from kronos_shared.ray_cluster import Engine


class ForecastAllConfig(Settings):
    """Settings of a nightly batch."""

    out: Path
    """the file to write, such as forecasts/2026-11-26.parquet; what an interrupted run left is resumed"""
    horizon: int = Field(default=5, ge=1)
    """bars to forecast"""
    paths: int = Field(default=100, ge=2)
    """sample paths; the quantiles are theirs"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """the same seed, model and data give the same numbers"""
    source: SourceName = "snapshot"
    """where symbols, bars and calendar are read from; a database has settings of its own"""
    snapshot: Path | None = None
    """with source snapshot: directory of a snapshot or of tables; the embedded sample if left out"""
    as_of: date | None = None
    """forecast as on the evening of this date (UTC), with what was known then; now if left out"""
    max_stale_sessions: int | None = Field(default=None, ge=0)
    """leave out a symbol that lacks more of the latest sessions; none is left out for that by default"""
    adapter: AdapterLocation | None = None
    """an adapter directory, published adapters (their LATEST) in a directory or at s3://bucket/prefix,
    hub:owner/name@commit, or sample, which ships; adapters
    if there is one, else sample for the embedded sample, else the base alone"""
    base_model: str | None = Field(
        default=None, description=f"{BASES}; the base that the adapter names, or nano, if left out"
    )
    recalibrated: bool = True
    """with the width factors of the adapter, where it has any"""
    with_base: bool = False
    """forecast with the base alone too, for the scorecard to compare with: twice the work"""
    device: str = "cpu"
    """where the model runs; on cpu the numbers do not depend on what is forecast beside them"""
    engine: Engine = "local"
    """ray: on all nodes of a Ray cluster that see the same paths (docs/scaling.md); the same rows"""
    to: SinkName | None = None
    """also write the rows into the table forecasts of this database"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source != "snapshot" and self.snapshot is not None:
            raise ValueError(f"--snapshot names a directory, but --source is {self.source}: drop one of them")
        if self.out.suffix != ".parquet":
            raise ValueError(f"--out must end in .parquet, got {self.out.name}")
        return self
