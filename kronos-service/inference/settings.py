"""Settings of the service, from the environment (KRONOS_API_KEYS=...), and of the command forecast."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kronos_service.data.sources import SourceName
from kronos_service.model.packaged import adapter_path
from kronos_service.model.precision import Precision
from kronos_service.model.presets import BASES
from kronos_shared.adapter_location import AdapterLocation
from kronos_shared.cli import Settings as CommandSettings
from kronos_shared.errors import KronosError

PREFIX: Final = "KRONOS_"
OTHER_COMMANDS: Final = (
    *(
        "EVENT_LORA",
        "EVALUATE",
        "ABLATE",
        "WALK_FORWARD",
        "REPORT",
        "SCORECARD",
        "AUDIT",
        "EXPORT",
        "IMPORT",
        "PRETRAIN",
        "MERGE",
        "PUSH",
        "SAMPLE",
        "TAXONOMY",
        "DOCTOR",
    ),
    *("FORECAST", "FORECAST_ALL", "SERVE"),
)
"""KRONOS_<COMMAND>_<FIELD> is a setting of another command, which checks it itself."""
SHORTEST_KEY: Final = 16
STALE_SESSIONS: Final = 5
"""A symbol lacks a session for hours after each close, and a few days at worst."""
MOST_EVENTS: Final = 20_000
MOST_SERIES: Final = 1024
MOST_BARS: Final = 8192
"""A request's lists end here, at the first item too many, whatever limits an operator sets."""

_NAMED: Final = re.compile(rf"([\w.-]{{1,32}}):(.{{{SHORTEST_KEY},}})", re.ASCII)
EVERY_KEY: Final = "*"

Keys = Annotated[tuple[SecretStr, ...], NoDecode]


class SettingsError(KronosError):
    """Settings that the service cannot start with."""


@dataclass(frozen=True)
class NamedKey:
    """A key, and the name that logs and metrics call it by."""

    name: str
    secret: SecretStr


class KeyLimit(BaseModel):
    """What one key may take."""

    model_config = ConfigDict(frozen=True)

    rate: float = Field(gt=0, allow_inf_nan=False)
    """Requests a second."""
    share: float = Field(gt=0, le=1)
    """Of the places in the queue."""


def named_key(entry: str, otherwise: str) -> NamedKey:
    """The key of an entry NAME:KEY, or KEY, which is called `otherwise`.

    Raises:
        ValueError: too short; the message does not show it.
    """
    named = _NAMED.fullmatch(entry)
    name, key = named.groups() if named else (otherwise, entry)
    if len(key) < SHORTEST_KEY or not key.isascii():
        raise ValueError(f"keys need at least {SHORTEST_KEY} ASCII characters: openssl rand -hex 24")
    return NamedKey(name, SecretStr(key))


def _named_keys(role: str, entries: Sequence[SecretStr]) -> list[NamedKey]:
    return [
        named_key(entry.get_secret_value(), f"{role}-{number}") for number, entry in enumerate(entries, 1)
    ]


def _key_limit(text: str) -> tuple[str, KeyLimit]:
    found = re.fullmatch(r"\s*(\*|[\w.-]+)=([\d.]+):([\d.]+)\s*", text)
    try:
        if found is None:
            raise ValueError
        return found[1], KeyLimit(rate=float(found[2]), share=float(found[3]))
    except ValueError:
        raise ValueError(
            "expected NAME=RATE:SHARE, such as alice=2:0.25, with a rate above 0 and a share up to 1"
        ) from None


