"""The bytes of an adapter directory: each file read once, capped, never through a link, and held against
the manifest before anything parses it.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from kronos_shared import strict_json
from kronos_shared.adapter_manifest import (
    FILES,
    LARGEST,
    LARGEST_TOTAL,
    MANIFEST,
    AdapterManifest,
    TensorRecord,
    file_record,
)
from kronos_shared.disk_errors import explain
from kronos_shared.errors import KronosError

LARGEST_HEADER = 256 << 10
"""Bytes that the header of a safetensors file may have at most."""


class AdapterError(KronosError):
    """An adapter that must not be used; the message gives every reason."""


class AdapterNotWholeError(AdapterError):
    """Files that are not, or not yet, those that the manifest describes: this says nothing against the
    adapter itself, and the same version may be whole a moment later.
    """


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """Content that is what its manifest describes; what the files say has not been judged yet."""

    directory: Path
    manifest: AdapterManifest
    digest: str
    """sha256 of the manifest."""
    content: dict[str, bytes]
    """By file name, the manifest among them."""


def read_files(directory: Path, *, digest: str | None = None) -> AdapterFiles:
    """Read a directory whose manifest should have the sha256 `digest` (None: any).

    Raises:
        AdapterNotWholeError: a file missing, unreadable, extra, a link, or other than the digest or the
        manifest says.
        AdapterError: the manifest is the right one, and not valid.
    """
    content = {MANIFEST: read_capped(directory, MANIFEST, LARGEST[MANIFEST])}
    found = hashlib.sha256(content[MANIFEST]).hexdigest()
    if digest is not None and found != digest:
        raise AdapterNotWholeError(f"{directory}: {MANIFEST} has sha256 {found[:12]}, expected {digest[:12]}")
    try:
        manifest = AdapterManifest.from_bytes(content[MANIFEST])
    except ValueError as error:
        raise AdapterError(f"{directory}: {MANIFEST} is not a valid manifest: {error}") from None
    _check_sizes(directory, manifest)
    _check_names(directory)
    problems = []
    for name in FILES:
        content[name] = read_capped(directory, name, manifest.files[name].size)
        if file_record(content[name]) != manifest.files[name]:
            problems.append(f"{name} is not the file the manifest describes (size or sha256 differs)")
    if problems:
        raise AdapterNotWholeError(f"{directory}: {'; '.join(problems)}")
    return AdapterFiles(directory=directory, manifest=manifest, digest=found, content=content)


def read_capped(directory: Path, name: str, limit: int) -> bytes:
    """The bytes of a regular file of a directory; opening it neither follows a link nor waits for a pipe.

    Raises:
        AdapterNotWholeError: it is missing, unreadable, no regular file, or longer than `limit` bytes.
    """
    path = directory / name
    try:
        if path.is_symlink():  # where O_NOFOLLOW does not exist, this alone says so
            raise AdapterNotWholeError(f"{directory}: {name} is a link")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise AdapterNotWholeError(f"{directory}: {name} is not a regular file")
            content = file.read(limit + 1)
    except OSError as error:
        raise AdapterNotWholeError(f"{directory}: {name} {explain(error)}") from error
    if len(content) > limit:
        raise AdapterNotWholeError(f"{directory}: {name} is longer than {limit} bytes")
    return content


def header_problems(content: bytes, records: dict[str, TensorRecord]) -> list[str]:
    """How the header of a safetensors file differs from the manifest's records; nothing is allocated for
    what it promises.

    The format: https://github.com/huggingface/safetensors#format
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > LARGEST_HEADER or 8 + length > len(content):
        return [f"not a safetensors file: a header of {length} bytes in {len(content)}"]
    try:
        header = strict_json.parse(content[8 : 8 + length])
        if header.pop("__metadata__", {"format": "pt"}) != {"format": "pt"}:
            return ["not a safetensors file of ours: other metadata than format pt"]
        found = {
            name: TensorRecord(shape=tuple(one["shape"]), dtype=one["dtype"]) for name, one in header.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return ["not a safetensors file: its header lists no tensors"]
    return [] if found == records else ["holds other tensors than the manifest lists"]


def _check_sizes(directory: Path, manifest: AdapterManifest) -> None:
    if set(manifest.files) != set(FILES):
        raise AdapterError(
            f"{directory}: the manifest must list {', '.join(sorted(FILES))}, and nothing else"
        )
    sizes = {name: record.size for name, record in manifest.files.items()}
    for name, size in sizes.items():
        if size > LARGEST[name]:
            raise AdapterError(f"{directory}: {name} may have {LARGEST[name]} bytes at most, not {size}")
    if sum(sizes.values()) > LARGEST_TOTAL:
        raise AdapterError(f"{directory}: an adapter may have {LARGEST_TOTAL} bytes at most in all")


def _check_names(directory: Path) -> None:
    try:
        extra = sorted(set(os.listdir(directory)) - {*FILES, MANIFEST})
    except OSError as error:
        raise AdapterNotWholeError(f"{directory}: listing it {explain(error)}") from error
    if extra:
        raise AdapterNotWholeError(
            f"{directory}: holds {extra[0][:80]!r}, which is no file of an adapter; remove it"
        )
