"""An adapter from the hub: one version's files at the root of a repository, at a commit."""

from pathlib import Path
from typing import Final

from kronos_service.model.base_files import hub_file, require_commit
from kronos_shared.adapter_cache import cache_of
from kronos_shared.adapter_location import HUB, HubName
from kronos_shared.adapter_manifest import FILES, MANIFEST, MODEL_CARD, AdapterManifest, file_record
from kronos_shared.adapter_store import publish

CARD: Final = "adapter_card.md"
"""The adapter's own card, where README.md is the hub's."""


def hub_adapter(repo: str, revision: str | None) -> HubName:
    """The name of the adapter in a repository at a commit; raises BaseModelError without a commit."""
    return HubName(f"{HUB}{repo}@{require_commit(repo, revision)}")


def adapter_name(directory: Path) -> str:
    """How answers name an adapter: its version, or `owner/name@commit` in short."""
    name = directory.resolve().name
    repo, at, commit = name.partition("@")
    return f"{repo.replace('--', '/', 1)}@{commit[:12]}" if at else name


def hub_directory(adapter: HubName) -> Path:
    """A copy of an adapter of the hub; its name says where it is from.

    Raises:
        BaseModelError: no such repository or file, or no network.
        StoreError: the copy cannot be written.
    """

    def read(name: str) -> bytes:
        # the hub's own cache holds links, which no adapter is read by
        return hub_file(adapter.repo, name, adapter.revision).read_bytes()

    def fetch() -> dict[str, bytes]:
        content = {name: read(name) for name in (MANIFEST, *FILES)}
        if not _is_described(content[MANIFEST], content[MODEL_CARD]):
            content[MODEL_CARD] = read(CARD)
        return content

    name = f"{adapter.repo.replace('/', '--')}@{adapter.revision}"
    return cache_of(f"{HUB}{adapter.repo}", None).directory(name, fetch)


def _is_described(manifest: bytes, card: bytes) -> bool:
    """Whether the repository's README.md is the adapter's own card; `push` writes another one for the hub."""
    try:
        described = AdapterManifest.from_bytes(manifest).files.get(MODEL_CARD)
    except ValueError:  # whoever reads the adapter says so
        return True
    return described == file_record(card)


def hub_store(adapter: HubName, root: Path) -> Path:
    """A store under `root` that holds an adapter of the hub alone, for a service to follow.

    Raises:
        BaseModelError, StoreError: it cannot be fetched or written.
    """
    directory = hub_directory(adapter)
    store = root / directory.name
    publish(directory, store, keep=1)
    return store
