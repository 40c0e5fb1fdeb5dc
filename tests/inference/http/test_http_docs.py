"""docs/serving.md and deploy/ name exactly the settings, metrics, routes and files that there are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from kronos_service.inference.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
UNIT = ROOT / "deploy" / "kronos-inference.service"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its two head lines."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_settings_are_those_of_the_class_with_their_defaults() -> None:
    fields = Settings.model_fields
    documented = {name.strip("`"): default for name, default, _ in rows("Settings")}
    assert set(documented) == {f"{PREFIX}{name.upper()}" for name in fields}
    for name, field in fields.items():
        shown = documented[f"{PREFIX}{name.upper()}"]
        if field.is_required():
            assert shown == "required", name
        elif field.default is None or field.default == ():
            assert "`" not in shown, name
        else:
            assert shown == f"`{str(field.default).lower()}`", name


def test_the_metrics_are_those_that_are_given(client: TestClient) -> None:
    given = dict(re.findall(r"^# TYPE (\w+) (\w+)$", client.get("/metrics").text, re.M))
    given = {name: kind for name, kind in given.items() if not name.endswith("_created")}
    # only a swap that this process has seen published has a time to live
    given |= {"kronos_adapter_publish_to_live_seconds": "gauge"}
    assert {name.strip("`"): kind for name, kind, _ in rows("Metrics")} == given


def test_the_alerts_are_about_metrics_and_labels_that_there_are(client: TestClient) -> None:
    text = client.get("/metrics").text
    metrics = {name.strip("`") for name, _, _ in rows("Metrics")}
    for what, _, expression in rows("Alerts"):
        named = {name.removesuffix("_bucket") for name in re.findall(r"kronos_\w+", expression)}
        assert named <= metrics, what
        assert named or "up{" in expression, what
        for label, value in re.findall(r'(reason|outcome)="(\w+)"', expression):
            assert f'{label}="{value}"' in text, what


def test_the_routes_are_those_of_the_app(client: TestClient) -> None:
    paths = set(client.get("/openapi.json").json()["paths"])
    named = set(re.findall(r"(?:GET|POST) (/[\w/]+)", TEXT)) | set(re.findall(r"`(/(?:livez|readyz))`", TEXT))
    assert named - {"/docs"} <= paths
    assert {"/v1/model", "/v1/adapters/reload", "/v1/adapters/pin", "/v1/adapters/rollback"} <= named


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / "docs" / link.partition("#")[0]).is_file()


def test_the_unit_runs_the_command_with_settings_that_there_are() -> None:
    unit = UNIT.read_text(encoding="utf-8")
    assert re.search(r"^ExecStart=\S+/python -m kronos_service\.inference serve$", unit, re.M)
    names = set(re.findall(rf"{PREFIX}(\w+)=", "\n".join(re.findall(r"^Environment=(.*)$", unit, re.M))))
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)
    # longer than the longest deadline, so that nothing admitted is cut off
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert int(patience) * 1000 > Settings.model_fields["max_deadline_ms"].default


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """With a python that is there, since the unit's own is made by whoever installs it."""
    unit = UNIT.read_text(encoding="utf-8").replace("/opt/kronos/.venv/bin/python", sys.executable)
    (tmp_path / UNIT.name).write_text(unit, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_is_unprivileged_and_checks_readiness() -> None:
    last_stage = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER (?!root)\w+$", last_stage, re.M)
    assert re.search(r"^HEALTHCHECK .*\n.*/readyz", last_stage, re.M)
    names = {name.lower() for name in re.findall(rf"{PREFIX}(\w+)=", last_stage)}
    assert names <= set(Settings.model_fields)
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M):
        assert all((ROOT / name).exists() for name in copied.split()), copied


def test_the_first_request_of_the_page_is_one_that_is_answered(client: TestClient) -> None:
    (body,) = re.findall(r"-d '(.+)'", section("Running it"))
    answer = client.post("/v1/forecast", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
