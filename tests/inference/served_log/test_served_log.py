"""The log holds what was answered, as the scorecard reads it, and never holds an answer up."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from kronos_service.data.forecasts import read_about
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.track_record import read_track_record
from kronos_service.inference.market.market import Market
from kronos_service.inference.served_log import writer
from kronos_service.inference.served_log.coverage import rolling_coverage
from kronos_service.inference.served_log.writer import ServedLog

EARLIER = datetime(2022, 11, 1, 12, 0, tzinfo=UTC)


def log_of(directory: Path) -> pd.DataFrame:
    """Every row of the log."""
    tables = [pq.read_table(path) for path in sorted(directory.glob("*.parquet"))]
    rows: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return rows


def test_answers_about_symbols_of_the_source_are_logged_to_the_bit(
    serve: Callable[..., Any], ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with serve(served_log=tmp_path / "log") as client:
        answer = ask(client, series=[{"symbol": "SPY"}, {"symbol": "SYN01"}], return_paths=True)
        ask(client, scenario={"surprises": []}, seed=77)
        ask(client, temperature=0.5, seed=78)
        ask(client, paths=1, seed=79)
        ask(client, recalibrated=False, seed=80)
        ask(client, model="base", seed=81)
        ask(client, series=[{"symbol": "SPY", "as_of": "2022-12-29"}], seed=82)
    rows = log_of(tmp_path / "log")
    assert set(rows["seed"]) == {3}
    assert len(rows) == 2 * 4 * 5
    for series in answer["series"]:
        mine = rows[rows["symbol"] == series["symbol"]]
        closes = mine[mine["target_name"] == "close"]
        assert np.array_equal(np.stack(closes["samples"].tolist()).T, series["paths"]["close"])
        for name in ("open", "volume"):
            assert mine.loc[mine["target_name"] == name, "mean"].tolist() == series["mean"][name]
    assert set(rows["version"]) == {answer["model"]["version"]}
    (path,) = (tmp_path / "log").glob("*.parquet")
    assert path.name.startswith("2023-01-03-")
    assert read_about(path) == {}


def test_candles_of_the_sender_are_not_logged(
    serve: Callable[..., Any], ask: Callable[..., dict[str, Any]], market: Snapshot, tmp_path: Path
) -> None:
    bars = market.bars[market.bars["symbol"] == "SYN01"].tail(70)
    candles = [
        {
            "ts": f"{row.ts:%Y-%m-%d}",
            "open": row.open,
            "high": row.high,
            "low": row.low,
            "close": row.close,
            "volume": row.volume,
        }
        for row in bars.itertuples()
    ]
    inline = {"symbol": "SYN01", "asset_class": "us_equity", "candles": candles}
    with serve(served_log=tmp_path / "log") as client:
        ask(client, series=[inline, {"symbol": "SPY"}])
    assert set(log_of(tmp_path / "log")["symbol"]) == {"SPY"}


def test_without_a_directory_there_is_no_log_and_no_metric(client: TestClient) -> None:
    assert "kronos_served_coverage" not in client.get("/metrics").text


def test_the_coverage_is_that_of_the_scorecard_and_is_shown_as_a_metric(
    serve: Callable[..., Any],
    ask: Callable[..., dict[str, Any]],
    market: Snapshot,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with serve(now=EARLIER, served_log=log) as client:
        for symbol in ("SPY", "SYN01", "SYN02", "SYN03"):
            for seed in (0, 1):
                ask(client, series=[{"symbol": symbol}], seed=seed, paths=30)
    scores = read_track_record(sorted(log.glob("*.parquet")), market).scores
    assert len(scores) == 4 * 4
    bars = {str(name): rows for name, rows in market.bars.groupby("symbol")}
    now = datetime(2023, 1, 3, tzinfo=UTC)
    found = rolling_coverage(sorted(log.glob("*.parquet")), bars, now)
    assert found.targets == len(scores)
    assert found.shares == {name: scores[f"inside_{name}"].mean() for name in ("50", "80", "90")}
    assert rolling_coverage(sorted(log.glob("*.parquet")), bars, now, days=30).targets == 0
    with serve(served_log=log) as client:
        lines = _metrics(client)
    assert float(lines['kronos_served_coverage{interval="80"}']) == found.shares["80"]
    assert float(lines["kronos_served_coverage_targets"]) == 16


def _metrics(client: TestClient) -> dict[str, str]:
    """The metrics, once the coverage is there."""
    pause = threading.Event()
    for _ in range(200):
        lines = dict(
            line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#"
        )
        if float(lines["kronos_served_coverage_targets"]):
            break
        pause.wait(0.05)
    return lines


def _log(directory: Path, clock: Callable[[], datetime]) -> tuple[ServedLog, CollectorRegistry]:
    registry = CollectorRegistry()

    def nothing() -> Market | None:
        return None

    return ServedLog(directory, keep_days=2, market=nothing, clock=clock, registry=registry), registry


class _Answer:
    """An answer of so many rows."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def rows(self) -> list[pa.Table]:
        return [self._rows]


@pytest.fixture
def answer(serve: Callable[..., Any], ask: Callable[..., dict[str, Any]], tmp_path: Path) -> Any:
    with serve(served_log=tmp_path / "made") as client:
        ask(client)
    (path,) = (tmp_path / "made").glob("*.parquet")
    return _Answer(pq.read_table(path).replace_schema_metadata(None))


def test_files_are_rotated_by_day_and_size_and_old_ones_removed(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROWS", 40)
    log = tmp_path / "log"
    log.mkdir()
    (log / "2022-12-30-host-1-000.parquet").touch()
    (log / "2023-01-01-host-1-000.parquet").touch()
    now = [datetime(2023, 1, 2, 23, 0, tzinfo=UTC)]
    written, _ = _log(log, lambda: now[0])
    written.start()
    for _ in range(5):
        written.add(answer)
    while written._waiting.qsize():
        threading.Event().wait(0.01)
    now[0] = datetime(2023, 1, 3, 1, 0, tzinfo=UTC)
    written.add(answer)
    written.stop()
    names = sorted(path.name for path in log.iterdir())
    assert [(name[:10], name[-11:-8]) for name in names] == [
        ("2023-01-01", "000"),
        ("2023-01-02", "000"),
        ("2023-01-02", "001"),
        ("2023-01-02", "002"),
        ("2023-01-03", "000"),
    ]
    sizes = [pq.read_metadata(log / name).num_rows for name in names[1:]]
    assert sizes == [40, 40, 20, 20]


def test_a_full_disk_and_a_slow_log_hold_nothing_up(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the directory should be cannot be written to; the thread that never starts is slow."""
    monkeypatch.setattr(writer, "ROWS", 20)
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"")
    written, registry = _log(blocked, lambda: EARLIER)
    written.start()
    for _ in range(3):
        written.add(answer)
    written.stop()
    assert registry.get_sample_value("kronos_served_log_lost_total") == 3
    monkeypatch.setattr(writer, "WAITING", 3)
    slow, registry = _log(tmp_path / "slow", lambda: EARLIER)
    for _ in range(5):
        slow.add(answer)
    assert registry.get_sample_value("kronos_served_log_lost_total") == 2


def test_files_older_than_the_days_that_are_set_are_removed(
    serve: Callable[..., Any], ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    for day in ("2022-12-28", "2022-12-30"):  # six and four days before now
        (log / f"{day}-host-1-000.parquet").touch()
    with serve(served_log=log, served_log_days=5) as client:
        ask(client)
    assert sorted(path.name[:10] for path in log.iterdir()) == ["2022-12-30", "2023-01-03"]
