"""Who looked at the test split: written down beside run and store, never lost, never doubled."""

import hashlib
import json
from pathlib import Path

import pytest

from kronos_service.finetune.event_conditioned.evaluation.test_split_log import (
    OPENINGS,
    OpeningsError,
    open_test_split,
    read_openings,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that publishes to a store beside it, and a version in that store."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"adapters": str(tmp_path / "store")}))
    (tmp_path / "run" / "adapter" / "manifest.json").write_text("{}")
    version = tmp_path / "store" / "versions" / "000001-aaaaaaaaaaaa"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text('{"other": 1}')
    return tmp_path / "run"


def look(adapter: Path, first: str = "2025-07-01", last: str = "2026-03-31") -> list[str]:
    """Adapters whose earlier looks are reported."""
    found = open_test_split(adapter, snapshot="mine", snapshot_sha256="f" * 64, first=first, last=last)
    return [one.adapter for one in found]


def test_the_first_look_finds_none_before_it_and_the_second_finds_the_first(run: Path) -> None:
    assert look(run / "adapter") == []
    assert look(run / "adapter") == ["adapter"]
    assert look(run / "adapter") == ["adapter", "adapter"]


def test_a_look_names_adapter_time_data_and_dates(run: Path) -> None:
    look(run / "adapter")
    (one,) = read_openings(run / "adapter")
    assert one.manifest_sha256 == hashlib.sha256(b"{}").hexdigest()
    assert (one.snapshot, one.first, one.last) == ("mine", "2025-07-01", "2026-03-31")
    assert one.opened_at[:2] == "20"
    for part in ("adapter adapter", one.manifest_sha256[:12], "2025-07-01 to 2026-03-31", "mine"):
        assert part in one.describe()


def test_a_run_is_remembered_in_its_store_too_so_that_the_next_adapter_knows(
    run: Path, tmp_path: Path
) -> None:
    version = tmp_path / "store" / "versions" / "000001-aaaaaaaaaaaa"
    look(run / "adapter")
    assert look(version) == ["adapter"]
    assert look(run / "adapter") == ["adapter", "000001-aaaaaaaaaaaa"]
    (run / OPENINGS).unlink()
    assert len(read_openings(run / "adapter")) == 3


def test_only_looks_at_the_same_targets_count(run: Path) -> None:
    look(run / "adapter", "2024-01-01", "2024-06-30")
    assert look(run / "adapter", "2024-07-01", "2024-12-31") == []
    assert look(run / "adapter", "2024-06-30", "2024-07-01") == ["adapter", "adapter"]


def test_a_damaged_list_is_no_licence_to_look_again(run: Path) -> None:
    (run / OPENINGS).write_text('{"opened_at": "2026')
    with pytest.raises(OpeningsError, match=r"line 1 of .*test_opened.jsonl is damaged"):
        look(run / "adapter")


def test_without_a_record_the_split_is_not_opened(run: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / OPENINGS).mkdir()
    with pytest.raises(OpeningsError, match="cannot read"):
        look(run / "adapter")
    (tmp_path / "store" / OPENINGS).rmdir()
    (run / "config.json").write_text(json.dumps({"adapters": str(run / "config.json")}))
    with pytest.raises(OpeningsError, match="cannot"):
        look(run / "adapter")
