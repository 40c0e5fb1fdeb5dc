"""Over a direct connection: what was inserted arrives, exactly; what cannot be read is said in one line."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from backend import PASSWORDS, Backend
from market_rows import MarketRows
from pydantic import SecretStr

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources.postgres import (
    PostgresError,
    PostgresSettings,
    PostgresSource,
    postgres_source,
)
from kronos_service.data.tables import TableError, bar_table, calendar_table, symbol_table
from kronos_service.events.sessions import Interval
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.export_training_data import export

pytestmark = pytest.mark.integration

NOW = datetime(2025, 7, 15, tzinfo=UTC)


@contextmanager
def opened(url: str) -> Iterator[PostgresSource]:
    with postgres_source(PostgresSettings(database_url=SecretStr(url))) as source:
        yield source


def test_the_rows_that_were_inserted_arrive_exactly(backend: Backend, rows: MarketRows) -> None:
    assert len(rows.bars) > 150_000
    assert len(rows.calendar) == 10_000
    with opened(backend.url("trainer")) as source:
        pd.testing.assert_frame_equal(symbol_table(source.symbols()), rows.symbols, check_exact=True)
        bars = bar_table(pd.concat(source.bars(), ignore_index=True))
        pd.testing.assert_frame_equal(bars, rows.bars, check_exact=True)
        pd.testing.assert_frame_equal(calendar_table(source.calendar()), rows.calendar, check_exact=True)
        assert source.name == "postgres:127.0.0.1/market"


def test_an_export_is_the_truth(backend: Backend, rows: MarketRows, tmp_path: Path) -> None:
    with opened(backend.url("trainer")) as source:
        summary = export(source, tmp_path / "s", now=NOW)
    snapshot = load_snapshot(tmp_path / "s", now=NOW)
    assert snapshot.sha256 == summary.sha256
    pd.testing.assert_frame_equal(snapshot.bars, rows.bars, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.symbols, rows.symbols, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.calendar, rows.calendar, check_exact=True)


def test_since_after_and_counts_are_those_of_the_table(backend: Backend, rows: MarketRows) -> None:
    first, before = date(2025, 1, 6), date(2025, 6, 2)
    late = rows.bars[rows.bars["ts"] >= pd.Timestamp(first, tz="UTC")]
    with opened(backend.url("trainer")) as source:
        assert sum(map(len, source.bars(first))) == len(late)
        assert source.count_bars(first, before) == int((late["ts"] < pd.Timestamp(before, tz="UTC")).sum())
        assert source.count_bars(None, date(2100, 1, 1)) == len(rows.bars)
        order = list(dict.fromkeys(name for chunk in source.bars(first) for name in chunk["symbol"]))
        assert order != sorted(order)  # the server's order is English
        for last in ('quo"te', "back\\slash", "BRK.B"):
            rest = list(dict.fromkeys(n for chunk in source.bars(first, last) for n in chunk["symbol"]))
            assert rest == order[order.index(last) + 1 :]


def test_numeric_and_time_columns_of_other_types_are_read_too(backend: Backend, rows: MarketRows) -> None:
    """Tables made before schema.sql may hold numeric prices, dates, and stamps without a zone."""
    backend.sql(
        "create schema other; create table other.bars as "
        "select symbol, ts::date as ts, open::numeric, high, low, close, volume::bigint from public.ohlcv_1d "
        "where symbol = 'SPY'; alter table public.ohlcv_1d rename to kept; "
        "alter table other.bars set schema public; alter table public.bars rename to ohlcv_1d;"
        "grant select on public.ohlcv_1d to kronos_training"
    )
    try:
        with opened(backend.url("trainer")) as source:
            bars = bar_table(pd.concat(source.bars(date(2025, 1, 1)), ignore_index=True))
    finally:
        backend.sql(
            "drop table public.ohlcv_1d; alter table public.kept rename to ohlcv_1d; drop schema other"
        )
    truth = rows.bars[(rows.bars["symbol"] == "SPY") & (rows.bars["ts"] >= "2025-01-01")]
    assert bars["ts"].tolist() == truth["ts"].tolist()
    assert bars["open"].to_numpy() == pytest.approx(truth["open"].to_numpy(), rel=1e-14)
    assert bars["amount"].isna().all()


def test_a_connection_that_is_cut_leaves_the_old_snapshot_and_says_so(
    backend: Backend, tmp_path: Path
) -> None:
    with opened(backend.url("trainer")) as source:
        before = export(source, tmp_path / "s", now=NOW).sha256
    with opened(backend.url("trainer")) as source:
        source.symbols()
        backend.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'trainer'")
        with pytest.raises(PostgresError, match=r"the connection was lost .* run the export again"):
            export(source, tmp_path / "s", now=NOW)
    assert load_snapshot(tmp_path / "s", now=NOW).sha256 == before


BROKEN: dict[str, tuple[str, str, str]] = {
    "missing table": (
        "alter table economic_calendar rename to gone",
        "alter table gone rename to economic_calendar",
        r"no table economic_calendar .* create it with shared/schema\.sql",
    ),
    "missing column": (
        "alter table ohlcv_1d rename volume to vol",
        "alter table ohlcv_1d rename vol to volume",
        "table ohlcv_1d: missing column volume",
    ),
    "revoked right": (
        "revoke select on ohlcv_1d from kronos_training",
        "grant select on ohlcv_1d to kronos_training",
        "permission denied for table ohlcv_1d.* role kronos_training",
    ),
    "hidden rows": (
        "alter policy kronos_training_reads on symbols using (false)",
        "alter policy kronos_training_reads on symbols using (true)",
        "symbols .* shows no rows: it is empty, or row-level security hides it",
    ),
    "cut off": (
        "alter role trainer set statement_timeout = '1ms'",
        "alter role trainer reset statement_timeout",
        "statement timeout.* raise statement_timeout for",
    ),
    "expired password": (
        "alter role trainer valid until '2020-01-01'",
        "alter role trainer valid until 'infinity'",
        "check its user and password, which may have expired",
    ),
}


@pytest.mark.parametrize(("damage", "repair", "message"), BROKEN.values(), ids=BROKEN)
def test_a_database_out_of_order_is_explained_in_one_line(
    backend: Backend, tmp_path: Path, damage: str, repair: str, message: str
) -> None:
    backend.sql(damage)
    try:
        with (
            pytest.raises((PostgresError, TableError), match=message) as refused,
            opened(backend.url("trainer")) as source,
        ):
            export(source, tmp_path / "s", now=NOW)
    finally:
        backend.sql(repair)
    assert "\n" not in str(refused.value)
    assert PASSWORDS["trainer"] not in str(refused.value)


ADDRESSES: dict[str, tuple[str, str]] = {
    "wrong password": ("postgresql://trainer:{wrong}@{here}/market", "check its user and password"),
    "wrong database": ("postgresql://trainer:{right}@{here}/nowhere", "check the name of the database"),
    "wrong port": ("postgresql://trainer:{right}@127.0.0.1:1/market", "check its host and port"),
    "wrong host": ("postgresql://trainer:{right}@nowhere.invalid/market", "check its host name"),
    "no encryption": ("postgresql://trainer:{right}@{here}/market?sslmode=require", "check its sslmode"),
}


@pytest.mark.parametrize(("url", "message"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_that_opens_nothing_is_explained_in_one_line_by_the_command(
    backend: Backend,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    message: str,
) -> None:
    here = f"127.0.0.1:{backend.postgres_port}"
    secret = {"right": PASSWORDS["trainer"], "wrong": "pw-not-the-one"}
    monkeypatch.setenv("DATABASE_URL", url.format(here=here, **secret))
    assert main(["export", "--source", "postgres", "--out", str(tmp_path / "s")]) == 2
    shown = capfd.readouterr()
    assert shown.err.startswith("error: DATABASE_URL ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not any(word in shown.out + shown.err for word in secret.values())
    assert not (tmp_path / "s").exists()


INTERVALS: dict[Interval, int] = {"1h": 1, "4h": 4}
"""Length of a bar, and its hours."""


def test_bars_of_an_hour_have_a_table_of_their_own(backend: Backend, tmp_path: Path) -> None:
    """Read by length, in order; a time at which no such bar opens, or another length, is refused."""
    hours = pd.date_range("2025-01-01", periods=30, freq="h")
    lines = [
        f"('BTCUSDT', '{length}', '{at}Z', 1, 2, 0.5, 1.5, 3)"
        for length, step in INTERVALS.items()
        for at in hours[::step]
    ]
    columns = '(symbol, "interval", ts, open, high, low, close, volume)'
    backend.sql(f"insert into public.ohlcv {columns} values {', '.join(lines)}")
    try:
        with opened(backend.url("trainer")) as source:
            for interval, step in INTERVALS.items():
                bars = bar_table(pd.concat(source.bars(interval=interval), ignore_index=True), interval)
                assert bars["ts"].dt.tz_localize(None).tolist() == hours[::step].tolist()
            summary = export(source, tmp_path / "s", interval="1h", now=NOW)
        assert summary.bars == 30
        assert load_snapshot(tmp_path / "s", now=NOW).interval == "1h"
        for wrong in ("'1h', '2025-02-01T00:30Z'", "'4h', '2025-02-01T02:00Z'", "'1d', '2025-02-01T00:00Z'"):
            with pytest.raises(subprocess.CalledProcessError) as refused:
                backend.sql(
                    f"insert into public.ohlcv {columns} values ('BTCUSDT', {wrong}, 1, 2, 0.5, 1.5, 3)"
                )
            assert "check constraint" in refused.value.stderr
    finally:
        backend.sql("delete from public.ohlcv")
