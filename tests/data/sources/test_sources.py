"""One registry: what it offers, when it checks the settings of a source, and what it costs to import."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from small_tables import write_small

from kronos_service.data.sources import SOURCES, SourceName, open_source
from kronos_shared.errors import KronosError


def test_a_snapshot_opens_by_its_name(tmp_path: Path) -> None:
    write_small(tmp_path / "2024-01")
    with open_source("snapshot", tmp_path / "2024-01") as source:
        assert source.name == "snapshot:2024-01"
        assert len(list(source.bars())) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("supabase", "set SUPABASE_URL, SUPABASE_KEY"),
        ("postgres", "set DATABASE_URL"),
        ("snapshot", "expected the directory"),
    ],
)
def test_every_source_checks_its_settings_before_it_is_opened(
    name: SourceName, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SUPABASE_URL", "SUPABASE_KEY", "DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(KronosError, match=message):
        SOURCES[name](None)


def test_the_registry_opens_every_source_that_the_settings_accept() -> None:
    assert set(SOURCES) == set(get_args(SourceName))


def test_the_names_cost_no_heavy_import() -> None:
    code = "import sys, kronos_service.data.sources; print(*{'pandas', 'numpy', 'httpx'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