class Settings(BaseSettings):
    """Everything that an operator decides; each name, with the prefix KRONOS_, is an environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True, str_strip_whitespace=True
    )

    api_keys: Keys = ()
    """Keys that may forecast, KEY or NAME:KEY, separated by commas."""
    admin_keys: Keys = ()
    """Keys that may reload, pin and roll back adapters; with none, nobody may."""
    api_keys_file: Path | None = None
    """More of them, NAME:KEY one a line; read again when it changes."""
    admin_keys_file: Path | None = None
    key_limits: Annotated[Mapping[str, KeyLimit], NoDecode] = {}
    """NAME=RATE:SHARE, separated by commas: requests a second, share of the queue; * is every other key."""

    adapters: AdapterLocation = Path("adapters")
    """The adapter store, a directory or s3://bucket/prefix; nothing outside it is ever loaded. `sample`: the
    adapter that ships; hub:owner/name@commit: that one."""
    state_dir: Path = Path("state")
    """Where the last good version is remembered across restarts."""
    base_model: str | None = None
    """Preset, directory or hub id; default: the base that the first adapter was made for."""
    base_revision: str | None = None
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    allow_base_only: bool = False
    """Serve the plain base while there is no adapter, rather than not be ready."""
    poll_seconds: float = Field(default=2.0, gt=0)
    """How often LATEST.json is looked at."""
    device: str = "cpu"
    precision: Precision = "fp32"
    """bf16, on a CUDA device only: half the memory."""

    source: SourceName = "snapshot"
    """Where symbols, calendar and leaders come from; a database has settings of its own."""
    snapshot: Path | None = None
    """With source snapshot: its directory; default: the embedded sample market."""
    taxonomy: Path | None = None
    """With another source: TOML file of your own event types and leaders; a snapshot carries its own."""
    refresh_seconds: float = Field(default=60.0, gt=0)
    """How often the source is looked at."""

    served_log: Path | None = None
    """Directory for what was answered about symbols of the source, which scorecard reads; unset: no log."""
    served_log_days: int = Field(default=400, ge=1)
    """Days after which a file of it is removed."""

    max_stale_sessions: int | None = Field(default=None, ge=0)
    """Reject a symbol that lacks more of the latest sessions; unset: answer, and say that it is stale."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    max_held_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Bodies that are being received, all together; the next one is answered 429."""
    max_connections: int = Field(default=512, ge=1)
    """Connections at once; one beyond takes the place of one that has not sent its request."""
    head_seconds: float = Field(default=10.0, gt=0)
    """A connection that has not sent the whole head of its request by then is closed."""
    body_seconds: float = Field(default=30.0, gt=0)
    """As long again for its body."""
    max_series: int = Field(default=16, ge=1, le=MOST_SERIES)
    max_bars: int = Field(default=1024, ge=64, le=MOST_BARS)
    max_horizon: int = Field(default=64, ge=1)
    max_paths: int = Field(default=256, ge=1)
    max_rows: int = Field(default=256, ge=1)
    """Sample paths decoded at once, series x paths: the most that one request, or one batch, may ask for."""

    queue_size: int = Field(default=64, ge=1)
    """Requests that may wait; the next one is answered 429."""
    default_deadline_ms: int = Field(default=10_000, ge=1)
    max_deadline_ms: int = Field(default=60_000, ge=1)
    batch_window_ms: float = Field(default=5.0, ge=0)
    """How long an idle service waits for company before it runs a forecast."""

    @property
    def api_keys_of_environment(self) -> list[NamedKey]:
        """The API keys that are not in a file."""
        return _named_keys("api", self.api_keys)

    @property
    def admin_keys_of_environment(self) -> list[NamedKey]:
        """The admin keys that are not in a file."""
        return _named_keys("admin", self.admin_keys)

    @property
    def stale_after(self) -> int:
        """Sessions that a symbol may lack before it is called stale."""
        return STALE_SESSIONS if self.max_stale_sessions is None else self.max_stale_sessions

    @property
    def most_values(self) -> int:
        """JSON values of a body at most: eight an event or bar, and some for what a request says once."""
        return 8 * (MOST_EVENTS + self.max_series * self.max_bars) + 4096

    ui: bool = True
    """Serve the page (/ui) and the API's description (/docs) to browsers."""
    scorecard: Path | None = None
    """The scorecard.json that `scorecard` wrote: the track record that the page shows."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call the service from a browser, separated by commas; * is every one."""
    root_path: str = Field(default="", pattern=r"^(/[^/?#]+)*$")
    """Path under which a proxy publishes the service, such as /kronos."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#\s]+", origin):
                raise ValueError(f"expected origins such as https://desk.example, got {origin!r}")
        return value

    @field_validator("adapters", mode="after")
    @classmethod
    def _find_packaged(cls, value: Path | str) -> Path | str:
        return adapter_path(value)

    @field_validator("api_keys", "admin_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value

    @field_validator("key_limits", mode="before")
    @classmethod
    def _split_limits(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return dict(_key_limit(part) for part in value.split(",") if part.strip())

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.api_keys and self.api_keys_file is None:
            raise ValueError("KRONOS_API_KEYS: Field required, or KRONOS_API_KEYS_FILE")
        api = {one.secret for one in self.api_keys_of_environment}
        if api & {one.secret for one in self.admin_keys_of_environment}:
            raise ValueError("a key is either an API key or an admin key, not both: make another one")
        if self.default_deadline_ms > self.max_deadline_ms:
            raise ValueError("default_deadline_ms must not exceed max_deadline_ms")
        if self.source != "snapshot" and self.snapshot is not None:
            raise ValueError(f"snapshot names a directory, but source is {self.source}: drop one of them")
        if self.source == "snapshot" and self.taxonomy is not None:
            raise ValueError("taxonomy is for a database, and a snapshot carries its own: drop it")
        if self.snapshot is not None and not self.snapshot.is_dir():
            raise ValueError(f"snapshot {self.snapshot} is not a directory: make one with export")
        if self.precision == "bf16" and not self.device.startswith("cuda"):
            raise ValueError(
                f"precision bf16 needs device cuda, got {self.device}: on a CPU a forecast would depend on "
                "those computed beside it"
            )
        if self.allow_base_only and self.base_model is None:
            raise ValueError("allow_base_only needs base_model, which says what to serve, such as nano")
        return self


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, or those given instead.

    Raises:
        SettingsError: every variable that is absent, unknown or not valid, in one line and without its value.
    """
    if not overrides:
        check_names(os.environ)
    try:
        return Settings.model_validate(overrides) if overrides else Settings.model_validate({})
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise SettingsError(
            "; ".join(f"{_variable(fault['loc'])}{fault['msg']}" for fault in faults)
        ) from None


