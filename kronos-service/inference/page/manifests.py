"""A published version's manifest and model card, read from the store without loading its weights."""

import hashlib
from dataclasses import dataclass

from kronos_service.data.sample import sample_sha256
from kronos_service.inference.models.cache import version_file
from kronos_service.model.adapter.files import AdapterError, AdapterNotWholeError
from kronos_shared.adapter_manifest import MANIFEST, MODEL_CARD, AdapterManifest, file_record
from kronos_shared.adapter_store import Location, home_of


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


def read_published(adapters: Location, version: str) -> Published:
    """A version of the store, by its name.

    Raises:
        AdapterNotWholeError: it is not there, or is not the manifest that the name promises.
        AdapterError: no name of a version, or no valid manifest.
    """
    content = version_file(home_of(adapters), version, MANIFEST)
    digest = hashlib.sha256(content).hexdigest()
    if not version.endswith(digest[:12]):
        raise AdapterNotWholeError(f"{version}: its manifest has sha256 {digest[:12]}")
    try:
        manifest = AdapterManifest.from_bytes(content)
    except ValueError as error:
        raise AdapterError(f"{version}: {MANIFEST} is not a valid manifest: {error}") from None
    return Published(version=version, digest=digest, manifest=manifest)


def read_card(adapters: Location, published: Published) -> str:
    """The model card of a version, Markdown.

    Raises:
        AdapterNotWholeError: it is not there, or is not the one that the manifest names.
    """
    content = version_file(home_of(adapters), published.version, MODEL_CARD)
    if published.manifest.files.get(MODEL_CARD) != file_record(content):
        raise AdapterNotWholeError(f"{published.version}: {MODEL_CARD} is not the file its manifest names")
    return content.decode(errors="replace")
