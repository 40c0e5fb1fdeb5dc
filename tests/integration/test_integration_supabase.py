"""Through the real client and a real PostgREST: what was inserted arrives, and who may what is kept."""

import logging
import re
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from backend import JWT_SECRET, KEYS, PASSWORDS, SCHEMA, Backend
from gateway import Gateway, gateway_server
from market_rows import MarketRows
from pydantic import SecretStr

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources.postgrest import SupabaseError
from kronos_service.data.sources.supabase import SupabaseSettings, SupabaseSource, supabase_source
from kronos_service.data.tables import TableError, bar_table
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.export_training_data import export

pytestmark = pytest.mark.integration

NOW = datetime(2025, 7, 15, tzinfo=UTC)
SECRETS = [*KEYS.values(), *PASSWORDS.values(), JWT_SECRET]


def opened(backend: Backend, role: str = "kronos_training", key: str | None = None) -> SupabaseSource:
    settings = SupabaseSettings(
        url="https://abc.supabase.co", key=SecretStr(key or KEYS[role]), attempts=2, backoff_s=0
    )
    return supabase_source(settings, transport=Gateway(backend))


def test_an_export_of_150_000_bars_is_the_truth(backend: Backend, rows: MarketRows, tmp_path: Path) -> None:
    export(opened(backend), tmp_path / "s", now=NOW)
    snapshot = load_snapshot(tmp_path / "s", now=NOW)
    pd.testing.assert_frame_equal(snapshot.bars, rows.bars, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.symbols, rows.symbols, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.calendar, rows.calendar, check_exact=True)


def test_since_after_and_counts_are_those_of_the_table(backend: Backend, rows: MarketRows) -> None:
    first, before = date(2025, 6, 2), date(2025, 6, 20)
    late = rows.bars[rows.bars["ts"] >= pd.Timestamp(first, tz="UTC")]
    source = opened(backend)
    read = bar_table(pd.concat(source.bars(first), ignore_index=True))
    pd.testing.assert_frame_equal(read, late.reset_index(drop=True), check_exact=True)
    assert source.count_bars(first, before) == int((late["ts"] < pd.Timestamp(before, tz="UTC")).sum())
    order = source.symbols()["symbol"].tolist()
    assert order != sorted(order)  # the server's order is English
    for last in ('quo"te', "com,ma", "par(en)", "back\\slash", "%25"):
        rest = list(dict.fromkeys(name for chunk in source.bars(first, last) for name in chunk["symbol"]))
        assert rest == order[order.index(last) + 1 :]


def test_the_whole_schema_may_be_applied_again(small: Backend) -> None:
    before = small.sql("select count(*) from ohlcv_1d")
    small.sql(SCHEMA + SCHEMA)
    assert small.sql("select count(*) from ohlcv_1d") == before


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize("table", ["symbols", "bars", "calendar"])
def test_strangers_get_nothing(small: Backend, role: str, table: str) -> None:
    with pytest.raises(SupabaseError, match=r"refused SUPABASE_KEY .42501 permission denied"):
        list(getattr(opened(small, role), table)())


WRITES = {
    "insert": "insert into symbols values ('NEW', 'crypto', true)",
    "update": "update ohlcv_1d set volume = volume where symbol = 'C00'",
    "delete": "delete from economic_calendar",
    "truncate": "truncate ohlcv_1d",
    "drop": "drop table economic_calendar",
}


@pytest.mark.parametrize("write", WRITES)
def test_the_training_role_reads_and_cannot_write(small: Backend, write: str) -> None:
    assert int(small.sql("select count(*) from ohlcv_1d", user="trainer")) > 2000
    with pytest.raises(subprocess.CalledProcessError) as refused:
        small.sql(WRITES[write], user="trainer")
    assert "permission denied" in refused.value.stderr or "must be owner" in refused.value.stderr


def test_the_writer_inserts_and_updates_and_deletes_nothing(small: Backend) -> None:
    for write in ("insert", "update"):
        small.sql(f"begin; {WRITES[write]}; rollback", user="writer")
    for write in ("delete", "truncate", "drop"):
        with pytest.raises(subprocess.CalledProcessError):
            small.sql(WRITES[write], user="writer")


