"""A snapshot is what was written, byte for byte, or it is refused by name."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from small_tables import NOW, Tables, small_tables, write_small

from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.data.snapshot.read import (
    Snapshot,
    leader_data,
    load_snapshot,
    read_tables,
    series,
)
from kronos_service.data.tables import TableError
from kronos_service.data.validation import BadBarsError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

FILES = {"symbols": "symbols", "bars": "ohlcv_1d", "calendar": "economic_calendar"}


def write(directory: Path, tables: Tables) -> dict[str, Any]:
    return write_small(directory, tables)


def write_plain(directory: Path, tables: Tables, suffix: str = ".csv") -> Path:
    """The tables alone, as a user may have them."""
    directory.mkdir()
    for name, table in tables.items():
        path = directory / f"{FILES[name]}{suffix}"
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path, index=False)
    return directory


def assert_equal(one: Snapshot, other: Snapshot) -> None:
    for table in ("symbols", "bars", "calendar"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))


def edit_manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_snapshot_reads_back_as_written_and_its_manifest_says_what_it_holds(tmp_path: Path) -> None:
    tables = small_tables()
    manifest = write(tmp_path / "2024-01", tables)
    snapshot = load_snapshot(tmp_path / "2024-01", now=NOW)
    assert (snapshot.name, snapshot.flagged, snapshot.manifest) == ("2024-01", False, manifest)
    assert snapshot.sha256 == manifest["sha256"]
    assert manifest["schema_version"] == 1
    assert manifest["source"] == "tests"
    assert manifest["window"] == {"first": "2024-01-01", "last": "2024-01-31"}
    rows = {name: entry["rows"] for name, entry in manifest["tables"].items()}
    assert rows == {FILES[name]: len(table) for name, table in tables.items()}
    assert_equal(snapshot, load_snapshot(write_plain(tmp_path / "plain", tables), now=NOW))
    expected = tables["bars"].sort_values(["symbol", "ts"], ignore_index=True)
    pd.testing.assert_frame_equal(snapshot.bars, expected, check_dtype=False)


def test_the_hash_follows_the_content_and_not_the_place_or_the_row_order(tmp_path: Path) -> None:
    tables = small_tables()
    first = write(tmp_path / "a", tables)["sha256"]
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    assert write(tmp_path / "b", shuffled)["sha256"] == first
    tables["bars"].loc[3, "volume"] = 1001.0
    assert write(tmp_path / "c", tables)["sha256"] != first


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_plain_directory_is_read_and_flagged_and_hashed_on_the_spot(tmp_path: Path, suffix: str) -> None:
    tables = small_tables()
    tables["bars"] = tables["bars"].drop(columns="amount")
    tables["calendar"] = tables["calendar"].drop(columns="previous")
    snapshot = load_snapshot(write_plain(tmp_path / "plain", tables, suffix), now=NOW)
    assert (snapshot.flagged, snapshot.manifest) == (True, None)
    assert snapshot.bars["amount"].isna().all()
    same = load_snapshot(write_plain(tmp_path / "same", tables, suffix), now=NOW)
    assert same.sha256 == snapshot.sha256
    tables["symbols"]["tradable"] = False
    other = load_snapshot(write_plain(tmp_path / "other", tables, suffix), now=NOW)
    assert other.sha256 != snapshot.sha256


@pytest.mark.parametrize("ticker", ["NA", "TRUE", "0700"])
def test_a_ticker_of_a_csv_file_stays_as_it_is_written(tmp_path: Path, ticker: str) -> None:
    tables = small_tables()
    only = {
        name: tables[name][tables[name]["symbol"] == "SPY"].assign(symbol=ticker)
        for name in ("bars", "symbols")
    }
    snapshot = load_snapshot(write_plain(tmp_path / "plain", tables | only), now=NOW)
    assert snapshot.symbols["symbol"].tolist() == snapshot.bars["symbol"].unique().tolist() == [ticker]


def test_series_and_leaders_are_ascending_and_complete(tmp_path: Path) -> None:
    write(tmp_path / "s", small_tables())
    snapshot = load_snapshot(tmp_path / "s", now=NOW)
    spy = series(snapshot, "SPY")
    assert spy["ts"].is_monotonic_increasing
    assert len(spy) == 21  # sessions of January 2024
    leaders = leader_data(snapshot)
    assert set(leaders) == set(DEFAULT_TAXONOMY.leaders)
    pd.testing.assert_frame_equal(leaders["SPY"], spy[["ts", "close"]])
    with pytest.raises(SnapshotError, match="no bars of 'QQQ'"):
        series(snapshot, "QQQ")


@pytest.mark.parametrize("table", ["ohlcv_1d", "symbols", "economic_calendar"])
@pytest.mark.parametrize("damage", ["one bit", "cut short", "gone"])
def test_a_damaged_file_is_named(tmp_path: Path, table: str, damage: str) -> None:
    manifest = write(tmp_path / "s", small_tables())
    file = tmp_path / "s" / manifest["tables"][table]["file"]
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "one bit" else content[:-1])
    expected = "cannot read" if damage == "gone" else "fails its hash"
    with pytest.raises(SnapshotError, match=expected) as refused:
        load_snapshot(tmp_path / "s", now=NOW)
    assert file.name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, expected 1"),
        ({"tables": {}}, "not a snapshot manifest"),
        (
            {"tables": {name: {"file": "../x", "rows": 1, "sha256": "0"} for name in FILES.values()}},
            "plain file name",
        ),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write(tmp_path / "s", small_tables())
    edit_manifest(tmp_path / "s", **changes)
    with pytest.raises(SnapshotError, match=message):
        load_snapshot(tmp_path / "s", now=NOW)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_manifest_that_does_not_parse_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "s", small_tables())
    (tmp_path / "s" / "manifest.json").write_bytes(content)
    with pytest.raises(SnapshotError, match="not a snapshot manifest"):
        load_snapshot(tmp_path / "s", now=NOW)


def test_a_row_count_that_differs_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path / "s", small_tables())
    manifest["tables"]["symbols"]["rows"] = 5
    edit_manifest(tmp_path / "s", tables=manifest["tables"])
    with pytest.raises(SnapshotError, match="symbols has 4 rows, the manifest says 5"):
        load_snapshot(tmp_path / "s", now=NOW)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"no such snapshot: .*nowhere"):
        load_snapshot(tmp_path / "nowhere")
    with pytest.raises(
        SnapshotError, match=r"no table ohlcv_1d: expected ohlcv_1d\.parquet or ohlcv_1d\.csv"
    ):
        load_snapshot(tmp_path)
    directory = write_plain(tmp_path / "plain", small_tables())
    (directory / "economic_calendar.csv").unlink()
    with pytest.raises(SnapshotError, match="no table economic_calendar"):
        load_snapshot(directory)
    (directory / "economic_calendar.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SnapshotError, match=r"economic_calendar\.parquet does not parse"):
        load_snapshot(directory)
    (directory / "symbols.parquet").touch()
    with pytest.raises(SnapshotError, match="keep one"):
        load_snapshot(directory)


def test_bad_bars_are_refused_on_load_and_on_write_but_can_be_read_for_mending(tmp_path: Path) -> None:
    tables = small_tables()
    tables["bars"].loc[4, "low"] = 1e6
    with pytest.raises(BadBarsError):
        write(tmp_path / "s", tables)
    assert not (tmp_path / "s").exists()
    directory = write_plain(tmp_path / "plain", tables)
    with pytest.raises(BadBarsError, match="1 bad bar: BTCUSDT 2024-01-05"):
        load_snapshot(directory, now=NOW)
    assert len(read_tables(directory).bars) == len(tables["bars"])


def test_a_snapshot_may_not_hold_bars_from_after_the_present(tmp_path: Path) -> None:
    write(tmp_path / "s", small_tables())
    load_snapshot(tmp_path / "s")
    with pytest.raises(BadBarsError, match=r"BTCUSDT 2024-01-31 \(its session has not closed\)"):
        load_snapshot(tmp_path / "s", now=datetime(2024, 1, 31, 23, tzinfo=UTC))


def test_a_new_version_replaces_the_old_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    old = write(tmp_path / "s", small_tables())
    new = write(tmp_path / "s", small_tables(seed=1))
    assert load_snapshot(tmp_path / "s", now=NOW).sha256 == new["sha256"] != old["sha256"]
    names = {entry["file"] for entry in new["tables"].values()} | {"manifest.json"}
    assert {path.name for path in (tmp_path / "s").iterdir()} == names


def test_a_failed_write_leaves_the_old_version_alone(tmp_path: Path) -> None:
    old = write(tmp_path / "s", small_tables())
    empty = small_tables(seed=1) | {"calendar": small_tables()["calendar"].iloc[:0]}
    with pytest.raises(TableError, match="is empty"):
        write(tmp_path / "s", empty)
    assert load_snapshot(tmp_path / "s", now=NOW).sha256 == old["sha256"]


@pytest.mark.parametrize("name", ["thesis.txt", "draft.tmp", "symbols.csv", "ohlcv_1d-old.parquet"])
def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("years of work")
    with pytest.raises(SnapshotError, match=f"holds {name}, no part of a snapshot"):
        write(tmp_path, small_tables())
    assert (tmp_path / name).read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError, match=r"cannot write .*file"):
        write(tmp_path / "file" / "s", small_tables())


def test_two_writers_never_share_a_directory(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(SnapshotError, match="another process is writing"):
        write(tmp_path, small_tables())
    write(tmp_path, small_tables())


def test_the_window_may_be_wider_than_the_bars(tmp_path: Path) -> None:
    window = (date(2020, 1, 1), date(2024, 2, 29))
    manifest = write_small(tmp_path, window=window)
    assert manifest["window"] == {"first": "2020-01-01", "last": "2024-02-29"}
