"""How fast the two routes read, against the plain way on the same server in the same run; and memory.

`make bench` sets POSTGREST and has PostgreSQL installed, as `make test-integration` does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import pytest
from backend import KEYS, Backend, insert, running_backends
from gateway import gateway_server
from market_rows import market_rows
from pydantic import SecretStr
from rich.console import Console
from supabase import create_client

from kronos_service.data.sources.postgres import PostgresSettings, postgres_source
from kronos_service.data.sources.supabase import SupabaseSettings, supabase_source
from kronos_service.finetune.export_training_data import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("POSTGREST" not in os.environ, reason="needs the servers: run make bench"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

NOW = datetime(2025, 7, 15, tzinfo=UTC)
BARS = "select symbol, ts, open, high, low, close, volume, amount from ohlcv_1d"
BIG = 1_200_000
"""Bars of the export whose memory is measured: eight markets of 150,000."""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backends({"market": 1000}) as (backend,):
        rows = market_rows()
        insert(backend, "symbols", rows.symbols)
        insert(backend, "ohlcv_1d", rows.bars)
        insert(backend, "economic_calendar", rows.calendar)
        backend.sql("vacuum analyze")
        yield backend


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of some runs: other work on the machine only ever adds to it."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def test_postgres_takes_at_most_half_as_long_again_as_adbc_s_own_read(backend: Backend) -> None:
    def plain() -> int:
        with adbc.connect(backend.url("trainer")) as connection, connection.cursor() as cursor:
            cursor.execute(BARS)
            return len(cursor.fetch_arrow_table().to_pandas())

    def ours() -> int:
        settings = PostgresSettings(database_url=SecretStr(backend.url("trainer")))
        with postgres_source(settings) as source:
            return sum(map(len, source.bars()))

    assert plain() == ours()
    times = [seconds(work, 7) for work in (plain, ours)]
    report("postgres", f"{times[1]:.2f} s, ADBC {times[0]:.2f} s, ratio {times[1] / times[0]:.2f}")
    assert times[1] <= 1.5 * times[0]


def test_supabase_is_four_times_as_fast_as_one_page_after_the_other(backend: Backend) -> None:
    """Both read all bars through the real client, with 40 ms a round trip."""
    with gateway_server(backend, round_trip_s=0.04) as url:
        source = supabase_source(SupabaseSettings(url=url, key=SecretStr(KEYS["kronos_training"])))

        def ours() -> int:
            return sum(map(len, source.bars()))

        def sequential() -> int:
            table = create_client(url, KEYS["kronos_training"]).table("ohlcv_1d")
            rows, size = 0, 1000
            while size == 1000:
                query = table.select("*").order("symbol").order("ts").range(rows, rows + 999)
                size = len(query.execute().data)
                rows += size
            return rows

        assert ours() == sequential()
        times = [seconds(ours, 3), seconds(sequential, 1)]
    report("supabase", f"{times[0]:.2f} s, sequential {times[1]:.2f} s, ratio {times[1] / times[0]:.1f}")
    assert times[1] >= 4 * times[0]


EXPORT = """
import re, sys
from pathlib import Path
from kronos_service.finetune.__main__ import main
code = main(["export", "--source", sys.argv[1], "--out", sys.argv[2]])
# Not getrusage: its maximum includes the process that started this one.
print("peak", 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def big_backend(backend: Backend) -> Backend:
    copies = "generate_series(1, 7) as i"
    backend.sql(
        f"insert into symbols select symbol || i, asset_class, tradable from symbols, {copies};"
        "set session_replication_role = replica;"
        "insert into ohlcv_1d select symbol || i, ts, open, high, low, close, volume, amount "
        f"from ohlcv_1d, {copies};"
        "analyze"
    )
    return backend


@pytest.mark.parametrize("route", ["postgres", "supabase"])
def test_an_export_of_1_200_000_bars_stays_under_500_mb(
    big_backend: Backend, tmp_path: Path, route: str
) -> None:
    """The command in a process of its own, as a user runs it."""
    assert int(big_backend.sql("select count(*) from ohlcv_1d")) >= BIG
    with gateway_server(big_backend) as url:
        secrets = {"SUPABASE_URL": url, "SUPABASE_KEY": KEYS["kronos_training"]}
        environment = {**os.environ, **secrets, "DATABASE_URL": big_backend.url("trainer")}
        began = time.perf_counter()
        command = [sys.executable, "-c", EXPORT, route, str(tmp_path / "s")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    peak = int(done.stdout.split()[-1])
    report(route, f"1.2M bars in {time.perf_counter() - began:.1f} s, peak {peak / 1e6:.0f} MB")
    assert peak < 500e6


def test_a_whole_export_is_timed(backend: Backend, tmp_path: Path) -> None:
    """For the record alone: reading, judging, writing and syncing."""
    settings = PostgresSettings(database_url=SecretStr(backend.url("trainer")))
    with postgres_source(settings) as source:
        summary = export(source, tmp_path / "s", now=NOW, console=Console(file=StringIO()))
    report("export", f"{summary.bars:,} bars over postgres in {summary.seconds:.1f} s")


def report(what: str, figures: str) -> None:
    sys.stdout.write(f"\n{what}: {figures}\n")
