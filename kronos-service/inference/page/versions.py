"""The published versions: which serves, and what is wrong with the others."""

from typing import Final

from pydantic import BaseModel, Field

from kronos_service.inference.models.loader_status import LoaderStatus, Refusal, one_line
from kronos_service.inference.page.gains import GainOut, gain_in
from kronos_service.inference.page.manifests import Published, read_published
from kronos_service.model.adapter.files import AdapterError
from kronos_shared.adapter_store import Location, StoreError, published

MOST_LISTED: Final = 50


class VersionOut(BaseModel):
    """One version of the store."""

    version: str
    serves: bool = Field(description="On this replica, now.")
    is_latest: bool = Field(description="LATEST.json names it.")
    is_pinned: bool = Field(description="This replica stays on it.")
    is_resident: bool = Field(description="In memory: serving it again is instant.")
    refused_because: str | None = Field(description="It is not tried again until a reload.")
    unread_because: str | None = Field(description="Its manifest cannot be read: the next three are null.")
    created_at: str | None
    synthetic: bool | None
    gain: GainOut | None = Field(description="On event days, over the same training without events.")


class VersionsOut(BaseModel):
    """The newest first."""

    versions: list[VersionOut]
    total: int = Field(description="More than are listed, where there are very many.")
    latest: str | None
    serving: str | None
    pinned: str | None
    last_refusal: Refusal | None
    unlisted_because: str | None = Field(description="The store cannot be read.")


def versions_of(adapters: Location, status: LoaderStatus) -> VersionsOut:
    """The versions of a store, as this replica's loader sees them."""
    unlisted = None
    try:
        names = published(adapters)
    except StoreError as error:
        names, unlisted = [], one_line(str(error), without=[adapters])
    shown = names[: -MOST_LISTED - 1 : -1]
    return VersionsOut(
        versions=[_version_out(adapters, name, status) for name in shown],
        total=len(names),
        latest=None if status.latest is None else status.latest.version,
        serving=None if status.serving is None else status.serving.version,
        pinned=status.pinned,
        last_refusal=status.last_refusal,
        unlisted_because=unlisted,
    )


def _version_out(adapters: Location, name: str, status: LoaderStatus) -> VersionOut:
    found: Published | None = None
    unread = None
    try:
        found = read_published(adapters, name)
    except AdapterError as error:
        unread = one_line(str(error), without=[adapters])
    serving = status.serving
    return VersionOut(
        version=name,
        serves=serving is not None and serving.version == name,
        is_latest=status.latest is not None and status.latest.version == name,
        is_pinned=status.pinned == name,
        is_resident=name in status.resident,
        refused_because=_refusal_of(name, status),
        unread_because=unread,
        created_at=None if found is None else found.manifest.created_at,
        synthetic=None if found is None else found.is_synthetic,
        gain=None if found is None else gain_in(found.manifest.conditioning_gain),
    )


def _refusal_of(name: str, status: LoaderStatus) -> str | None:
    """Why the loader rejected it: its digest is in quarantine, or it was the latest to be rejected."""
    for digest, reason in status.quarantined.items():
        if name.endswith(digest[:12]):
            return reason
    last = status.last_refusal
    is_other = last is None or last.version != name or (status.serving and status.serving.version == name)
    return None if last is None or is_other else last.reason
