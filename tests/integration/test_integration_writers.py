"""Somebody inserts and updates all the while: no row that was there is missing, none comes twice."""

import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import pandas as pd
import pytest
from backend import KEYS, Backend
from gateway import gateway_server
from pydantic import SecretStr

from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.data.sources import Source
from kronos_service.data.sources.postgres import PostgresSettings, postgres_source
from kronos_service.data.sources.supabase import SupabaseSettings, supabase_source
from kronos_service.finetune.export_training_data import export

pytestmark = pytest.mark.integration

NOW = datetime(2025, 7, 15, tzinfo=UTC)
RUNS = 20
BAR = "10, 11, 9, 10, 5, null"


@contextmanager
def writing(backend: Backend) -> Iterator[list[int]]:
    """Transactions one after the other, their number in the list; all that they add is removed in the end.

    Each adds a bar to two coins far apart, and rewrites bars that are there, which then lie elsewhere on
    disk; every tenth adds a coin that sorts before, between or after the others, and a calendar row.
    """
    done, over, chance = [0], threading.Event(), random.Random(0)
    connection = adbc.connect(backend.url("writer"))

    def write() -> None:
        with connection, connection.cursor() as cursor:
            for number in count():
                if over.is_set():
                    return
                day = datetime(2017, 1, 1) + timedelta(days=number % 2900)
                name = f"{chance.choice('ACZ')}{chance.randrange(100):02}N{number // 10}"
                coin = f"C{chance.randrange(12):02}"
                new = (
                    f"insert into symbols values ('{name}', 'crypto', false)",
                    f"insert into ohlcv_1d values ('{name}', '2024-05-05', {BAR})",
                    f"insert into economic_calendar select event_id || 'n{number}', event_type, event_name, "
                    "currency, impact, release_at, actual, forecast, previous, null from economic_calendar "
                    "where event_id = 'event:00007' and first_seen_at is null",
                )
                for statement in (
                    *(new if number % 10 == 0 else ()),
                    f"insert into ohlcv_1d values ('C00', '{day:%Y-%m-%d}', {BAR}) on conflict do nothing",
                    f"insert into ohlcv_1d values ('C11', '{day:%Y-%m-%d}', {BAR}) on conflict do nothing",
                    f"update ohlcv_1d set volume = volume where symbol = '{coin}' and ts > '2025-06-01'",
                ):
                    cursor.execute(statement)
                connection.commit()
                done[0] += 1
                over.wait(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield done
    finally:
        over.set()
        writer.join()
        backend.sql(
            "delete from ohlcv_1d where symbol like '%N%' or ts < '2025-01-01';"
            "delete from symbols where symbol like '%N%';"
            "delete from economic_calendar where event_id ~ 'n[0-9]'"
        )


def keys(backend: Backend) -> set[str]:
    """Every key there is now, as text."""
    return set(
        backend.sql(
            "select symbol || ' ' || (ts at time zone 'UTC')::date from ohlcv_1d "
            "union all select event_id || coalesce(' ' || first_seen_at, '') from economic_calendar"
        ).splitlines()
    )


def read_keys(snapshot: Snapshot) -> list[str]:
    bars, calendar = snapshot.bars, snapshot.calendar
    seen = calendar["first_seen_at"]
    stamps = seen.dt.strftime(" %Y-%m-%d %H:%M:%S.%f").str.rstrip("0").str.rstrip(".") + "+00"
    return [
        *(bars["symbol"] + " " + bars["ts"].dt.strftime("%Y-%m-%d")),
        *(calendar["event_id"] + stamps.fillna("")),
    ]


def opened(route: str, backend: Backend, url: str) -> AbstractContextManager[Source]:
    if route == "postgres":
        return postgres_source(PostgresSettings(database_url=SecretStr(backend.url("trainer"))))
    settings = SupabaseSettings(url=url, key=SecretStr(KEYS["kronos_training"]))
    return nullcontext(supabase_source(settings))


@pytest.mark.parametrize("route", ["supabase", "postgres"])
def test_no_row_is_missing_and_none_doubled(small: Backend, tmp_path: Path, route: str) -> None:
    small.sql("alter database small set timezone = 'UTC'")
    with gateway_server(small) as url, writing(small) as done:
        for run in range(RUNS // 2):
            before, began = keys(small), done[0]
            with opened(route, small, url) as source:
                # The writer copies one release again and again: most of its type then fall on one day.
                export(source, tmp_path / "s", now=NOW, accept=("day-of-month", "closed-day"))
            snapshot = load_snapshot(tmp_path / "s", now=NOW)
            found, after = read_keys(snapshot), keys(small)
            assert done[0] > began, "the writer wrote meanwhile"
            assert len(found) == len(set(found)), run
            assert before - set(found) == set(), run
            assert set(found) <= after, run
            if route == "postgres":
                assert_one_moment(snapshot)


def assert_one_moment(snapshot: Snapshot) -> None:
    """Each transaction adds the same old date to two coins; a read of one moment has both or neither."""
    old = snapshot.bars[snapshot.bars["ts"] < pd.Timestamp("2025-01-01", tz="UTC")]
    days = {name: set(old.loc[old["symbol"] == name, "ts"]) for name in ("C00", "C11")}
    assert days["C00"] == days["C11"] != set()
