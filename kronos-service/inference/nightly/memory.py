"""How many symbols are forecast together: as many as free memory takes, and no more than pay."""

from pathlib import Path
from typing import Final

import psutil

from kronos_shared.columns import BAR_COLUMNS

MOST_SYMBOLS: Final = 32
"""More are no faster (docs/nightly.md), and a kill costs the whole chunk."""
SHARE: Final = 0.25
"""Of the free memory, for the bars of a chunk: the model and others need the rest."""
COPIES: Final = 8
"""Of a symbol's bars while they are read, checked and cut; measured 5."""


def chunk_size(longest: int, *, free: int) -> int:
    """Symbols of a chunk.

    Args:
        longest: bars of the symbol that has most.
        free: bytes.
    """
    bytes_each = COPIES * 8 * len(BAR_COLUMNS) * longest
    return max(1, min(MOST_SYMBOLS, int(SHARE * free) // bytes_each))


def free_bytes() -> int:
    """Memory that can still be taken: of the machine, or of the limit of its service or container."""
    available = int(psutil.virtual_memory().available)
    return min([available, *_left_in_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _left_in_groups(root: Path, own: Path) -> list[int]:
    """What each control group above this process has left (cgroup v2); nothing elsewhere."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = root / line.removeprefix("0::").lstrip("/")
    left = []
    for directory in (group, *group.parents):
        if not directory.is_relative_to(root):
            break
        try:
            most, used = ((directory / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            left.append(max(0, int(most) - int(used)))
        except (OSError, ValueError):  # no limit here, or none that this process may read
            continue
    return left
