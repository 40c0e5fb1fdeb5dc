"""A published version's manifest and model card, read from the store without loading its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kronos_service.data.sample import sample_sha256
from kronos_service.inference.models.cache import version_directory
from kronos_service.model.adapter.files import AdapterError, AdapterNotWholeError, read_capped
from kronos_shared.adapter_manifest import LARGEST, MANIFEST, MODEL_CARD, AdapterManifest, file_record


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version as its manifest describes it."""

    version: str
    digest: str
    manifest: AdapterManifest

    @property
    def is_synthetic(self) -> bool:
        """Whether it has learned from the embedded sample market alone."""
        return self.manifest.data.sha256 == sample_sha256()


def read_published(adapters: Path, version: str) -> Published:
    """A version of the store, by its name.

    Raises:
        AdapterNotWholeError: it is not there, or is not the manifest that the name promises.
        AdapterError: no name of a version, or no valid manifest.
    """
    content = read_capped(version_directory(adapters, version), MANIFEST, LARGEST[MANIFEST])
    digest = hashlib.sha256(content).hexdigest()
    if not version.endswith(digest[:12]):
        raise AdapterNotWholeError(f"{version}: its manifest has sha256 {digest[:12]}")
    try:
        manifest = AdapterManifest.from_bytes(content)
    except ValueError as error:
        raise AdapterError(f"{version}: {MANIFEST} is not a valid manifest: {error}") from None
    return Published(version=version, digest=digest, manifest=manifest)


def read_card(adapters: Path, published: Published) -> str:
    """The model card of a version, Markdown.

    Raises:
        AdapterNotWholeError: it is not there, or is not the one that the manifest names.
    """
    directory = version_directory(adapters, published.version)
    content = read_capped(directory, MODEL_CARD, LARGEST[MODEL_CARD])
    if published.manifest.files.get(MODEL_CARD) != file_record(content):
        raise AdapterNotWholeError(f"{published.version}: {MODEL_CARD} is not the file its manifest names")
    return content.decode(errors="replace")