def check_names(variables: Iterable[str]) -> None:
    """Raise SettingsError for a misspelt variable: one that is neither ours nor another command's."""
    known = [name.upper() for name in Settings.model_fields]
    ours = [name.removeprefix(PREFIX) for name in sorted(variables) if name.startswith(PREFIX)]
    others = tuple(f"{name}_" for name in OTHER_COMMANDS)
    unknown = [name for name in ours if name not in known and not name.startswith(others)]
    if unknown:
        # compared without the prefix, which would make every name a near one
        near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
        named = [
            f"{PREFIX}{name}" + (f" (did you mean {PREFIX}{near[name][0]}?)" if near[name] else "")
            for name in unknown
        ]
        raise SettingsError(f"unknown environment variable {', '.join(named)}: correct or unset it")


def _variable(location: tuple[int | str, ...]) -> str:
    if not location:
        return ""
    name = str(location[0]).upper().removeprefix(PREFIX)
    return f"{PREFIX}{name}: "


class ForecastConfig(CommandSettings):
    """Settings of a forecast."""

    longer: ClassVar = ("forecast-all",)

    symbol: str = "SPY"
    """a symbol of the snapshot"""
    horizon: int = Field(default=10, ge=1)
    """bars to forecast"""
    paths: int = Field(default=100, ge=1)
    """sample paths; the bands are their quantiles"""
    seed: int = Field(default=0, ge=0)
    """the same seed and model give the same paths"""
    as_of: date | None = None
    """forecast from the last bar up to this date; from the last bar there is if left out"""
    scenario: tuple[str, ...] = ()
    """what if: NAME Z [DATE], such as 'cpi +2'; it moves the bars after its date; repeatable"""
    recalibrated: bool = True
    """with the width factors of the adapter, where it has any"""
    snapshot: Path | None = None
    """directory of a snapshot or of tables; the embedded sample if left out"""
    adapter: AdapterLocation | None = None
    """an adapter directory, published adapters (their LATEST) in a directory or at s3://bucket/prefix,
    hub:owner/name@commit, or sample, which ships; adapters
    if there is one, else sample for the embedded sample, else the base alone"""
    base_model: str | None = Field(
        default=None, description=f"{BASES}; the base that the adapter names, or nano, if left out"
    )
    plot: Path | None = None
    """write a fan chart here (.png, .svg or .pdf)"""
