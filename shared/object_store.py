"""A bucket of an object store: whole objects, conditional writes, and errors that say what to do.

Keys come from the environment as each provider's own tools read them, and no message quotes more than the
store's name and its answer.
"""

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kronos_shared.adapter_home import StoreError
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.cli import needs
from kronos_shared.errors import KronosError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

RETRIES: Final[Any] = {
    "max_retries": 6,
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2.0,
    },
    "retry_timeout": timedelta(seconds=30),
}
"""Of answers 5xx and 429, and of connections that fail, by the library itself."""
CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 60
LONGEST_LIST: Final = 4 << 20
"""Bytes of a file that only grows, at most."""
KEYS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""The variables that hold a provider's keys."""
METADATA: Final = ("169.254.169.254", "metadata.google", "metadata.goog")
"""Where the library looks for keys when the environment has none."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """An object's content, and what tells it from any other that has its name later."""

    content: bytes
    at: float
    """When it was written, in seconds since 1970."""
    tag: dict[str, str]


@dataclass(frozen=True)
class Bucket:
    """The objects under a store's URL."""

    url: StoreUrl

    def read(self, key: str, *, most: int) -> Object | None:
        """An object of at most `most` bytes; None where there is none.

        Raises:
            StoreError: it is longer, or the store does not answer.
        """

        def get() -> Object:
            found = _library().get(self._client(), key)
            about = found.meta
            if about["size"] > most:
                raise StoreError(f"{self.url}/{key} is longer than {most} bytes")
            content = bytes(found.bytes())
            return Object(content=content, at=about["last_modified"].timestamp(), tag=_tag(about))

        return self._call(get)

    def names(self, prefix: str, *, after: str = "") -> list[str]:
        """Keys under a prefix, in their order; only those after one of them, where that is given.

        Raises:
            StoreError: the store does not answer.
        """

        def walk() -> list[str]:
            pages = _library().list(self._client(), prefix=prefix, offset=after or None)
            return sorted(one["path"] for page in pages for one in page)

        return self._call(walk) or []

    def write(self, key: str, content: bytes) -> None:
        """Make an object, or replace it; raises StoreError."""
        self._put(key, content, None)

    def create(self, key: str, content: bytes) -> bool:
        """Make an object, unless there is one; raises StoreError."""
        return self._put(key, content, "create")

    def replace(self, key: str, content: bytes, tag: object) -> bool:
        """Replace an object, unless it has changed since its tag was read; raises StoreError."""
        return self._put(key, content, tag)

    def remove(self, key: str) -> None:
        """Remove an object, if it is there; raises StoreError."""
        self._call(lambda: _library().delete(self._client(), key))

    def _put(self, key: str, content: bytes, mode: Any) -> bool:
        """Whether the condition held; also False where the answer was lost, and the object was written."""

        def put() -> bool:
            library = _library()
            refused = (library.exceptions.AlreadyExistsError, library.exceptions.PreconditionError)
            try:
                library.put(self._client(), key, content, mode=mode, use_multipart=False)
            except refused:
                return False
            except Exception as error:
                if mode is not None and "409 Conflict" in str(error):  # another write of it is on its way
                    return False
                raise
            return True

        done = self._call(put)
        if done is None:
            raise StoreError(f"cannot write {self.url}/{key}: it has just been removed; try again")
        return done

    def _call(self, ask: Callable[[], T]) -> T | None:
        """The answer, or None where there is no such object."""
        try:
            return ask()
        except KronosError:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                return None
            raise self._explained(error) from None
        except Exception as error:  # the library's own tree of errors; their text holds addresses and more
            raise self._explained(error) from None

    def _client(self) -> "ObjectStore":
        named = {one for one in os.environ.items() if one[0].startswith(("AWS_", "GOOGLE_", "AZURE_"))}
        return _connected(self.url, frozenset(named))

    def _explained(self, error: Exception) -> StoreError:
        text, scheme = str(error), self.url.partition(":")[0]
        where, keys = f"cannot use {self.url}", KEYS[scheme]
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        status = re.search(r"status code: (\d{3})", text)
        said = " ".join(one.group(1) for one in (status, code) if one) or type(error).__name__
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return StoreError(f"{where}: there is no bucket {self.url.bucket}; create it, or name another")
        if any(one in text for one in METADATA):
            return StoreError(f"{where}: the environment holds no keys; set {keys}")
        if said.startswith(("401", "403")) or "Permission" in said or "Unauthenticated" in said:
            return StoreError(
                f"{where}: the store refuses these keys ({said}); check {keys}, and that they may read and "
                "write there"
            )
        if not status and "builder error" in text:
            return StoreError(f"{where}: its address is not valid; check {_endpoint(scheme)[1]}")
        if not status and "HTTP error" in text:
            address, variable = _endpoint(scheme)
            return StoreError(f"{where}: {address} does not answer; check the network and {variable}")
        return StoreError(f"{where}: the store answers {said}; try again later")


def read_lines(url: StoreUrl, key: str) -> bytes:
    """A file of a store that only grows; empty where there is none. Raises StoreError."""
    found = Bucket(url).read(key, most=LONGEST_LIST)
    return found.content if found else b""


def append_line(url: StoreUrl, key: str, line: bytes) -> None:
    """Add a line to such a file, whoever else does at the same time; raises StoreError."""
    bucket = Bucket(url)
    while True:
        found = bucket.read(key, most=LONGEST_LIST)
        if found and line in found.content.splitlines(keepends=True):  # the answer to our own write was lost
            return
        if bucket.replace(key, found.content + line, found.tag) if found else bucket.create(key, line):
            return
        time.sleep(random.uniform(0, 0.2))


def _tag(about: Any) -> dict[str, str]:
    return {name: about[name] for name in ("e_tag", "version") if about.get(name)}


def _endpoint(scheme: str) -> tuple[str, str]:
    """What a message may say of the address, and the variable that holds it."""
    variable = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_ENDPOINT"}.get(scheme, "the proxy's variables")
    host = re.sub(r"^(https?://)(?:[^/]*@)?([^/?#]*).*", r"\1\2", os.environ.get(variable, ""))
    return host or "the store", variable


def _library() -> Any:
    with needs("cloud"):
        import obstore
        import obstore.store
    return obstore


@lru_cache
def _connected(url: StoreUrl, environment: frozenset[tuple[str, str]]) -> "ObjectStore":  # noqa: ARG001
    """The library's client, which reads the environment once."""
    is_plain = _endpoint(url.partition(":")[0])[0].startswith("http://")  # its owner chose that
    options = {
        "allow_http": is_plain,
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=ANSWER_SECONDS),
    }
    client: ObjectStore = _library().store.from_url(url, retry_config=RETRIES, client_options=options)
    return client
