"""Who looked at the test split: written down beside run and store, never lost, never doubled."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import memory_bucket
import pytest

from kronos_service.finetune.event_conditioned.evaluation.test_split_log import (
    OPENINGS,
    OpeningsError,
    open_test_split,
    read_openings,
)
from kronos_shared.adapter_cache import ORIGIN
from kronos_shared.adapter_location import StoreUrl


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
    age = datetime.now(UTC) - datetime.fromisoformat(one.opened_at)
    assert timedelta(0) <= age < timedelta(minutes=1)
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
    assert look(run / "adapter", "2023-12-01", "2024-01-01") == ["adapter"]
    assert look(run / "adapter", "2023-01-01", "2023-11-30") == []


def test_an_adapter_of_no_run_is_remembered_beside_it(run: Path) -> None:
    (run / "config.json").unlink()
    look(run / "adapter")
    assert len((run / OPENINGS).read_text().splitlines()) == 1
    assert look(run / "adapter") == ["adapter"]


@pytest.fixture
def bucket() -> Iterator[StoreUrl]:
    with memory_bucket.buckets_in_memory():
        yield StoreUrl("s3://desk/adapters")


def test_a_run_that_publishes_to_a_bucket_is_remembered_there_and_so_is_a_copy_from_it(
    run: Path, tmp_path: Path, bucket: StoreUrl
) -> None:
    (run / "config.json").write_text(json.dumps({"adapter_store": str(bucket)}))
    version = tmp_path / "store" / "versions" / "000001-aaaaaaaaaaaa"
    (tmp_path / "store" / ORIGIN).write_text(str(bucket))
    look(run / "adapter")
    assert memory_bucket.read(bucket, OPENINGS) == (run / OPENINGS).read_bytes()
    assert look(version) == ["adapter"]
    assert not (tmp_path / "store" / OPENINGS).exists()
    (run / OPENINGS).unlink()
    assert look(run / "adapter") == ["adapter", "000001-aaaaaaaaaaaa"]


def test_a_damaged_list_is_no_licence_to_look_again(run: Path) -> None:
    (run / OPENINGS).write_text('{"opened_at": "2026')
    with pytest.raises(OpeningsError, match=r"line 1 of .*test_opened.jsonl is damaged"):
        look(run / "adapter")


def test_a_full_disk_leaves_the_split_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OpeningsError, match=r"cannot write .*No space left.* not opened without a record"):
        look(run / "adapter")


def test_without_a_record_the_split_is_not_opened(run: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / OPENINGS).mkdir()
    with pytest.raises(OpeningsError, match="cannot read"):
        look(run / "adapter")
    (tmp_path / "store" / OPENINGS).rmdir()
    (run / "config.json").write_text(json.dumps({"adapters": str(run / "config.json")}))
    with pytest.raises(OpeningsError, match="cannot"):
        look(run / "adapter")
