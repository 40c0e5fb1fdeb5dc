"""What a figure was made with: versions of the software, and what its base had seen before."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Final

from kronos_service.data.sample import sample_sha256
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.model.factory import Bundle
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import AuditRecord, DataRecord

LIBRARIES = ("torch", "numpy", "pandas", "peft", "accelerate", "exchange_calendars")
FIRST_UNSEEN: Final = date(2024, 6, 1)
"""The released bases were pretrained on data to February 2024; the months between are for safety."""


def versions() -> dict[str, str]:
    """This package and its git revision (where it runs from a checkout), Python and the libraries."""
    revision = _git_revision(Path(__file__).parent)
    return (
        {"kronos-events": version("kronos-events")}
        | ({"git revision": revision} if revision else {})
        | {"python": platform.python_version(), "platform": platform.platform(terse=True)}
        | {name: version(name) for name in LIBRARIES}
    )


def data_record(snapshot: Snapshot, splits: Mapping[str, tuple[str, str]], audit: AuditRecord) -> DataRecord:
    """What an adapter's manifest says of its data; `splits` are first and last target dates by name."""
    return DataRecord(
        snapshot=snapshot.name,
        sha256=snapshot.sha256,
        has_manifest=not snapshot.flagged,
        splits=dict(splits),
        audit=audit,
        synthetic=snapshot.is_sample and snapshot.sha256 != sample_sha256(),
        interval=snapshot.interval,
    )


def out_of_sample(base: str, first: date) -> str:
    """One sentence on whether targets from `first` on are new to a base, by its repository's name."""
    released = {preset.hub_id for preset in PRESETS.values() if preset.hub_id}
    if base not in released:
        return f"What {base} was pretrained on stands in its base.json, not here."
    if first < FIRST_UNSEEN:
        return (
            f"NOT out of sample: {base} was pretrained on data to February 2024, and these targets begin on "
            f"{first}, before {FIRST_UNSEEN}."
        )
    return f"{base} was pretrained on data to February 2024: targets from {first} on are new to it."


def unseen_from(bundle: Bundle) -> date | None:
    """The date from which on a base has seen no bar; None where nobody knows."""
    released = {preset.hub_id for preset in PRESETS.values() if preset.hub_id}
    return FIRST_UNSEEN if bundle.base.repo in released else bundle.pretrained_until


def seen_by(bundle: Bundle, first: date, last: date) -> str | None:
    """A warning that the base's own pretraining reaches into targets dated `first` to `last`, or that nobody
    knows whether it does; None if it ends before them.
    """
    repo, unseen = bundle.base.repo, unseen_from(bundle)
    if unseen is None:
        return f"base {repo} does not say until when it was pretrained: it may have seen these targets"
    if unseen <= first:
        return None
    reach = "all" if unseen > last else f"those before {unseen}"
    return f"NOT out of sample: base {repo} was pretrained on data of these dates ({reach} of them)"


def _git_revision(directory: Path) -> str | None:
    """The commit, with `+changes` where tracked files differ from it; None without git or a checkout."""
    described = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"]
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        for command in (tracked, described):
            done = subprocess.run(
                command, cwd=directory, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
