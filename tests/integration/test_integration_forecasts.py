"""Forecasts in a real database: written twice they are the same rows, and by nobody but their own role."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pandas as pd
import pyarrow.parquet as pq
import pytest
from backend import KEYS, PASSWORDS, Backend, insert
from gateway import Gateway, gateway_server
from pydantic import SecretStr
from rich.console import Console

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.sinks import NOT_STORED, Upsert, supabase
from kronos_service.data.sinks.postgres import postgres_upsert
from kronos_service.data.sinks.supabase import supabase_upsert
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources.database_url import PostgresError
from kronos_service.data.sources.postgres import PostgresSettings
from kronos_service.data.sources.postgrest import SupabaseError
from kronos_service.data.sources.supabase import SupabaseSettings
from kronos_service.inference.nightly.command import Summary, forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig

pytestmark = pytest.mark.integration

NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
STRANGERS = ("anon", "authenticated", "kronos_training", "kronos_writer")
ORDER = ["symbol", "step", "target_name", "version"]


def batch(out: Path, **changes: Any) -> Summary:
    usual: dict[str, Any] = {"out": out, "paths": 8, "horizon": 2, "base_model": "nano"}
    config = ForecastAllConfig(**(usual | changes))
    return forecast_all(config, now=NOW, console=Console(quiet=True))


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A directory without adapters: that of the checkout may have some, of a demo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged base on the sample market."""
    return batch(tmp_path_factory.mktemp("forecasts") / "night.parquet").out


@pytest.fixture
def upsert(request: pytest.FixtureRequest, small: Backend) -> Iterator[Upsert]:
    """Of each route, as the role of the nightly job."""
    yield as_role(request.param, small)
    small.sql("delete from forecasts")


def as_role(
    route: str, backend: Backend, role: str = "kronos_forecaster", user: str = "forecaster"
) -> Upsert:
    if route == "postgres":
        return postgres_upsert(PostgresSettings(database_url=SecretStr(backend.url(user))))
    settings = SupabaseSettings(url="https://abc.supabase.co", key=SecretStr(KEYS[role]), attempts=1)
    return supabase_upsert(settings, transport=Gateway(backend))


def stored(backend: Backend) -> pd.DataFrame:
    with adbc.connect(backend.url()) as connection, connection.cursor() as cursor:
        cursor.execute("select * from forecasts")
        rows: pd.DataFrame = cursor.fetch_arrow_table().to_pandas()
    return rows.sort_values(ORDER, ignore_index=True)


@pytest.mark.parametrize("upsert", ["postgres", "supabase"], indirect=True)
def test_written_twice_the_rows_are_those_of_the_file(
    upsert: Upsert, small: Backend, forecasts: Path
) -> None:
    expected = pq.read_table(forecasts).to_pandas().sort_values(ORDER, ignore_index=True)
    for _ in range(2):
        assert upsert(forecasts) == len(expected) == 24 * 2 * 5
        found = stored(small)
        assert set(found.columns) == set(expected.columns) - NOT_STORED
        pd.testing.assert_frame_equal(
            found[sorted(found.columns)], expected[sorted(found.columns)], check_exact=True, check_dtype=False
        )


@pytest.mark.parametrize("upsert", ["postgres", "supabase"], indirect=True)
def test_a_later_forecast_of_the_same_night_takes_the_place_of_the_earlier(
    upsert: Upsert, small: Backend, forecasts: Path, tmp_path: Path
) -> None:
    upsert(forecasts)
    other = batch(tmp_path / "other.parquet", seed=1, horizon=3).out
    upsert(other)
    found = stored(small)
    assert set(found["seed"]) == {1}
    assert len(found) == 24 * 3 * 5


