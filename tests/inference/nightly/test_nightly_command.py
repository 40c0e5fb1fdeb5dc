"""forecast-all: one file or none, symbols that fail are named, and an interrupted batch is resumed."""

import json
import resource
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from rich.console import Console

from kronos_service.data.forecasts import SCHEMA, read_about
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.inference.__main__ import main
from kronos_service.inference.nightly.chunk import Chunk, ChunkForecaster
from kronos_service.inference.nightly.command import NothingForecastError, forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.nightly.partial import BusyError, UnwritableError
from kronos_service.model.base_files import BaseModelError
from kronos_shared.adapter_store import publish
from kronos_shared.cli import ConfigError
from kronos_shared.errors import KronosError

Rows = Callable[..., pd.DataFrame]
Run = Callable[..., Any]
ConfigOf = Callable[..., Any]


LONG = 13 * "LONG_"
"""No symbol of a request has so many letters."""


@pytest.fixture
def gappy(market: Snapshot, tmp_path: Path) -> Path:
    """The small market with a symbol of few bars, one of none, and one that ends early."""
    names = {"NEW": market.bars["ts"] > "2022-11-01", "OLD": market.bars["ts"] < "2022-11-01"}
    like = market.bars["symbol"] == "SYN01"
    more = [market.bars[like & chosen].assign(symbol=name) for name, chosen in names.items()]
    names_listed = ["NEW", "OLD", "NONE", LONG]
    listed = pd.DataFrame({"symbol": names_listed, "asset_class": "us_equity", "tradable": True})
    path = tmp_path / "gappy"
    write_snapshot(
        path,
        symbols=pd.concat([market.symbols, listed]),
        bars=pd.concat([market.bars, *more]),
        calendar=market.calendar,
        window=(date(2021, 1, 4), date(2022, 12, 30)),
        source="tests",
    )
    return path


