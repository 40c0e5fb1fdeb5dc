"""A bucket in this process's memory: the library's own store, which has conditional writes too."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from kronos_shared import object_store
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.object_home import _opened

Store = Path | StoreUrl


@contextmanager
def buckets_in_memory() -> Iterator[None]:
    """Every URL is a bucket of its own."""
    stores: dict[str, Any] = defaultdict(MemoryStore)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "_connected", lambda url, _environment: stores[url])
        _opened.cache_clear()
        yield
    _opened.cache_clear()


def client(store: StoreUrl) -> Any:
    return object_store.Bucket(store)._client()


def read(store: Store, key: str) -> bytes:
    if isinstance(store, Path):
        return (store / key).read_bytes()
    return bytes(obstore.get(client(store), key).bytes())


def write(store: Store, key: str, content: bytes) -> None:
    if isinstance(store, Path):
        (store / key).write_bytes(content)
    else:
        obstore.put(client(store), key, content)


def unlink(store: Store, key: str) -> None:
    if isinstance(store, Path):
        (store / key).unlink()
    else:
        obstore.delete(client(store), key)


def keys(store: Store, under: str = "") -> set[str]:
    """Names of all files."""
    if isinstance(store, Path):
        return {str(one.relative_to(store)) for one in (store / under).rglob("*") if one.is_file()}
    return {one["path"] for page in obstore.list(client(store), prefix=under) for one in page}
