"""The manifest of an adapter: written by the trainer, checked by every loader.

adapters/versions/<000001>-<sha12>/  adapter_config.json, adapter_model.safetensors, event_emb.safetensors,
                                     manifest.json, README.md
adapters/LATEST.json                 {generation, version, manifest_sha256}
"""

import hashlib
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from kronos_shared import strict_json
from kronos_shared.lora_targets import DEFAULT_TARGETS, LinearName, linear_names

VERSIONS = "versions"
LATEST = "LATEST.json"
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
EVENT_WEIGHTS = "event_emb.safetensors"
MODEL_CARD = "README.md"
FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, EVENT_WEIGHTS, MODEL_CARD)
"""Every file of a version except the manifest, which lists them."""
LARGEST = {
    MANIFEST: 1 << 20,
    ADAPTER_CONFIG: 64 << 10,
    ADAPTER_WEIGHTS: 48 << 20,
    EVENT_WEIGHTS: 48 << 20,
    MODEL_CARD: 1 << 20,
}
"""Largest size of each file in bytes: a loader reads no more, whatever the store holds."""
LARGEST_TOTAL = 50_000_000
"""Largest size of an adapter in bytes, all files together."""
LARGEST_POINTER = 4096
"""Largest size of LATEST.json in bytes."""
CANARY_TOLERANCE = 1e-3
VERSION_PATTERN = r"^[0-9]{6,12}-[0-9a-f]{12}$"
DayKind = Literal["tier1", "other_event", "quiet"]
"""A bar with a high-impact release of the first tier, with another high-impact one, or with none."""
DAY_KINDS: tuple[DayKind, ...] = ("tier1", "other_event", "quiet")
SMALLEST_FACTOR, LARGEST_FACTOR = 0.05, 20.0
"""A width that is off by more says that something else is wrong."""
MOST_STEPS = 4096
"""Steps of a recalibration at most."""


_Tap = Annotated[str, Field(pattern=r"^(input|output)$")]
_Factor = Annotated[float, Field(ge=SMALLEST_FACTOR, le=LARGEST_FACTOR)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Document(_Record):
    largest: ClassVar[int] = LARGEST[MANIFEST]

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The record that a file holds.

        Raises:
            ValueError: one line; too long, not JSON, a repeated key, or not of the schema.
        """
        if len(content) > cls.largest:
            raise ValueError(f"longer than {cls.largest} bytes")
        strict_json.parse(content)
        try:
            return cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None

    def to_bytes(self) -> bytes:
        """The record as it is written to disk."""
        return (self.model_dump_json(indent=2) + "\n").encode()


class FileRecord(_Record):
    """Size in bytes and sha256 of one file."""

    size: int = Field(ge=0, le=LARGEST_TOTAL)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TensorRecord(_Record):
    """Shape and dtype (as safetensors spells it) of one tensor."""

    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=LARGEST_TOTAL)], ...], Field(max_length=8)]
    dtype: str


class SourceRecord(_Record):
    """Where frozen weights came from, and the sha256 of their bytes."""

    repo: str
    revision: str | None
    content_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ChannelsRecord(_Record):
    """Version and hash of the event tensor's channel list."""

    version: int
    sha256: str
    taxonomy: dict[str, Any] | None = None
    """Content of the taxonomy that the channels follow from; None, and not in the file, for the default."""

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if name != "taxonomy" or value is not None}


class LoraRecord(_Record):
    """LoRA settings; alpha is the scaling numerator. What is as it always was is left out of the file."""

    rank: int = Field(ge=1, le=1024)
    alpha: int = Field(ge=1, le=4096)
    dropout: float = Field(ge=0, lt=1)
    target_modules: tuple[LinearName, ...] = Field(default=DEFAULT_TARGETS, min_length=1)
    """Adapted layers, each once and in the network's order."""
    use_rslora: bool = False
    """Whether the update is scaled by alpha / sqrt(rank) instead of alpha / rank."""
    use_dora: bool = False
    """Whether each output's magnitude is trained apart from its direction, which LoRA then adapts."""

    @model_validator(mode="after")
    def _targets_are_in_order(self) -> Self:
        if self.target_modules != linear_names(self.target_modules):
            raise ValueError("expected each layer once and in the network's order")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a service of an earlier version reads an adapter of q_proj and v_proj, and refuses any other
        record: dict[str, Any] = serialize(self)
        if self.target_modules == DEFAULT_TARGETS:
            del record["target_modules"]
        return {name: value for name, value in record.items() if value is not False}


class EventEmbeddingRecord(_Record):
    """Injection points of the event embedding, and its width."""

    taps: Annotated[tuple[_Tap, ...], Field(min_length=1, max_length=2)]
    width: int = Field(ge=1, le=8192)


class NormalizationRecord(_Record):
    """How windows are normalised before the tokenizer sees them."""

    clip: float = Field(gt=0)
    epsilon: float = Field(gt=0)
    """Added to the deviation."""
    relative: bool = False
    """Whether epsilon is a share of the column's mean; earlier adapters added it whatever the unit."""
    min_history: int = Field(ge=1)
    context: int = Field(ge=2)


