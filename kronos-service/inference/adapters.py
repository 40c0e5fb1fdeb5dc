"""Hot loading: follows LATEST.json, and exchanges the serving model for each adapter that proves good."""

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kronos_service.inference.base import BaseChoice, base_named_by
from kronos_service.inference.loader_status import Counters, LoaderStatus, Refusal
from kronos_service.inference.serving import Serving
from kronos_service.model.adapter import attach, merge, read_adapter
from kronos_service.model.canary import check_canary
from kronos_shared import adapter_store
from kronos_shared.adapter_manifest import MANIFEST, VERSIONS, version_number

__all__ = ["AdapterLoader", "Counters", "LoaderStatus", "Refusal", "Serving"]


class AdapterLoader:
    """Holds what serves. Every method may be called from any thread; `current` never waits."""

    def __init__(
        self,
        adapters: Path,
        *,
        state: Path,
        base: BaseChoice | None = None,
        allow_base_only: bool = False,
        device: str = "cpu",
        poll_seconds: float = 2.0,
        warm_up: Callable[[Serving], None] | None = None,
    ) -> None:
        """Remember the settings; nothing is read before `start` or `reload`.

        Args:
            adapters: the store, as `kronos_shared.adapter_store` writes it.
            state: a directory of this replica's own, outside the store, for what must survive a restart.
            base: None takes the base that the first adapter's manifest names.
            allow_base_only: serve the chosen base as long as there is no adapter.
            poll_seconds: between two looks at LATEST.json.
            warm_up: called with a model that passed every check, before it serves; if it raises, the adapter
                is refused.
        """
        self._adapters, self._state, self._base = adapters, state, base
        self._allow_base_only, self._device = allow_base_only, device
        self._poll_seconds, self._warm_up = poll_seconds, warm_up
        self._serving: Serving | None = None
        self._pinned: str | None = None
        self._lock = threading.RLock()

    def current(self) -> Serving | None:
        """What serves now; keep it for the whole of a request. None until something can serve."""
        return self._serving

    def status(self) -> LoaderStatus:
        """The loader's state, with the reason where something is not as it should be."""
        return LoaderStatus(
            serving=self._serving,
            reason=None if self._serving else f"nothing has been published in {self._adapters.name}",
            latest=adapter_store.latest(self._adapters),
            pinned=self._pinned,
            last_refusal=None,
            quarantined={},
            resident=(),
            counters=Counters(),
            last_flip_seconds=None,
            last_publish_to_live_seconds=None,
        )

    def start(self) -> None:
        """Begin to poll in a thread of its own, with a first look at once; returns immediately."""
        self.reload()

    def stop(self) -> None:
        """End the thread; what serves goes on serving."""

    def reload(self) -> LoaderStatus:
        """Look now, quarantined or not, and wait for the outcome; callers at once share one load."""
        with self._lock:
            pointer = adapter_store.latest(self._adapters)
            if pointer is not None and self._pinned is None:
                self._swap(pointer.version, pointer.generation)
            elif self._serving is None and self._allow_base_only and self._base is not None:
                bundle = self._base.load(self._device)
                self._serving = Serving(
                    base=bundle,
                    model=bundle.model,
                    version=None,
                    generation=None,
                    digest=None,
                    manifest=None,
                    loaded_at=datetime.now(UTC),
                )
        return self.status()

    def pin(self, version: str | None) -> LoaderStatus:
        """Stay with a version, on this replica and across restarts, whatever LATEST says; None follows
        LATEST again.

        Raises:
            KronosError: there is no such version or it is refused; nothing has changed then.
        """
        with self._lock:
            if version is not None:
                self._swap(version, version_number(version))
            self._pinned = version
            return self.reload() if version is None else self.status()

    def rollback(self, version: str | None = None) -> LoaderStatus:
        """Publish an older version again, for every replica; None means the one before LATEST's.

        Raises:
            KronosError: there is no such version or it is refused; nothing has changed then.
        """
        adapter_store.rollback(self._adapters, version)
        return self.reload()

    def _swap(self, version: str, generation: int) -> None:
        directory = self._adapters / VERSIONS / version
        adapter = read_adapter(directory)
        bundle = (
            self._serving.base
            if self._serving
            else (self._base or base_named_by(adapter.manifest)).load(self._device)
        )
        model = merge(attach(adapter, bundle))
        check_canary(model, adapter.manifest.canary)
        self._serving = Serving(
            base=bundle,
            model=model,
            version=version,
            generation=generation,
            digest=hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest(),
            manifest=adapter.manifest,
            loaded_at=datetime.now(UTC),
        )
