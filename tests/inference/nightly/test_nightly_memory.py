"""How many symbols go together follows from free memory, of the machine or of a control group."""

from pathlib import Path

import pytest

from kronos_service.inference.nightly.memory import _left_in_groups, chunk_size, free_bytes


@pytest.fixture
def small_chunks() -> None:
    """The limit as it is."""


@pytest.mark.parametrize(("free", "symbols"), [(10**12, 32), (10**8, 32), (10**7, 8), (10**6, 1), (0, 1)])
def test_less_memory_makes_smaller_chunks(free: int, symbols: int) -> None:
    assert chunk_size(600, free=free) == symbols


def test_the_smallest_limit_above_a_process_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/system.slice/kronos.service\n")
    root = tmp_path / "fs"
    service = root / "system.slice" / "kronos.service"
    service.mkdir(parents=True)
    for directory, most in ((service, "4000"), (root / "system.slice", "max"), (root, "9000")):
        (directory / "memory.max").write_text(f"{most}\n")
        (directory / "memory.current").write_text("1500\n")
    assert _left_in_groups(root, own) == [2500, 7500]
    assert _left_in_groups(root, tmp_path / "none") == []
    assert free_bytes() > 0
