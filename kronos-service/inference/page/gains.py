"""The gains that a manifest records, read as far as they are of the form that trainers write."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DAYS: Final = ("tier1", "event", "quiet")
"""Groups of target days: rate decisions, CPI and payrolls; all events; none."""


class GainOut(BaseModel):
    """How much lower a loss is, with its 95 % interval."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    nats: float = Field(description="Nats per target; positive: better.")
    low: float
    high: float
    percent: float = Field(description="Of the other model's loss.")
    targets: int
    dates: int


class GainsOut(BaseModel):
    """Over the same training without events, by days; null is not recorded."""

    tier1: GainOut | None = Field(description="On days of rate decisions, CPI and payrolls.")
    event: GainOut | None
    quiet: GainOut | None


class EvidenceOut(BaseModel):
    """What an adapter gained where it was scored; of the placebo, whose events are on wrong dates, near 0."""

    adapter: GainsOut
    placebo: GainsOut | None = Field(description="Null: no placebo was trained.")


class WalkForwardOut(EvidenceOut):
    """The same, pooled over periods that were each scored by what came before."""

    folds: list[str] = Field(description="First date of each period, and the end of the last.")
    seeds: int


def gain_in(record: Any) -> GainOut | None:
    """A gain, or None where it is not recorded or has another form."""
    try:
        return GainOut.model_validate(record)
    except ValidationError:
        return None


def validation_in(metrics: Mapping[str, Any]) -> EvidenceOut | None:
    """Gains on the validation dates (`metrics["gains"]`), or None where no control was trained."""
    found = metrics.get("gains")
    if not isinstance(found, dict) or not found:
        return None
    return _evidence({key: gain_in(record) for key, record in found.items()})


def walk_forward_in(metrics: Mapping[str, Any]) -> WalkForwardOut | None:
    """Pooled gains over the control (`metrics["walk_forward"]`), or None where there was no walk-forward."""
    found = metrics.get("walk_forward")
    if not isinstance(found, dict) or not isinstance(rows := found.get("gains"), list):
        return None
    gains = {
        f"{row.get('model')}_{row.get('group')}": gain_in(row.get("gain"))
        for row in rows
        if isinstance(row, dict) and row.get("over") == "control" and row.get("by") == "day"
    }
    folds, seeds = found.get("folds"), found.get("seeds")
    return WalkForwardOut(
        **dict(_evidence(gains)),
        folds=list(map(str, folds)) if isinstance(folds, list) else [],
        seeds=len(seeds) if isinstance(seeds, list) else 0,
    )


def _evidence(gains: Mapping[str, GainOut | None]) -> EvidenceOut:
    """By `adapter_event`, `placebo_quiet` and so on."""
    by_model = {
        model: GainsOut(**{day: gains.get(f"{model}_{day}") for day in DAYS})
        for model in ("adapter", "placebo")
    }
    has_placebo = any(gains.get(f"placebo_{day}") for day in DAYS)
    return EvidenceOut(adapter=by_model["adapter"], placebo=by_model["placebo"] if has_placebo else None)
