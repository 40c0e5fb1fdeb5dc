"""Faults at random points of a real socket, and SIGKILLs: the truth or the old snapshot, and a clear line.

SOAK=10 (`make soak`) runs ten times as many.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from backend import KEYS, Backend
from gateway import gateway_server
from market_rows import MarketRows
from pydantic import SecretStr
from rich.console import Console

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources.postgres import PostgresSettings, postgres_source
from kronos_service.data.sources.postgrest import SupabaseError
from kronos_service.data.sources.supabase import SupabaseSettings, SupabaseSource, supabase_source
from kronos_service.finetune.export_training_data import export

pytestmark = pytest.mark.integration

NOW = datetime(2025, 7, 15, tzinfo=UTC)
TIMES = int(os.environ.get("SOAK", "1"))


def opened(url: str, attempts: int = 3) -> SupabaseSource:
    key = SecretStr(KEYS["kronos_training"])
    return supabase_source(
        SupabaseSettings(url=url, key=key, timeout_s=1.0, attempts=attempts, backoff_s=0.02)
    )


def fingerprint(directory: Path) -> dict[str, str]:
    """Every file of a snapshot with the hash of its bytes; what a cut export left aside is no part of it."""
    files = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_truth(directory: Path, rows: MarketRows) -> None:
    snapshot = load_snapshot(directory, now=NOW)
    pd.testing.assert_frame_equal(snapshot.bars, rows.bars, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.calendar, rows.calendar, check_exact=True)
    pd.testing.assert_frame_equal(snapshot.symbols, rows.symbols, check_exact=True)


def old_snapshot(backend: Backend, directory: Path) -> dict[str, str]:
    """A snapshot of less, which every good export replaces."""
    with postgres_source(PostgresSettings(database_url=SecretStr(backend.url("trainer")))) as source:
        export(source, directory, since=datetime(2025, 6, 2, tzinfo=UTC).date(), now=NOW, console=quiet())
    return fingerprint(directory)


def quiet() -> Console:
    return Console(file=StringIO())


@pytest.mark.timeout(3600)
def test_faults_end_in_the_truth_or_in_a_line_and_the_old_snapshot(
    small: Backend, small_rows: MarketRows, tmp_path: Path
) -> None:
    ends: Counter[str] = Counter()
    old = old_snapshot(small, tmp_path / "s")
    for seed, probability in enumerate((0.03, 0.08, 0.25, 0.5)):
        with gateway_server(small, faults=probability, seed=seed) as url:
            for _ in range(5 * TIMES):
                message = ""
                try:
                    export(opened(url), tmp_path / "s", now=NOW, console=quiet())
                except SupabaseError as error:
                    message = str(error)
                if message:
                    assert "\n" not in message
                    assert message.startswith("table ")
                    assert fingerprint(tmp_path / "s") == old
                    ends["refused"] += 1
                else:
                    assert_truth(tmp_path / "s", small_rows)
                    ends["truth"] += 1
                    old = old_snapshot(small, tmp_path / "s")
    assert ends["refused"] + ends["truth"] == 20 * TIMES
    assert min(ends["refused"], ends["truth"]) >= 3 * TIMES, ends


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("route", ["supabase", "postgres"])
def test_kills_leave_a_whole_snapshot_and_are_in_nobody_s_way(
    small: Backend, small_rows: MarketRows, tmp_path: Path, route: str
) -> None:
    """Half of the exports that follow a kill go on from what it left."""
    chance, killed, resumed = random.Random(0), 0, 0
    old = old_snapshot(small, tmp_path / "s")
    with gateway_server(small, round_trip_s=0.005) as url:
        work = partial(export_by, route, small, url, tmp_path / "s")
        began = time.monotonic()
        assert run_and_kill(work, 120.0) == 0
        new, usual = fingerprint(tmp_path / "s"), time.monotonic() - began
        tables = {name for name in new if name != "manifest.json"}
        while killed < 5 * TIMES:
            old = old_snapshot(small, tmp_path / "s")
            killed += run_and_kill(work, chance.uniform(0, usual)) == -signal.SIGKILL
            if fingerprint(tmp_path / "s").items() >= old.items():
                load_snapshot(tmp_path / "s", now=NOW)
            else:
                assert_truth(tmp_path / "s", small_rows)
            notes = work(resume=killed % 2 == 0)
            resumed += any("resumed after" in note for note in notes)
            assert_truth(tmp_path / "s", small_rows)
            assert set(fingerprint(tmp_path / "s")) - {"manifest.json"} == tables
            assert {path.name for path in (tmp_path / "s").iterdir()} == {*tables, "manifest.json"}


def export_by(
    route: str, backend: Backend, url: str, directory: Path, resume: bool = False
) -> tuple[str, ...]:
    if route == "supabase":
        return export(opened(url, 5), directory, now=NOW, resume=resume, console=quiet()).notes
    with postgres_source(PostgresSettings(database_url=SecretStr(backend.url("trainer")))) as source:
        return export(source, directory, now=NOW, resume=resume, console=quiet()).notes


def run_and_kill(work: Callable[[], object], patience: float) -> int:
    """The exit code of a fork that works, killed after `patience` seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    killer = threading.Timer(patience, os.kill, (child, signal.SIGKILL))
    killer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killer.cancel()
    killer.join()
    return code


def test_ctrl_c_ends_at_once_and_leaves_the_old_snapshot(small: Backend, tmp_path: Path) -> None:
    """The gateway takes 30 s for every answer; nobody waits for it."""
    old = old_snapshot(small, tmp_path / "s")
    with gateway_server(small, round_trip_s=30.0) as url:
        environment = {**os.environ, "SUPABASE_URL": url, "SUPABASE_KEY": KEYS["kronos_training"]}
        command = [sys.executable, "-m", "kronos_service.finetune", "export", "--out", str(tmp_path / "s")]
        # a shell starts its background jobs deaf to SIGINT, and this test may run in one
        program = subprocess.Popen(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        lock = tmp_path / "s" / ".lock"
        until = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        _, shown = program.communicate(timeout=60)
    assert program.returncode == 130
    assert shown.splitlines()[-1] == "interrupted"
    assert time.monotonic() - began < 15
    assert fingerprint(tmp_path / "s") == old
