"""Where adapters lie, as a user names it: a directory, a bucket of an object store, or the hub."""

import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import PlainSerializer, PlainValidator

SCHEMES: Final = ("s3", "gs", "az")
"""Object stores: Amazon's and all that speak its API, Google's, Microsoft's."""


HUB: Final = "hub:"


class StoreUrl(str):
    """`s3://bucket/prefix`: a store of adapters in a bucket."""

    __slots__ = ()

    @property
    def bucket(self) -> str:
        """The bucket alone."""
        return urlsplit(self).netloc


def store_location(value: str | Path) -> Path | StoreUrl:
    """What a user's text means.

    Raises:
        ValueError: a URL that names no bucket, or another kind of place.
    """
    if isinstance(value, Path | StoreUrl):
        return value
    scheme, is_url, rest = value.partition("://")
    if not is_url:
        return Path(value)
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:  # not quoted: it may hold a key
        raise ValueError(
            "a store's URL names a bucket and a prefix alone, such as s3://bucket/prefix; "
            "put keys in the environment, such as AWS_ACCESS_KEY_ID"
        )
    if scheme not in SCHEMES or not parts.netloc or ".." in rest.split("/"):
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ValueError(f"expected a directory or a URL such as s3://bucket/prefix ({known}), got {value}")
    return StoreUrl(value.rstrip("/"))


class HubName(str):
    """`hub:owner/name@commit`: one adapter in a repository of the Hugging Face hub."""

    __slots__ = ()

    @property
    def repo(self) -> str:
        """`owner/name`."""
        return self.removeprefix(HUB).partition("@")[0]

    @property
    def revision(self) -> str:
        """The commit."""
        return self.partition("@")[2]


def adapter_location(value: str | Path) -> Path | StoreUrl | HubName:
    """What a user's text means, where it may name an adapter by itself or a store, whose LATEST it is then.

    Raises:
        ValueError: as `store_location`, or a hub's repository without a commit.
    """
    if isinstance(value, Path | HubName) or not value.startswith(HUB):
        return value if isinstance(value, HubName) else store_location(value)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", value.removeprefix(HUB)):
        raise ValueError(
            "an adapter on the hub is named with its commit, because branches move: expected "
            f"hub:owner/name@<40 hex digits>, got {value}"
        )
    return HubName(value)


StoreLocation = Annotated[Path | StoreUrl, PlainValidator(store_location), PlainSerializer(str)]
"""The type of a setting that names a store."""
AdapterLocation = Annotated[Path | StoreUrl | HubName, PlainValidator(adapter_location), PlainSerializer(str)]
"""The type of a setting that names an adapter."""
