"""What answers a request: a base, perhaps with an adapter merged into it. It never changes once built."""

from dataclasses import dataclass
from datetime import datetime

from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import AdapterManifest


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One model and all that its answers must say about it; a request keeps the one it began with."""

    base: Bundle
    model: Kronos
    """With LoRA merged and the event embedding attached; the plain base where there is no adapter."""
    version: str | None
    """Name of the adapter's version; None is the base alone, as in the next three."""
    generation: int | None
    """The generation of LATEST that brought it here; the one that published it where it was pinned."""
    digest: str | None
    """sha256 of the adapter's manifest."""
    manifest: AdapterManifest | None
    loaded_at: datetime
    """When it began to serve, in UTC."""