CONSTRAINTS = {
    "an unfinished stamp": "insert into ohlcv_1d values ('C00', '2024-01-01 12:00Z', 1, 2, 1, 1, 0)",
    "high below close": "insert into ohlcv_1d values ('C00', '2024-01-01', 1, 2, 1, 3, 0)",
    "nan": "insert into ohlcv_1d values ('C00', '2024-01-01', 1, 'nan', 1, 1, 0)",
    "an unknown symbol": "insert into ohlcv_1d values ('NOPE', '2024-01-01', 1, 2, 1, 1, 0)",
    "an unknown class": "insert into symbols values ('NEW', 'bond', true)",
    "a doubled key": "insert into ohlcv_1d select * from ohlcv_1d limit 1",
    "a doubled version": "insert into economic_calendar select * from economic_calendar limit 1",
}


@pytest.mark.parametrize("statement", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_the_database_refuses_what_cannot_be(small: Backend, statement: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        small.sql(statement)
    assert "violates" in refused.value.stderr


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
    "missing key": (
        "alter table ohlcv_1d rename ts to t",
        "alter table ohlcv_1d rename t to ts",
        r"table ohlcv_1d: .* lacks a column .*compare it with shared/schema\.sql",
    ),
    "revoked right": (
        "revoke select on ohlcv_1d from kronos_training",
        "grant select on ohlcv_1d to kronos_training",
        "table ohlcv_1d: .* refused SUPABASE_KEY .42501 permission denied.* use a key that may read it",
    ),
    "hidden rows": (
        "alter policy kronos_training_reads on economic_calendar using (false)",
        "alter policy kronos_training_reads on economic_calendar using (true)",
        "economic_calendar .* shows no rows: it is empty, or row-level security hides it",
    ),
}


@pytest.mark.parametrize(("damage", "repair", "message"), BROKEN.values(), ids=BROKEN)
def test_a_database_out_of_order_is_explained_in_one_line(
    small: Backend, tmp_path: Path, damage: str, repair: str, message: str
) -> None:
    small.sql(damage)
    try:
        with pytest.raises((SupabaseError, TableError), match=message) as refused:
            export(opened(small), tmp_path / "s", now=NOW)
    finally:
        small.sql(repair)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("source", ["supabase", "postgres"])
def test_no_secret_is_in_any_output_or_log(
    small: Backend,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """A good export, then one refused, with every library saying all it can."""
    caplog.set_level(logging.DEBUG)
    wrong = KEYS["anon"] if source == "supabase" else small.url("trainer", PASSWORDS["writer"])
    right = KEYS["kronos_training"] if source == "supabase" else small.url("trainer")
    variable = "SUPABASE_KEY" if source == "supabase" else "DATABASE_URL"
    with gateway_server(small) as url:
        monkeypatch.setenv("SUPABASE_URL", url)
        codes = []
        for secret in (right, wrong):
            monkeypatch.setenv(variable, secret)
            codes.append(main(["export", "--source", source, "--out", str(tmp_path / "s")]))
    assert codes == [0, 2]
    shown = capfd.readouterr()
    written = [path.read_bytes().decode("latin-1") for path in (tmp_path / "s").iterdir()]
    everything = shown.out + shown.err + caplog.text + small.log() + "".join(written)
    assert "bars of 16 symbols" in shown.out
    assert shown.err.splitlines()[-1].startswith("error: ")
    assert [secret for secret in SECRETS if secret in everything] == []


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("{here}", "no-key", "refused SUPABASE_KEY .Invalid API key"),
        ("{here}/dashboard", KEYS["kronos_training"], r"has no REST API .404.: is SUPABASE_URL right"),
        ("http://127.0.0.1:1", KEYS["kronos_training"], "cannot reach .* check SUPABASE_URL"),
    ],
)
def test_an_address_or_a_key_that_is_wrong_is_explained_in_one_line_by_the_command(
    small: Backend,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    key: str,
    message: str,
) -> None:
    with gateway_server(small) as here:
        monkeypatch.setenv("SUPABASE_URL", url.format(here=here))
        monkeypatch.setenv("SUPABASE_KEY", key)
        monkeypatch.setenv("SUPABASE_BACKOFF_S", "0")
        assert main(["export", "--out", str(tmp_path / "s")]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert key not in error