def test_a_symbol_that_cannot_be_forecast_is_named_and_stops_no_other(
    run: Run, rows: Rows, gappy: Path, tmp_path: Path
) -> None:
    summary, shown = run(snapshot=gappy, max_stale_sessions=5)
    assert summary.exit_code == 1
    assert list(summary.failed) == [LONG, "NEW", "NONE", "OLD"]
    assert summary.failed[LONG] == "not a name of a symbol: String should have at most 64 characters"
    assert summary.failed["NEW"].startswith("expected at least 64 bars, but snapshot:gappy has 41 of 'NEW'")
    assert summary.failed["NONE"] == "expected at least 64 bars, but snapshot:gappy has 0 of 'NONE'"
    assert summary.failed["OLD"].startswith("OLD ends at 2022-10-31, 42 sessions ago")
    assert f"left out NONE: {summary.failed['NONE']}" in shown
    assert "4 of 8 symbols" in shown
    assert read_about(summary.out)["failed"] == summary.failed
    written = pq.read_table(summary.out).to_pandas()
    assert written["symbol"].unique().tolist() == ["SPY", "SYN01", "SYN02", "SYN03"]
    # those that are there are as they would be without the others
    same = rows(out=tmp_path / "all.parquet")
    mine = same[same["symbol"].isin(written["symbol"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(written, mine)


def test_a_database_a_device_and_a_cluster_are_those_that_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for names in ({"source": "postgres", "snapshot": None}, {"to": "postgres"}):
        with pytest.raises(KronosError, match="set DATABASE_URL"):
            run(**names)
    with pytest.raises(BaseModelError, match=r"cannot compute on device cuda:99 .*: name cpu, or see"):
        run(device="cuda:99")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="ray is not installed"):
        run(engine="ray")


def test_a_batch_without_any_forecast_writes_nothing(run: Run, config_of: ConfigOf) -> None:
    with pytest.raises(NothingForecastError, match=r"none of the 7 tradable .* BTCUSDT: BTCUSDT ends at"):
        run(now=datetime(2024, 1, 3, tzinfo=UTC), max_stale_sessions=5)
    assert not config_of().out.exists()


def test_every_row_says_what_made_it(rows: Rows, store: Path) -> None:
    written = rows(with_base=True)
    latest = json.loads((store / "LATEST.json").read_text())
    with_adapter = written["version"].notna()
    assert set(written.loc[with_adapter, "version"]) == {latest["version"]}
    assert set(written.loc[with_adapter, "digest"]) == {latest["manifest_sha256"]}
    assert written.loc[~with_adapter, "digest"].isna().all()
    assert with_adapter.sum() * 2 == len(written) == 7 * 3 * 5 * 2
    assert set(written["seed"]) == {3}
    assert (written["as_of"].dt.date >= written["last_bar"]).all()


def _interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> list[list[str]]:
    """Let a batch be interrupted after so many chunks, and record the symbols that were forecast."""
    made: list[list[str]] = []
    forecast = ChunkForecaster.__call__

    def counted(self: ChunkForecaster, symbols: list[str]) -> Chunk:
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(symbols)
        return forecast(self, symbols)

    monkeypatch.setattr(ChunkForecaster, "__call__", counted)
    return made


def test_a_resumed_batch_forecasts_only_what_is_missing(
    run: Run, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the evening on which it began: a bar that has finished meanwhile is in no part of it."""
    began, later = datetime(2022, 12, 29, 12, tzinfo=UTC), datetime(2023, 1, 3, 13, tzinfo=UTC)
    whole = run(now=began, out=tmp_path / "whole.parquet")[0].out.read_bytes()
    with monkeypatch.context() as patch:
        first = _interrupted(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(now=began)
    assert not config_of().out.exists()
    with monkeypatch.context() as patch:
        second = _interrupted(patch, 9)
        assert run(now=later)[0].out.read_bytes() == whole
    assert [len(first), len(second)] == [3, 1]
    assert [path.name for path in config_of().out.parent.iterdir()] == ["night.parquet"]


@pytest.mark.parametrize("change", [{"seed": 4}, {"horizon": 2}, {"paths": 6}, {"with_base": True}, {}])
def test_chunks_of_another_batch_are_not_resumed(
    run: Run,
    change: dict[str, Any],
    adapter_of: Callable[[int], Path],
    market_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of other settings or, with none changed, of another adapter; two chunks are enough for that."""
    adapters = tmp_path / "adapters"
    usual = {"adapter": adapters, "snapshot": market_path}
    publish(adapter_of(1), adapters, keep=2)
    with monkeypatch.context() as patch:
        made = _interrupted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(**usual)
    assert len(made) == 1
    if not change:
        publish(adapter_of(2), adapters, keep=2)
    resumed = run(**usual, **change)[0].out.read_bytes()
    assert resumed == run(**usual, out=tmp_path / "anew.parquet", **change)[0].out.read_bytes()


def test_a_finished_file_is_made_again_only_for_other_data_or_settings(
    run: Run, gappy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    made = _interrupted(monkeypatch, 9)
    assert "is there already" in run()[1]
    assert made == []
    run(seed=5)
    assert len(made) == 4
    summary, _ = run(seed=5, snapshot=gappy)
    assert summary.failed.keys() >= {"NEW"}


def test_another_process_at_the_same_file_is_an_error(run: Run, config_of: ConfigOf) -> None:
    directory = config_of().out.parent / ".night.parquet.partial"
    directory.mkdir(parents=True)
    with FileLock(directory / ".lock"), pytest.raises(BusyError, match="another forecast-all is writing"):
        run()


def test_a_full_disk_is_named_and_what_is_done_stays(run: Run, config_of: ConfigOf, tmp_path: Path) -> None:
    """A limit on the size of a file stops the writing as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(
            UnwritableError, match=r"night.parquet \(.+\): make room; the same command resumes"
        ):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not config_of().out.exists()
    whole = run(out=tmp_path / "whole.parquet")[0].out.read_bytes()
    assert run()[0].out.read_bytes() == whole


def test_a_market_without_leaders_is_forecast_as_the_service_does(
    market: Snapshot, serve: Callable[..., Any], ask: Callable[..., Any], rows: Rows, tmp_path: Path
) -> None:
    """Every leader is missing, and said to be."""
    names = ["SYN01", "SYN02"]
    write_snapshot(
        tmp_path / "few",
        symbols=market.symbols[market.symbols["symbol"].isin(names)],
        bars=market.bars[market.bars["symbol"].isin(names)],
        calendar=market.calendar,
        window=(date(2021, 1, 4), date(2022, 12, 30)),
        source="tests",
    )
    written = rows(snapshot=tmp_path / "few")
    with serve(snapshot=tmp_path / "few") as client:
        (series,) = ask(client, series=[{"symbol": "SYN02"}], horizon=3)["series"]
    mine = written[(written["symbol"] == "SYN02") & (written["target_name"] == "close")]
    assert mine["mean"].tolist() == series["mean"]["close"]
    assert set(mine["missing_leaders"]) == {",".join(one["leader"] for one in series["missing_leaders"])}
    assert len(series["missing_leaders"]) == len(DEFAULT_TAXONOMY.leaders)


def test_a_directory_of_tables_is_forecast_as_its_snapshot(
    rows: Rows, market: Snapshot, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    market.symbols.assign(tradable=True).to_csv(plain / "symbols.csv", index=False)
    market.bars.sample(frac=1, random_state=0).to_parquet(plain / "ohlcv_1d.parquet")
    market.calendar.to_parquet(plain / "economic_calendar.parquet")
    pd.testing.assert_frame_equal(rows(snapshot=plain), rows(out=tmp_path / "other.parquet"))


def test_the_command_writes_a_file_and_gives_cron_its_exit_code(
    config_of: ConfigOf, gappy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(out=Path("night.parquet"))
    flags = ["adapter", "base_model", "horizon", "paths", "seed"]
    argv = [word for name in flags for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]
    command = ["forecast-all", *argv, "--out", "night.parquet"]
    assert main([*command, "--snapshot", str(gappy)]) == 1
    assert pq.read_schema("night.parquet").equals(SCHEMA)
    assert main([*command, "--snapshot", str(config.snapshot), "--as-of", "2022-09-01"]) == 0
    assert main([*command, "--snapshot", str(tmp_path / "nowhere")]) == 2
    assert main(["forecast-all", *argv, "--out", "night.csv"]) == 2


def test_a_horizon_beyond_the_model_is_named(run: Run) -> None:
    with pytest.raises(ConfigError, match="--horizon must be at most 8, got 9: this model reads 72 bars"):
        run(horizon=9)


def test_the_embedded_sample_is_forecast_by_the_adapter_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the forecast command does where nothing has been trained; a base of one's own stays alone.

    Both have learned from the sample market alone, which is said.
    """
    monkeypatch.chdir(tmp_path)
    usual: dict[str, Any] = {"out": tmp_path / "a.parquet", "horizon": 1, "paths": 2}
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"base_model": "nano", "out": tmp_path / "b.parquet"}, False),
    ]
    for changes, has_version in cases:
        said = StringIO()
        out = forecast_all(ForecastAllConfig(**(usual | changes)), console=Console(file=said)).out
        assert "SYNTHETIC: the model has learned from a sample market, of no real one\n" in said.getvalue()
        versions = set(pq.read_table(out)["version"].to_pylist())
        assert len(versions) == 1
        assert (versions != {None}) == has_version
