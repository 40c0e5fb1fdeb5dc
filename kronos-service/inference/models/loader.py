"""Hot loading: follows LATEST.json and swaps in each adapter that passes every check.

If the bytes match their digest and are invalid, retrying cannot help: the digest is quarantined until
somebody asks for a reload. If they do not match (a file is missing, half visible on a network disk, corrupt
on this one) or cannot be read (not permitted, a failing disk), the digest itself may be fine: every poll
retries. The last good model keeps serving meanwhile.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.inference.models.cache import Loaded, ModelCache, QuarantinedError
from kronos_service.inference.models.latest import LatestReader, PointerError
from kronos_service.inference.models.loader_status import LoaderStatus, Refusal, one_line
from kronos_service.inference.models.replica_state import (
    ReplicaState,
    ReplicaStateError,
    StateUnreachableError,
)
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.model.adapter.files import AdapterFiles
from kronos_service.model.factory import BaseChoice
from kronos_service.model.precision import Precision
from kronos_shared import adapter_store
from kronos_shared.adapter_manifest import LATEST, Latest
from kronos_shared.adapter_store import Location, home_of
from kronos_shared.directory_home import DirectoryHome
from kronos_shared.disk_errors import explain
from kronos_shared.errors import KronosError

_log = structlog.get_logger()
NOTHING = "nothing has been published yet"


class AdapterLoader:
    """Holds what serves. Every method may be called from any thread; `current` and `status` never block."""

    def __init__(
        self,
        adapters: Location,
        *,
        state: Path,
        base: BaseChoice | None = None,
        allow_base_only: bool = False,
        device: str = "cpu",
        precision: Precision = "fp32",
        taxonomy: Taxonomy = DEFAULT_TAXONOMY,
        poll_seconds: float = 2.0,
        warm_up: Callable[[ServedModel], None] | None = None,
    ) -> None:
        """Keep the settings; nothing is read before `start` or `reload`.

        Args:
            adapters: the store, as `kronos_shared.adapter_store` writes it.
            state: a directory of this replica's own, outside the store, for what must survive a restart and
                for copies of what a bucket holds.
            base: None takes the base that the first adapter's manifest names.
            allow_base_only: serve the chosen base as long as there is no adapter.
            taxonomy: adapters of another are rejected.
            poll_seconds: between two reads of LATEST.json.
            warm_up: called with a model that passed every check, before it serves; if it raises, the adapter
                is rejected.

        Raises:
            ReplicaStateError: `state` lies inside the store, which belongs to every replica.
        """
        home = home_of(adapters, cache=state / "fetched")
        if isinstance(home, DirectoryHome) and state.resolve().is_relative_to(home.path.resolve()):
            raise ReplicaStateError(
                f"the state directory {state} lies inside the store {adapters}, which other replicas and "
                "trainers share; name one outside"
            )
        self._adapters, self._state = adapters, ReplicaState(state)
        fetched = () if isinstance(home, DirectoryHome) else (home.cache.root,)
        self._places = (adapters, *fetched, state)
        self._cache = ModelCache(
            home, base=base, device=device, precision=precision, taxonomy=taxonomy, warm_up=warm_up
        )
        self._pin: Latest | None = None
        """The pin as it was last read: it holds while the state directory cannot be."""
        self._base_only = allow_base_only and base is not None
        self._poll_seconds = poll_seconds
        self._status = LoaderStatus()
        self._since = time.time()
        self._latest = LatestReader(home)
        self._lock = threading.RLock()
        self._reloads_done = self._reloads_begun = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> ServedModel | None:
        """What serves now; keep it for the whole of a request. None until something can serve."""
        return self._status.serving

    def status(self) -> LoaderStatus:
        """The loader's state, with the reason where something is not as it should be."""
        return self._status

    def start(self) -> None:
        """Poll in a thread of its own, for the first time at once; returns immediately."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._poll, name="adapter-loader", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread once its current load is done; what serves keeps serving."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def reload(self) -> LoaderStatus:
        """Load what LATEST or the pin names now, quarantined or not, and wait; the status' `reason` tells the
        outcome. Callers that wait at the same time share one load.
        """
        asked = self._reloads_begun
        with self._lock:
            if self._reloads_done <= asked:
                self._reloads_begun += 1
                self._count(reloads=1)
                _log.info("adapter_reload")
                self._look(retry=True)
                self._reloads_done = self._reloads_begun
            return self._status

    def pin(self, version: str | None) -> LoaderStatus:
        """Keep this replica on a version, across restarts, whatever LATEST says; None follows LATEST again.

        Raises:
            KronosError: there is no such version, it is rejected, or the pin cannot be stored; what serves is
            unchanged.
        """
        with self._lock:
            self._state.set_pin(None if version is None else self._obtain_version(version).pointer)
            _log.info("adapter_pinned", version=version)
            self._look(retry=version is None)
            return self._status

    def rollback(self, version: str | None = None) -> LoaderStatus:
        """Publish an older version again, for every replica without a pin; None is the one before LATEST.

        Raises:
            KronosError: there is no such version, or it is rejected; nothing has changed.
        """
        with self._lock:
            wanted = adapter_store.previous(self._adapters) if version is None else version
            self._obtain_version(wanted)
            pointer = adapter_store.rollback(self._adapters, wanted)
            _log.info("adapter_rolled_back", version=wanted, generation=pointer.generation)
            self._look(retry=True)
            return self._status

    def look(self) -> LoaderStatus:
        """Check once, as the polling thread does."""
        with self._lock:
            self._look(retry=False)
            return self._status

    def _poll(self) -> None:
        while True:
            self.look()
            if self._stopped.wait(self._poll_seconds):
                return

    def _look(self, *, retry: bool) -> None:
        """Make what serves match the pin or LATEST; where nothing serves, fall back to the last good one."""
        try:
            reason = self._follow(retry=retry)
            if self._status.serving is None:
                reason = self._fall_back(reason, retry=retry)
            if self._status.state_unsaved is not None:
                self._remember()
        except OSError as error:
            self._count(errors=1)
            reason = f"the disk {explain(error)}"
        except Exception as error:  # the polling thread must survive whatever an adapter makes it raise
            self._count(errors=1)
            if self._status.reason != self._short(f"unforeseen {type(error).__name__}: {error}"):
                _log.exception("adapter_unforeseen")
            reason = f"unforeseen {type(error).__name__}: {error}"
        self._update(reason=reason and self._short(reason))

    def _follow(self, *, retry: bool) -> str | None:
        """Load what the pin or LATEST names; returns why that failed, or None."""
        unread = None
        try:
            try:
                pin = self._state.pin()
            except StateUnreachableError as error:
                if self._pin is None and self._state.has_last_good():
                    raise  # there may be a pin: what served last is the better guess
                pin, unread = self._pin, str(error)
            self._pin = pin
            self._update(pinned=pin and pin.version)
            if pin is not None:
                self._take(pin, retry=retry, is_latest=False)
                with suppress(KronosError):  # recorded as a refusal; a pin does not depend on LATEST
                    self._read_latest()
                return unread
            latest = self._read_latest()
            if latest is None:
                return self._reason_without_latest()
            self._take(latest, retry=retry, is_latest=True)
        except KronosError as error:
            return str(error)
        return unread

    def _reason_without_latest(self) -> str | None:
        serving = self._status.serving
        if self._status.latest is not None or (serving is not None and serving.version is not None):
            return f"{LATEST} is missing"
        return None if serving is not None else NOTHING

    def _read_latest(self) -> Latest | None:
        try:
            pointer = self._latest.read()
        except PointerError as error:
            raise self._refusal(error.pointer, error) from None
        if pointer is not None:
            self._update(latest=pointer)
        return pointer

    def _take(self, pointer: Latest, *, retry: bool, is_latest: bool) -> None:
        serving = self._status.serving
        if serving is not None and (serving.digest, serving.version, serving.generation) == (
            pointer.manifest_sha256,
            pointer.version,
            pointer.generation,
        ):
            return
        loaded = self._obtain(pointer, retry=retry)
        self._swap(loaded, is_news=is_latest and self._since <= self._latest.published_at <= time.time())

    def _obtain_version(self, version: str) -> Loaded:
        return self._obtain(self._cache.pointer_to(version), retry=True)

    def _obtain(
        self, pointer: Latest, *, retry: bool, copy: Callable[[], AdapterFiles] | None = None
    ) -> Loaded:
        """What a pointer names; a rejection is recorded in the status."""
        resident = self._cache.resident
        try:
            return self._cache.obtain(pointer, retry=retry, copy=copy)
        except QuarantinedError:
            raise
        except KronosError as error:
            raise self._refusal(pointer, error) from error
        finally:
            if self._cache.resident is not resident:
                self._count(loads=1)
                _log.info("adapter_loaded", version=pointer.version, digest=pointer.manifest_sha256)
            quarantined = {key: self._short(reason) for key, reason in self._cache.quarantined.items()}
            self._update(quarantined=quarantined, resident=self._resident())

    def _swap(self, loaded: Loaded, *, is_news: bool = False, reason: str | None = None) -> None:
        """Make a model the one that serves.

        Args:
            is_news: it was published while this process ran, so its time from publication to service counts.
            reason: why it is not what LATEST or the pin names.
        """
        before, pointer = self._status.serving, loaded.pointer
        is_other = before is None or before.digest != loaded.files.digest
        serving = replace(
            loaded.serving,
            version=pointer.version,
            generation=pointer.generation,
            loaded_at=datetime.now(UTC) if is_other or before is None else before.loaded_at,
        )
        self._cache.put_first(replace(loaded, serving=serving))
        counters = self._status.counters
        after = replace(
            self._status,
            serving=serving,
            reason=reason and self._short(reason),
            resident=self._resident(),
            counters=replace(counters, swaps=counters.swaps + is_other),
        )
        if is_news:
            after = replace(after, last_publish_to_live_seconds=time.time() - self._latest.published_at)
        started = time.perf_counter()
        # One assignment: a request reads `serving` once, so it sees the old model or the new one, whole.
        self._status = after
        self._update(last_flip_seconds=time.perf_counter() - started)
        _log.info(
            "adapter_serves",
            version=serving.version,
            digest=serving.digest,
            generation=serving.generation,
            instead_of=before and before.version,
            reason=after.reason,
        )
        self._remember()

    def _remember(self) -> None:
        """Save what serves for the next start. A full disk must not stop a good model, so a failure only
        shows in the status.
        """
        first = self._cache.resident[0]
        try:
            self._state.remember(first.pointer, first.files)
            self._update(state_unsaved=None)
        except ReplicaStateError as error:
            if self._status.state_unsaved is None:
                _log.warning("state_unsaved", reason=self._short(str(error)))
            self._update(state_unsaved=self._short(str(error)))

    def _fall_back(self, reason: str | None, *, retry: bool) -> str | None:
        """Serve the last good adapter, or the base where that is allowed; returns why that is necessary."""
        try:
            pointer = self._state.last_good()
            if pointer is not None:
                copy = partial(self._state.last_good_files, pointer)
                reason = f"{LATEST} is missing" if reason == NOTHING else reason
                self._swap(self._obtain(pointer, retry=retry, copy=copy), reason=reason)
                return reason
        except KronosError as error:
            reason = f"{reason}; the last good one: {error}"
        if self._base_only:
            try:
                self._update(serving=self._cache.base_only())
                _log.info("base_serves", reason=reason and self._short(reason))
                reason = None if reason == NOTHING else reason
            except KronosError as error:
                reason = f"{reason}; the base: {error}"
        return reason

    def _resident(self) -> tuple[str, ...]:
        return tuple(one.pointer.version for one in self._cache.resident)

    def _refusal(self, pointer: Latest | None, error: KronosError) -> KronosError:
        """Record a rejection and return its error; one that repeats at every poll counts once."""
        last, reason = self._status.last_refusal, self._short(str(error))
        version, digest = (None, None) if pointer is None else (pointer.version, pointer.manifest_sha256)
        if last is None or (last.version, last.digest, last.reason) != (version, digest, reason):
            refusal = Refusal(version=version, digest=digest, reason=reason, at=datetime.now(UTC))
            self._count(refusals=1)
            _log.warning("adapter_refused", version=version, digest=digest, reason=reason)
            self._update(last_refusal=refusal)
        return error

    def _short(self, reason: str) -> str:
        return one_line(reason, without=self._places)

    def _update(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)

    def _count(self, **more: int) -> None:
        counters = self._status.counters
        self._update(
            counters=replace(counters, **{name: getattr(counters, name) + n for name, n in more.items()})
        )