def test_every_row_is_stored_whatever_the_network_does(
    small: Backend, forecasts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timeouts, refusals, broken answers and pages of HTML with status 200, at random."""
    monkeypatch.setattr(supabase, "ROWS", 20)
    with gateway_server(small, faults=0.4, seed=5) as url:
        key = SecretStr(KEYS["kronos_forecaster"])
        settings = SupabaseSettings(url=url, key=key, attempts=12, backoff_s=0.01, timeout_s=1)
        assert supabase.supabase_upsert(settings)(forecasts) == 240
    assert len(stored(small)) == 240
    small.sql("delete from forecasts")


@pytest.mark.parametrize("role", STRANGERS)
def test_nobody_else_writes_or_reads_forecasts_over_http(small: Backend, forecasts: Path, role: str) -> None:
    with pytest.raises(SupabaseError, match=r"refused SUPABASE_KEY .*42501.*: use a key that may write it"):
        as_role("supabase", small, role)(forecasts)
    assert stored(small).empty


@pytest.mark.parametrize("role", STRANGERS)
def test_nobody_else_has_a_right_on_the_table(small: Backend, role: str) -> None:
    """Beside row-level security, which alone would hold too."""
    rights = "select, insert, update, delete, truncate, references, trigger"
    assert small.sql(f"select has_table_privilege('{role}', 'forecasts', '{rights}')") == "f"


@pytest.mark.parametrize("user", ["trainer", "writer"])
def test_nobody_else_writes_or_reads_forecasts_over_a_direct_connection(
    small: Backend, forecasts: Path, user: str
) -> None:
    with pytest.raises(
        PostgresError, match=r"this user may not write it .*in role kronos_forecaster"
    ) as caught:
        as_role("postgres", small, user=user)(forecasts)
    assert PASSWORDS[user] not in str(caught.value)
    for statement in ("select * from forecasts", "delete from forecasts", "update forecasts set seed = 1"):
        with pytest.raises(subprocess.CalledProcessError) as denied:
            small.sql(statement, user=user)
        assert "permission denied" in denied.value.stderr
    assert stored(small).empty


def test_the_forecaster_deletes_nothing_and_writes_no_candles(small: Backend) -> None:
    for statement in ("delete from forecasts", "update symbols set tradable = false", "truncate forecasts"):
        with pytest.raises(subprocess.CalledProcessError) as denied:
            small.sql(statement, user="forecaster")
        assert "permission denied" in denied.value.stderr


def test_row_level_security_holds_where_somebody_granted_too_much(small: Backend, forecasts: Path) -> None:
    """A grant alone opens nothing: without a policy of its own a role sees and writes no row."""
    as_role("postgres", small)(forecasts)
    small.sql("grant all on forecasts to kronos_training")
    try:
        assert small.sql("select count(*) from forecasts", user="trainer") == "0"
        with pytest.raises(SupabaseError, match="row-level security"):
            as_role("supabase", small, "kronos_training")(forecasts)
    finally:
        small.sql("revoke all on forecasts from kronos_training; delete from forecasts")


@pytest.fixture
def sample_database(small: Backend) -> Iterator[Backend]:
    """The sample market in a database of its own."""
    snapshot = load_snapshot(sample_snapshot_path(), now=NOW)
    small.sql(
        "create table kept_symbols as table symbols; create table kept_bars as table ohlcv_1d;"
        "create table kept_calendar as table economic_calendar;"
        "truncate symbols, ohlcv_1d, ohlcv, economic_calendar"
    )
    insert(small, "symbols", snapshot.symbols)
    insert(small, "ohlcv_1d", snapshot.bars)
    insert(small, "economic_calendar", snapshot.calendar)
    yield small
    small.sql(
        "truncate symbols, ohlcv_1d, ohlcv, economic_calendar; insert into symbols table kept_symbols;"
        "insert into ohlcv_1d table kept_bars; insert into economic_calendar table kept_calendar;"
        "drop table kept_symbols, kept_bars, kept_calendar; delete from forecasts"
    )


@pytest.mark.parametrize("route", ["postgres", "supabase"])
def test_a_night_from_a_database_into_its_table_is_the_snapshots_own(
    route: str, sample_database: Backend, forecasts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", sample_database.url("forecaster"))
    monkeypatch.setenv("SUPABASE_KEY", KEYS["kronos_forecaster"])
    with gateway_server(sample_database) as url:
        monkeypatch.setenv("SUPABASE_URL", url)
        summary = batch(tmp_path / "night.parquet", source=route, to=route)
    assert summary.exit_code == 0, summary
    mine, expected = (pq.read_table(path).to_pandas() for path in (summary.out, forecasts))
    pd.testing.assert_frame_equal(mine, expected, check_exact=True)
    assert len(stored(sample_database)) == len(expected)


def test_a_database_that_is_away_leaves_the_file_and_exit_code_3_without_the_secret(
    small: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-secret-password-of-the-tests"
    monkeypatch.setenv("DATABASE_URL", small.url("forecaster", secret))
    summary = batch(tmp_path / "night.parquet", to="postgres")
    assert (summary.exit_code, summary.out.exists()) == (3, True)
    assert summary.unsent is not None
    assert "check its user and password" in summary.unsent
    assert secret not in summary.unsent
    monkeypatch.setenv("DATABASE_URL", small.url("forecaster"))
    assert batch(tmp_path / "night.parquet", to="postgres").exit_code == 0
    small.sql("delete from forecasts")