class AuditRecord(_Record):
    """What the audit for look-ahead before training checked and found."""

    verdict: Literal["pass", "fail"]
    checked: dict[str, int]
    """Check -> how many rows, windows, futures and so on it checked."""
    findings: int = Field(ge=0)
    seed: int


class DataRecord(_Record):
    """What the adapter was trained on."""

    snapshot: str
    sha256: str
    has_manifest: bool
    """False if the tables came without a manifest and were hashed when read."""
    splits: dict[str, tuple[str, str]]
    audit: AuditRecord | None = None
    """None if the data was not audited."""
    synthetic: bool = False
    """Whether the snapshot's own manifest says that it is a sample market; left out of the file if not, and
    for the embedded sample, which is known by its hash: files of both stay as they were.
    """
    interval: Literal["1d", "4h", "1h"] = "1d"
    """How long its bars are; left out of the file if they are daily."""

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        usual = {"synthetic": False, "interval": "1d"}
        return {name: value for name, value in written.items() if (name, value) not in usual.items()}


class RecalibrationRecord(_Record):
    """By how much the forecast's deviations from its median are stretched, by kind of day and step."""

    level: float = Field(gt=0, lt=1)
    """The central interval that held this share of the validation outcomes once it was stretched."""
    factors: dict[DayKind, Annotated[tuple[_Factor, ...], Field(min_length=1, max_length=MOST_STEPS)]]
    """Kind of day -> one factor a step; a later step takes the last one."""
    forecasts: dict[DayKind, tuple[Annotated[int, Field(ge=0)], ...]]
    """How many validation forecasts of each kind and step there were."""
    dates: dict[DayKind, tuple[Annotated[int, Field(ge=0)], ...]]
    """On how many dates these fell."""
    first: str
    last: str
    """First and last date that was forecast."""
    paths: int = Field(ge=2)
    """Sample paths of each forecast."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        tables = (self.factors, self.forecasts, self.dates)
        if any(table.keys() != set(DAY_KINDS) for table in tables):
            raise ValueError(f"expected the kinds of day {', '.join(DAY_KINDS)}")
        if len({len(row) for table in tables for row in table.values()}) > 1:
            raise ValueError("expected the same number of steps for each kind of day")
        return self


class Canary(_Record):
    """A repeatable forward pass: inputs from a seed, and the merged model's last logits in fp32 on a CPU."""

    seed: int = Field(ge=0, lt=2**63)
    length: int = Field(ge=1, le=4096)
    s1_logits: tuple[float, ...]
    s2_logits: tuple[float, ...]
    tolerance: float = Field(gt=0, le=CANARY_TOLERANCE)
    """Largest absolute difference of a logit; a manifest cannot allow itself more than the constant."""


class AdapterManifest(_Document):
    """Everything that a loader must check before it trusts an adapter."""

    schema_version: Literal[1] = 1
    created_at: str
    files: dict[str, FileRecord]
    tensors: dict[str, dict[str, TensorRecord]]
    """Per weights file: every tensor's name, shape and dtype."""
    base: SourceRecord
    tokenizer: SourceRecord
    channels: ChannelsRecord
    lora: LoraRecord
    event_embedding: EventEmbeddingRecord
    normalization: NormalizationRecord
    data: DataRecord
    metrics: dict[str, Any]
    conditioning_gain: dict[str, Any] | Literal["unknown"]
    canary: Canary
    recalibration: RecalibrationRecord | None = None
    """None, and not in the file, where the forecasts are served as they are drawn."""

    @model_serializer(mode="wrap")
    def _leave_out_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a service of an earlier version reads an adapter without it, and refuses one that has it
        record: dict[str, Any] = serialize(self)
        if self.recalibration is None:
            del record["recalibration"]
        return record


class Latest(_Document):
    """The pointer to the version that serves."""

    largest: ClassVar[int] = LARGEST_POINTER

    generation: int = Field(ge=1, lt=10**12)
    version: str = Field(pattern=VERSION_PATTERN)
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _version_is_of_the_digest(self) -> Self:
        if not self.version.endswith(f"-{self.manifest_sha256[:12]}"):
            raise ValueError("version and manifest_sha256 disagree")
        return self


def version_name(number: int, manifest: bytes) -> str:
    """`000001-<sha12>`: a version's directory from its number and the bytes of its manifest."""
    return f"{number:06d}-{hashlib.sha256(manifest).hexdigest()[:12]}"


def is_version(name: str) -> bool:
    """Whether a directory's name is that of a version."""
    return re.fullmatch(VERSION_PATTERN, name) is not None


def version_number(name: str) -> int:
    """The number at the front of a version's name: the generation that published it."""
    return int(name.split("-")[0])


def file_record(content: bytes) -> FileRecord:
    """The record of a file with this content."""
    return FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())
