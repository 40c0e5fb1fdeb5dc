"""Who has looked at the test split, and when: a list that only grows, beside the adapters.

A manifest cannot remember it, since its hash is the adapter's name. So each opening is a line of
`test_opened.jsonl` in the run directory and at the root of the published adapters, with the manifest's
sha256.
The line is written before anything is scored: a run that dies half-way has still looked.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from kronos_service.finetune.event_conditioned.config import current
from kronos_service.finetune.event_conditioned.run_directory import CONFIG
from kronos_shared.adapter_cache import origin_of
from kronos_shared.adapter_location import StoreUrl, store_location
from kronos_shared.adapter_manifest import MANIFEST, VERSIONS
from kronos_shared.atomic import append
from kronos_shared.errors import KronosError
from kronos_shared.object_store import append_line, read_lines

OPENINGS = "test_opened.jsonl"


class OpeningsError(KronosError):
    """The list of openings cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class TestSplitUse:
    """One look at a test split."""

    opened_at: str
    adapter: str
    """Directory name of the adapter: its version, or `adapter` of a run."""
    manifest_sha256: str
    snapshot: str
    snapshot_sha256: str
    first: str
    last: str
    """First and last target date of the split."""

    def overlaps(self, first: str, last: str) -> bool:
        """Whether any target date of `first`..`last` was among those looked at."""
        return self.first <= last and first <= self.last

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.opened_at[:19]} UTC by adapter {self.adapter} (manifest {self.manifest_sha256[:12]}): "
            f"targets {self.first} to {self.last} of snapshot {self.snapshot} ({self.snapshot_sha256[:12]})"
        )


def open_test_split(
    adapter: Path, *, snapshot: str, snapshot_sha256: str, first: str, last: str
) -> list[TestSplitUse]:
    """Write down that this adapter is about to be scored on a test split, and return the openings before
    this one that looked at any of its target dates, oldest first.

    Raises:
        OpeningsError: the list cannot be read or written.
    """
    before = [one for one in read_openings(adapter) if one.overlaps(first, last)]
    opening = TestSplitUse(
        opened_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        adapter=adapter.resolve().name,
        manifest_sha256=hashlib.sha256((adapter / MANIFEST).read_bytes()).hexdigest(),
        snapshot=snapshot,
        snapshot_sha256=snapshot_sha256,
        first=first,
        last=last,
    )
    for path in _lists(adapter):
        _append(path, opening)
    return before


def read_openings(adapter: Path) -> list[TestSplitUse]:
    """Every opening that is remembered beside an adapter directory, oldest first.

    Raises:
        OpeningsError: a line is damaged.
    """
    found = {one for path in _lists(adapter) for one in _read(path)}
    return sorted(found, key=lambda one: one.opened_at)


def _lists(adapter: Path) -> Sequence[Path | StoreUrl]:
    """A published version's list lies at the root of its store; a run's in the run directory, and at the
    root of the store that the run publishes to.
    """
    parent = adapter.resolve().parent
    if parent.name == VERSIONS:
        return [origin_of(adapter) or parent.parent / OPENINGS]
    config = parent / CONFIG
    if not config.exists():
        return [parent / OPENINGS]
    store = store_location(current(json.loads(config.read_bytes()))["adapter_store"])
    return [parent / OPENINGS, store if isinstance(store, StoreUrl) else store / OPENINGS]


def _read(path: Path | StoreUrl) -> list[TestSplitUse]:
    try:
        content = read_lines(path, OPENINGS) if isinstance(path, StoreUrl) else path.read_bytes()
        lines = content.decode("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OpeningsError(f"cannot read {path} ({error.strerror}): make it readable") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(TestSplitUse(**json.loads(line)))
        except (ValueError, TypeError):
            raise OpeningsError(
                f"line {number} of {path} is damaged, so earlier looks at the test split may be lost: fix "
                "the line, or remove it knowingly"
            ) from None
    return found


def _append(path: Path | StoreUrl, opening: TestSplitUse) -> None:
    line = (json.dumps(asdict(opening)) + "\n").encode()
    try:
        if isinstance(path, StoreUrl):
            append_line(path, OPENINGS, line)
        else:
            append(path, line)
    except OSError as error:
        raise OpeningsError(
            f"cannot write {path} ({error.strerror}), and the test split is not opened without a record: "
            "make it writable"
        ) from None
