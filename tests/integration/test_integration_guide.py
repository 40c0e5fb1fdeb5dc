"""docs/database.md, "From an empty project to the first export": its commands, on a real server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import pytest
from backend import HOSTED_GRANTS, Backend

from kronos_service.data.snapshot.read import load_snapshot

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "database.md").read_text(encoding="utf-8").partition("## Audit and train")[0]
STEPS = [
    (kind, dedent(indent + body).strip())
    for indent, kind, body in re.findall(r"^( *)```(sh|sql)\n(.*?)^ *```$", GUIDE, re.M | re.S)
]
ON_A_SERVER = [
    (kind, text)
    for kind, text in STEPS
    if kind == "sql" or text.startswith("psql") or "--source postgres" in text
]
"""The export over HTTP is run by tests/data/test_data_docs.py."""
LOGINS = ("kronos_export", "kronos_load")
FILES = {
    "symbols.csv": "symbol,asset_class,tradable\nSPY,us_equity,true\n",
    "bars.csv": "symbol,ts,open,high,low,close,volume\nSPY,2024-06-11,534.07,537.01,532.05,536.95,36.4e6\n",
    "releases.csv": (
        "event_id,event_type,event_name,currency,impact,release_at,actual,forecast,previous,first_seen_at\n"
        "cpi:2024-06-12,cpi,CPI m/m,USD,high,2024-06-12T12:30:00Z,,0.1,0.3,\n"
    ),
}


@pytest.fixture
def project(backends: list[Backend]) -> Iterator[str]:
    """A database of its own, as a new project has it; the logins that the guide makes go in the end."""
    server = backends[0]
    address = server.url(database="guide")
    server.sql("create database guide")
    try:
        psql(address, HOSTED_GRANTS)
        yield address
    finally:
        server.sql("drop database guide with (force)")
        for name in LOGINS:
            server.sql(f"drop role if exists {name}")


def psql(address: str, statements: str) -> str:
    command = ["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", address]
    return subprocess.run(command, input=statements, capture_output=True, text=True, check=True).stdout


def test_the_guide_leads_from_an_empty_project_to_an_export_and_on(project: str, tmp_path: Path) -> None:
    assert [kind for kind, _ in ON_A_SERVER] == ["sh", "sql", "sh", "sql", "sh", "sh"]
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "shared").symlink_to(ROOT / "shared")
    parts = urlsplit(project)
    reader = parts._replace(netloc=f"kronos_export:choose-a-password@{parts.hostname}:{parts.port}").geturl()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OWNER_URL": project, "DATABASE_URL": reader}
    for kind, text in ON_A_SERVER:
        if kind == "sql":  # step 3's rows go in as the writer, whose role the statements take
            psql(project, text)
            continue
        done = subprocess.run(
            ["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "choose-a-password" not in done.stdout + done.stderr
        if "--source postgres" in text:
            assert "no gaps" in done.stdout

    snapshot = load_snapshot(tmp_path / "snapshots" / "first")
    assert snapshot.bars["close"].tolist() == [536.95, 542.45]
    versions = snapshot.calendar.sort_values("first_seen_at", na_position="first")
    assert versions["event_id"].tolist() == ["cpi:2024-06-12"] * 2
    assert versions["actual"].isna().tolist() == [True, False]


def test_the_guide_is_right_about_copy(project: str, tmp_path: Path) -> None:
    """The writer cannot `copy` into a table whose rows are secured, which is why the owner loads."""
    psql(project, (ROOT / "shared" / "schema.sql").read_text(encoding="utf-8"))
    (tmp_path / "symbols.csv").write_text(FILES["symbols.csv"])
    copy = f"set role kronos_writer;\n\\copy symbols from '{tmp_path}/symbols.csv' with (format csv, header)"
    with pytest.raises(subprocess.CalledProcessError) as error:
        psql(project, copy)
    assert "row-level security" in error.value.stderr
