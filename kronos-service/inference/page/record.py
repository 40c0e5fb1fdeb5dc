"""The track record that `scorecard` wrote: how past forecasts turned out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from kronos_shared import strict_json
from kronos_shared.disk_errors import explain

LARGEST: Final = 4 * 2**20
"""Bytes that are read of a scorecard: one of ten versions over two years has a tenth of them."""
TENTHS: Final = 10
_FIGURES: Final = ConfigDict(extra="ignore", allow_inf_nan=False)


class MeanOut(BaseModel):
    """A mean with its 95 % interval, which is null on too few dates."""

    model_config = _FIGURES

    mean: float
    low: float | None
    high: float | None
    dates: int


class GroupOut(BaseModel):
    """The figures of some targets; prices in shares of the price, null where there is nothing to compare."""

    model_config = _FIGURES

    by: str = Field(description="all, day or month.")
    group: str
    steps: str = Field(description="1: the first bar; all: all bars.")
    targets: int
    dates: int
    crps: MeanOut | None
    over_walk: MeanOut | None = Field(description="How much lower the CRPS is than a random walk's.")
    over_base: MeanOut | None
    inside_50: MeanOut | None
    inside_80: MeanOut | None
    inside_90: MeanOut | None


class ScoredVersion(BaseModel):
    """One version's forecasts against what came."""

    model_config = _FIGURES

    version: str
    digest: str | None
    first: str
    last: str
    symbols: int
    pit: Annotated[list[int], Field(min_length=TENTHS, max_length=TENTHS)] = Field(
        description="Outcomes of the first bar by tenths of the forecast: alike if it is right."
    )
    groups: list[GroupOut]


class CoverageOut(BaseModel):
    """One interval over the last days, and the band in which it may lie."""

    model_config = _FIGURES

    version: str
    steps: str
    interval: str
    share: float
    low: float
    high: float
    targets: int
    dates: int


class SnapshotOut(BaseModel):
    """The data that the forecasts were scored on."""

    name: str


class ScorecardOut(BaseModel):
    """A track record."""

    model_config = _FIGURES

    targets: int
    pending: int = Field(description="Forecasts whose bar has not come.")
    days: int = Field(description="Over which coverage is judged.")
    snapshot: SnapshotOut
    coverage: list[CoverageOut]
    versions: list[ScoredVersion] = Field(description="The latest forecast last.")


class RecordOut(BaseModel):
    """The scorecard, or why there is none."""

    is_configured: bool = Field(description="KRONOS_SCORECARD names a file.")
    scorecard: ScorecardOut | None
    written_at: AwareDatetime | None
    reason: str | None


def read_record(path: Path | None) -> RecordOut:
    """The scorecard at a path; what is no scorecard is a reason, never an error."""
    if path is None:
        return _none("no scorecard is configured (KRONOS_SCORECARD)", is_configured=False)
    try:
        with path.open("rb") as file:
            content, written = file.read(LARGEST + 1), path.stat().st_mtime
    except OSError as error:
        return _none(f"the scorecard {explain(error)}")
    if len(content) > LARGEST:
        return _none(f"the scorecard is longer than {LARGEST} bytes")
    try:
        found = ScorecardOut.model_validate(strict_json.parse(content))
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False, include_url=False)[0]["loc"]))
        return _none(f"the file is not a scorecard.json as `scorecard` writes it ({where})")
    except ValueError:
        return _none("the file is not JSON: expected the scorecard.json of the command `scorecard`")
    moment = datetime.fromtimestamp(written, UTC)
    return RecordOut(is_configured=True, scorecard=found, written_at=moment, reason=None)


def _none(reason: str, *, is_configured: bool = True) -> RecordOut:
    return RecordOut(is_configured=is_configured, scorecard=None, written_at=None, reason=reason)
