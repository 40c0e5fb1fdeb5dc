"""Adapters by digest: built once, kept while recent, or quarantined."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kronos_service.events.sessions import DAILY
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.inference.models.served_model import ServedModel, base_alone, build
from kronos_service.model.adapter.files import (
    AdapterError,
    AdapterFiles,
    AdapterNotWholeError,
    read_capped,
    read_files,
)
from kronos_service.model.adapter.read import require_interval
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import BaseChoice, Bundle, base_named_by
from kronos_service.model.precision import Precision, in_bf16
from kronos_shared.adapter_home import StoreError
from kronos_shared.adapter_manifest import (
    LARGEST,
    MANIFEST,
    VERSIONS,
    AdapterManifest,
    Latest,
    is_version,
    version_number,
)
from kronos_shared.adapter_store import Home
from kronos_shared.directory_home import DirectoryHome
from kronos_shared.disk_errors import explain, is_missing

RESIDENT = 3
"""Models in memory: the one that serves and two before it. They share every weight that LoRA leaves alone."""

RETRYABLE = (AdapterNotWholeError, BaseModelError)
"""Errors that do not prove a digest bad: files that cannot be read or are other bytes than it names, or a
base that cannot be found."""


class QuarantinedError(AdapterError):
    """An adapter that was rejected before; the message is the reason given then."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model that passed every check, and the files it was built from."""

    pointer: Latest
    files: AdapterFiles
    serving: ServedModel


class ModelCache:
    """The resident models and the quarantine; used by one thread at a time."""

    def __init__(
        self,
        adapters: Home,
        *,
        base: BaseChoice | None,
        device: str,
        precision: Precision,
        taxonomy: Taxonomy,
        warm_up: Callable[[ServedModel], None] | None,
    ) -> None:
        self._adapters, self._base, self._warm_up = adapters, base, warm_up
        self._device, self._precision, self._taxonomy = device, precision, taxonomy
        self._bundle: tuple[BaseChoice, Bundle] | None = None
        self.resident: tuple[Loaded, ...] = ()
        """The one that serves first."""
        self.quarantined: dict[str, str] = {}
        """Digest -> reason."""

    def pointer_to(self, version: str) -> Latest:
        """A version by its name alone; its digest is that of a resident of this name, or of its manifest.

        Raises:
            AdapterError: no name of a version, or nothing of that name that could be read.
        """
        if not is_version(version):
            raise AdapterError(f"expected a version such as 000001-0123456789ab, got {version[:80]!r}")
        digest = next((one.files.digest for one in self.resident if one.pointer.version == version), None)
        if digest is None:
            digest = hashlib.sha256(version_file(self._adapters, version, MANIFEST)).hexdigest()
        if not version.endswith(digest[:12]):
            raise AdapterNotWholeError(f"{version}: its manifest has sha256 {digest[:12]}")
        return Latest(generation=version_number(version), version=version, manifest_sha256=digest)

    def obtain(
        self, pointer: Latest, *, retry: bool, copy: Callable[[], AdapterFiles] | None = None
    ) -> Loaded:
        """What a pointer names, resident or newly built from the store (or from `copy`).

        Raises:
            AdapterError, BaseModelError: why it must not or cannot serve. Unless it is one
            of `RETRYABLE`, the digest is quarantined: only `retry` tries it again.
        """
        digest = pointer.manifest_sha256
        for one in self.resident:
            if one.files.digest == digest:
                return replace(one, pointer=pointer)
        if digest in self.quarantined and not retry:
            raise QuarantinedError(self.quarantined[digest])
        try:
            files = copy() if copy else self._read(pointer.version, digest)
            require_interval(files.manifest, DAILY, "this service")
            bundle = self.bundle_for(files.manifest)
            built = build(files, bundle, version=pointer.version, generation=pointer.generation)
            serving = self._rounded(built)
            self._warm(serving)
        except RETRYABLE:
            raise
        except OSError as error:  # the machine's trouble, not the adapter's
            raise AdapterNotWholeError(f"{pointer.version}: {explain(error)}") from error
        except MemoryError as error:
            raise AdapterNotWholeError(f"{pointer.version}: there is no memory for it now") from error
        except AdapterError as error:
            self.quarantined[digest] = str(error)
            raise
        except Exception as error:  # bytes that no check foresaw must not end the service
            self.quarantined[digest] = f"{pointer.version}: cannot be loaded: {type(error).__name__}: {error}"
            raise AdapterError(self.quarantined[digest]) from error
        self.quarantined.pop(digest, None)
        loaded = Loaded(pointer=pointer, files=files, serving=serving)
        self.resident = (*self.resident[:1], loaded, *self.resident[1:])[:RESIDENT]
        return loaded

    def put_first(self, loaded: Loaded) -> None:
        """Make this one the last to be dropped."""
        others = [one for one in self.resident if one.files.digest != loaded.files.digest]
        self.resident = (loaded, *others)[:RESIDENT]

    def bundle_for(self, manifest: AdapterManifest | None) -> Bundle:
        """The chosen base, else the one in use, else the one that the manifest names.

        Raises:
            BaseModelError: it cannot be found.
        """
        if self._bundle is not None and (self._base is not None or self.resident or manifest is None):
            return self._bundle[1]
        choice = self._base
        if choice is None:
            if manifest is None:
                raise BaseModelError("no base was configured, and there is no adapter to name one")
            choice = base_named_by(manifest)
        if self._bundle is None or self._bundle[0] != choice:
            self._bundle = (choice, choice.load(self._device, self._taxonomy))
        return self._bundle[1]

    def base_only(self) -> ServedModel:
        """The base without an adapter.

        Raises:
            BaseModelError: it cannot be found.
        """
        return self._rounded(base_alone(self.bundle_for(None)))

    def _read(self, version: str, digest: str) -> AdapterFiles:
        return read_files(version_directory(self._adapters, version), digest=digest)

    def _rounded(self, serving: ServedModel) -> ServedModel:
        """The model in the precision it serves in; its canary has been computed in fp32 by then."""
        return serving if self._precision == "fp32" else replace(serving, model=in_bf16(serving.model))

    def _warm(self, serving: ServedModel) -> None:
        if self._warm_up is not None:
            try:
                self._warm_up(serving)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                raise AdapterError(f"warm-up failed: {type(error).__name__}: {error}") from error


