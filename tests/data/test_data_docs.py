"""docs/files.md and docs/database.md run as written; the tables of docs/data.md are those of the code."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from textwrap import dedent
from threading import Thread
from typing import Any

import httpx
from fake_postgrest import FakePostgrest
from small_tables import small_tables

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources.column_map import BarMap, CalendarMap, SymbolMap
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS

ROOT = Path(__file__).parents[2]
TABLES, FILES, DATABASE = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("data.md", "files.md", "database.md")
)
BLOCKS = [
    (kind, dedent(indent + body))
    for indent, kind, body in re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", FILES + DATABASE, re.M | re.S)
]
TRAINING = [body.strip() for kind, body in BLOCKS if kind == "sh" and " audit " in body]
"""The README's commands on another snapshot; tests/test_readme.py runs those."""
COMMANDS = [body.strip() for kind, body in BLOCKS if kind == "sh" and body.strip() not in TRAINING]
IMPORT = next(command for command in COMMANDS if " import " in command)
OVER_HTTP = [command for command in COMMANDS if " export " in command and "--source postgres" not in command]
ON_A_SERVER = [
    command for command in COMMANDS if command.startswith("psql") or "--source postgres" in command
]
"""These are run by tests/integration/test_integration_guide.py."""


def shell(command: str, directory: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the page as written; `python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUPABASE")}
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=directory,
        env=environment | {"PATH": path, "COLUMNS": "80"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def named_blocks() -> dict[str, str]:
    """The files of the worked example: a line names each in backticks before its block."""
    found = re.findall(r"^`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", FILES, re.M | re.S)
    return dict(found)


def test_the_worked_example_runs_as_written_and_prints_what_is_shown(tmp_path: Path) -> None:
    example = named_blocks()
    assert set(example) == {"prices.csv", "releases.csv", "map.toml"}
    for name, text in example.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = shell(IMPORT, tmp_path)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    position = 0
    for line in next(body for kind, body in BLOCKS if kind == "text").splitlines():
        assert line in done.stdout[position:], line
        position = done.stdout.index(line, position)

    snapshot = load_snapshot(tmp_path / "snapshots" / "mine")
    assert not snapshot.flagged
    bars = {(row.symbol, f"{row.ts:%Y-%m-%d %H:%M %Z}"): row.close for row in snapshot.bars.itertuples()}
    assert bars == {
        ("BTCUSDT", "2024-06-10 00:00 UTC"): 69512.0,
        ("BTCUSDT", "2024-06-11 00:00 UTC"): 67332.0,
        ("SPY", "2024-06-10 00:00 UTC"): 535.66,
        ("SPY", "2024-06-11 00:00 UTC"): 536.95,
        ("VIX", "2024-06-10 00:00 UTC"): 12.74,
        ("VIX", "2024-06-11 00:00 UTC"): 12.85,
    }
    events = snapshot.calendar.set_index("event_id")
    assert events["release_at"].dt.strftime("%H:%M").to_dict() == {
        "cpi:2024-06-12": "12:30",
        "fomc_rate_decision:2024-06-12": "18:00",
    }


def test_every_command_is_run_by_a_test() -> None:
    assert {IMPORT, *OVER_HTTP, *ON_A_SERVER} == set(COMMANDS)
    guide = (ROOT / "tests" / "integration" / "test_integration_guide.py").read_text(encoding="utf-8")
    assert "ON_A_SERVER" in guide
    assert len(COMMANDS) == 6

    readme = re.sub(r" \\\n +", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(TRAINING) == 2
    for line in "\n".join(TRAINING).splitlines():
        assert re.sub(r"snapshots/\w+", "data/snapshots/2026-11", line) in readme, line


@contextmanager
def served(handle: "httpx.MockTransport") -> Iterator[str]:
    """A transport behind a real socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = httpx.Request(
                "GET", f"http://{self.headers['host']}{self.path}", headers=dict(self.headers)
            )
            answer = handle.handle_request(request)
            body = answer.read()
            self.send_response(answer.status_code)
            for name in ("content-type", "content-range"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_export_over_http_runs_as_written(tmp_path: Path) -> None:
    tables = small_tables()
    rows = {
        "symbols": tables["symbols"],
        "ohlcv_1d": tables["bars"].assign(ts=tables["bars"]["ts"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")),
        "economic_calendar": tables["calendar"],
    }
    plain: Any = {n: t.astype(object).where(t.notna(), None).to_dict("records") for n, t in rows.items()}
    fake = FakePostgrest(tables=plain, key="sb_secret_of_a_test")
    (command,) = OVER_HTTP
    with served(fake.transport()) as url:
        done = shell(command, tmp_path, SUPABASE_URL=url, SUPABASE_KEY="sb_secret_of_a_test")
    assert done.returncode == 0, done.stderr
    assert "no gaps" in done.stdout
    assert len(load_snapshot(tmp_path / "snapshots" / "first").bars) == len(tables["bars"])
    assert "sb_secret" not in done.stdout + done.stderr


def test_the_columns_are_those_of_the_tables() -> None:
    named = set(re.findall(r"`(\w+)`", TABLES.split("## The tables")[1].split("\n## ")[0]))
    assert {*BAR_COLUMNS, *SYMBOL_COLUMNS, *CALENDAR_COLUMNS} <= named


def test_every_key_of_a_map_is_in_its_table() -> None:
    table = FILES.split("## The map")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    keys = {key for part in (BarMap, SymbolMap, CalendarMap) for key in part.model_fields}
    assert named == keys


def literals() -> list[str]:
    """Every string in the package, with {} where a value is put in."""
    found = []
    for file in Path(str(files("kronos_service"))).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_explained_is_one_that_the_code_can_give() -> None:
    table = TABLES.split("## What a message means")[1]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.M)
    assert len(messages) > 30
    known = "\n".join(literals())
    assert [message for message in messages if message not in known] == []
