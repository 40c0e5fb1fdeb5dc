"""What GET /v1/model and the admin routes answer: what serves, from which source, and what is wrong."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel

from kronos_service.inference.models.loader_status import Refusal
from kronos_service.inference.requests.response import model_out
from kronos_service.inference.schemas import ModelOut
from kronos_service.inference.service import Service
from kronos_service.model.adapter.read import channels_record
from kronos_shared.adapter_manifest import ChannelsRecord

MOST_NAMED: Final = 20
LIMITS: Final = (
    *("max_body_bytes", "max_series", "max_bars", "max_horizon", "max_paths", "max_rows"),
    "max_deadline_ms",
)


class ServingOut(ModelOut):
    """What serves now."""

    loaded_at: AwareDatetime
    context: int
    """Bars of history and forecast together."""
    metrics: dict[str, Any]
    """The trainer's figures, from the adapter's manifest."""


class SourceOut(BaseModel):
    """Where symbols, calendar and leaders come from."""

    name: str | None = None
    read_at: AwareDatetime | None = None
    checked_at: AwareDatetime | None = None
    symbols: int = 0
    last_bar: date | None = None
    calendar_until: str | None = None
    bad_bars: int = 0
    stale_symbols: list[str] = []
    """Symbols whose last bar lies too many sessions back, the first of them."""
    error: str | None


class StatusOut(BaseModel):
    """The state of this replica."""

    ready: bool
    reason: str | None
    """Why it is not ready."""
    serving: ServingOut | None
    stale_because: str | None
    """Why what serves is not what LATEST.json or the pin names."""
    state_unsaved_because: str | None
    """Why a restart would not find what serves, if LATEST.json did not lead to it."""
    latest: dict[str, Any] | None
    pinned: str | None
    last_refusal: Refusal | None
    quarantined: Mapping[str, str]
    resident: tuple[str, ...]
    channels: ChannelsRecord
    """The event channels of this code; an adapter made for others is rejected."""
    source: SourceOut
    limits: dict[str, int]
    queue_depth: int


def status_of(service: Service) -> StatusOut:
    """The state of a service at this moment."""
    loader = service.loader.status()
    reason = service.not_ready_because()
    return StatusOut(
        ready=reason is None,
        reason=reason,
        serving=_serving_out(service),
        stale_because=loader.reason,
        state_unsaved_because=loader.state_unsaved,
        latest=None if loader.latest is None else loader.latest.model_dump(),
        pinned=loader.pinned,
        last_refusal=loader.last_refusal,
        quarantined=loader.quarantined,
        resident=loader.resident,
        channels=channels_record(service.taxonomy),
        source=_source_out(service),
        limits={name: getattr(service.settings, name) for name in LIMITS},
        queue_depth=service.queue.depth,
    )


def _serving_out(service: Service) -> ServingOut | None:
    serving = service.loader.current()
    if serving is None:
        return None
    return ServingOut(
        **model_out(serving).model_dump(),
        loaded_at=serving.loaded_at,
        context=serving.context,
        metrics={} if serving.manifest is None else serving.manifest.metrics,
    )


def _source_out(service: Service) -> SourceOut:
    refresher = service.refresher.status()
    if (market := refresher.market) is None:
        return SourceOut(error=refresher.error)
    return SourceOut(
        name=market.name,
        read_at=market.read_at,
        checked_at=refresher.checked_at,
        symbols=len(market.bars),
        last_bar=market.last_bar.date(),
        calendar_until=str(market.tables.reach),
        bad_bars=len(market.dropped),
        stale_symbols=market.stale_symbols(service.clock(), most=service.settings.stale_after)[:MOST_NAMED],
        error=refresher.error,
    )