def version_file(adapters: Home, version: str, name: str) -> bytes:
    """One file of a version; of a bucket, no more than it is fetched.

    Raises:
        AdapterError: no name of a version.
        AdapterNotWholeError: it is not there, or cannot be read.
    """
    if isinstance(adapters, DirectoryHome):
        return read_capped(version_directory(adapters, version), name, LARGEST[name])
    _require_version(version)
    try:
        return adapters.file(version, name)
    except StoreError as error:
        raise AdapterNotWholeError(str(error)) from error


def version_directory(adapters: Home, version: str) -> Path:
    """The directory of a version, or of its copy on this machine; a link could lead outside the store, so
    none is followed.

    Raises:
        AdapterError: no name of a version.
        AdapterNotWholeError: it is not there, or is a link.
    """
    _require_version(version)
    try:
        directory = adapters.directory(version)
    except StoreError as error:
        raise AdapterNotWholeError(str(error)) from error
    return _without_links(adapters.path, version) if isinstance(adapters, DirectoryHome) else directory


def _require_version(version: str) -> None:
    if not is_version(version):
        raise AdapterError(f"expected a version such as 000001-0123456789ab, got {version[:80]!r}")


def _without_links(adapters: Path, version: str) -> Path:
    directory = adapters / VERSIONS / version
    try:
        found = directory.resolve(strict=True)
        expected = adapters.resolve(strict=True) / VERSIONS / version
    except OSError as error:
        where = f" from {VERSIONS}" if is_missing(error) else ""
        raise AdapterNotWholeError(f"{version}: {explain(error)}{where}") from error
    except RuntimeError:  # what Python 3.11 makes of a loop of links
        raise AdapterNotWholeError(f"{version}: is a link, which may lead anywhere") from None
    if found != expected:
        raise AdapterNotWholeError(f"{version}: is a link, which may lead anywhere")
    return directory
