"""Settings of the commands that make snapshots and bases; only light modules are imported here."""

from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from kronos_service.data.public_facts import AcceptedName
from kronos_service.data.sources import SourceName
from kronos_service.data.sources.presets import PresetName as VendorPreset
from kronos_service.finetune.event_conditioned.config import Precision
from kronos_service.model.presets import BASES, PresetName
from kronos_shared.adapter_location import AdapterLocation
from kronos_shared.cli import ConfigError, Settings


class ExportConfig(Settings):
    """Settings of an export."""

    out: Path
    """directory of the snapshot; an older one there stays until the new one is whole"""
    source: SourceName = "supabase"
    """where to read: SUPABASE_URL and SUPABASE_KEY, or DATABASE_URL, or a directory of tables"""
    tables: Path | None = None
    """with --source snapshot: the directory of tables to read"""
    interval: Literal["1d", "4h", "1h"] = "1d"
    """how long the bars are; those shorter than a day are of crypto only, from table ohlcv"""
    since: date | None = None
    """first session date of the bars; all there are if left out"""
    on_bad_row: Literal["fail", "drop"] = "fail"
    """a bar that cannot be true stops the export, or is dropped and listed"""
    accept: tuple[AcceptedName, ...] = ()
    """departures from what is public about releases and markets that are meant, by their names"""
    taxonomy: Path | None = None
    """TOML file of your own event types and leaders; an incremental export keeps the snapshot's"""
    incremental: bool = False
    """add what is new to the snapshot in --out, and keep what its calendar knew before"""
    resume: bool = False
    """do not read again what an interrupted export of the same rows had read"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.source == "snapshot") != (self.tables is not None):
            raise ConfigError(
                "--tables names the directory that --source snapshot reads: give both or neither"
            )
        if self.incremental and self.interval != "1d":
            raise ConfigError(f"--incremental adds daily bars: export {self.interval} bars whole, without it")
        if self.incremental and self.resume:
            raise ConfigError(
                "--resume completes a full export, --incremental reads only what is new: give one of them"
            )
        return self


class ImportConfig(Settings):
    """Settings of an import."""

    ohlcv: tuple[Path, ...] = Field(min_length=1)
    """files of daily bars, .csv or .parquet"""
    calendar: tuple[Path, ...] = Field(min_length=1)
    """files of releases, .csv or .parquet"""
    symbols: Path | None = None
    """file of symbols with their asset class; without it the map gives them"""
    map: Path | None = None
    """TOML file that says what the files call our columns, and in which time zone"""
    preset: tuple[VendorPreset, ...] = ()
    """the shape of a vendor's files, beside the map or instead of it; several for files of several vendors"""
    out: Path
    """directory of the snapshot; an older one there stays until the new one is whole"""
    on_bad_row: Literal["fail", "drop"] = "fail"
    """a bar that cannot be true stops the import, or is dropped and listed"""
    accept: tuple[AcceptedName, ...] = ()
    """departures from what is public about releases and markets that are meant, by their names"""
    taxonomy: Path | None = None
    """TOML file of your own event types and leaders"""


class SampleConfig(Settings):
    """Settings of the sample market."""

    out: Path
    """directory to write the snapshot to"""
    seed: int = 0
    """seed of the market; 0 is the embedded one"""
    symbols: int = 24
    """tradable US equities, SPY among them"""
    start: date = date(2020, 1, 1)
    """first day"""
    end: date = date(2026, 3, 31)
    """last day of the bars"""
    own_events: bool = False
    """the second market: event types, earnings of each symbol and leaders that the default taxonomy lacks"""


class TaxonomyConfig(Settings):
    """Settings of the command `taxonomy check`."""

    file: Path
    """TOML file of event types and leaders"""


class PretrainConfig(Settings):
    """Settings of the command `pretrain`; the defaults make a mini-sized base in about an hour of 2 cores."""

    snapshot: Path
    """snapshot, or directory of tables, whose bars are learned"""
    out: Path
    """directory of the new base"""
    preset: PresetName = "mini"
    """shape of the network"""
    until: date = date(2025, 1, 1)
    """only bars before this date are seen"""
    context: int = Field(default=256, ge=32)
    """bars per window, and the base's longest sequence"""
    tokenizer_steps: int = Field(default=1500, ge=1)
    """optimizer steps of the tokenizer"""
    predictor_steps: int = Field(default=2000, ge=1)
    """optimizer steps of the predictor"""
    batch_size: int = Field(default=16, ge=1)
    """windows per step"""
    tokenizer_lr: float = Field(default=2e-3, gt=0)
    """peak learning rate of the tokenizer"""
    predictor_lr: float = Field(default=1e-3, gt=0)
    """peak learning rate of the predictor"""
    heldout: float = Field(default=0.05, gt=0, lt=1)
    """share of the dates, the last before --until, kept for validation"""
    precision: Precision = "auto"
    """auto: bf16 where it is faster"""
    save_every: int = Field(default=200, ge=1)
    """steps between two checkpoints to resume from"""
    seed: int = Field(default=0, ge=0)
    """seed of weights, windows and dropout"""


class PushConfig(Settings):
    """Settings of the command `push`."""

    adapter: AdapterLocation
    """an adapter directory, published adapters (their LATEST) in a directory or at s3://bucket/prefix, or
    sample, which ships"""
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """the repository on the hub, owner/name; it is made if it does not exist"""
    public: bool = False
    """make a repository that everybody can read; one that exists stays as it is"""


class MergeConfig(Settings):
    """Settings of the command `merge`."""

    adapter: AdapterLocation
    """an adapter directory, published adapters (their LATEST) in a directory or at s3://bucket/prefix,
    hub:owner/name@commit, or sample, which ships"""
    out: Path
    """directory of the merged base, which must not exist"""
    base_model: str | None = Field(
        default=None, description=f"{BASES}; the base that the adapter names if left out"
    )
