"""Every command in the README runs: with a small market and base in the place of the reader's own."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from kronos_service.finetune.__main__ import main
from kronos_service.inference.__main__ import main as inference

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [
    line.strip()
    for block in re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
"""Every command of the README, each on one line."""
FINETUNE = [line.removeprefix("python -m kronos_service.finetune ") for line in SHELL if ".finetune" in line]
DEMO, *REAL_RUN = FINETUNE
(FORECAST,) = (line for line in SHELL if ".inference forecast" in line)
SERVE = "python -m kronos_service.inference serve"
SERVE_DEMO = f"{SERVE} --demo"
"""The browser tests open what it serves."""
(CURL,) = (line for line in SHELL if line.startswith("curl"))
(KEYS,) = (line for line in SHELL if line.startswith("export KRONOS"))
TINY = (
    "--epochs 1 --targets-per-window 8 --context 72 --rank 2 "
    "--train-start 2021-06-01 --val-start 2022-06-01 --test-start 2022-10-01"
)
SMALL = {
    "event-lora": f"{TINY} --test-end 2023-03-31 --promote if-better "
    "--forecast-origins 4 --forecast-horizon 2 --forecast-paths 20",
    "ablate": f"{TINY} --seeds 0 --variants adapter control",
    "evaluate": "--targets-per-window 8 --origins 6 --horizon 2 --paths 20",
}


@pytest.mark.slow
def test_the_commands_of_a_real_run_work_in_their_order(
    market_path: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in REAL_RUN:
        words = shlex.split(line)
        name = words[0]
        yours = {"data/snapshots/2026-11": str(market_path), "NeoQuasar/Kronos-base": str(base_path)}
        argv = [yours.get(word, word) for word in words] + shlex.split(SMALL.get(name, ""))
        if name == "export":  # the reader's database is not here: the small market takes its place
            argv = ["export", "--source", "snapshot", "--tables", str(market_path), "--out", "exported"]
            assert set(words) <= {"export", "--out", "data/snapshots/2026-11"}
        assert main(argv) == 0, line
        ran.append(name)
    assert ran == ["export", "audit", "doctor", "event-lora", "evaluate", "ablate"]


@pytest.mark.slow
def test_the_short_demo_ends_with_a_promoted_adapter_and_a_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(DEMO)) == 0
    assert (tmp_path / "adapters" / "LATEST.json").exists()
    assert inference(shlex.split(FORECAST.removeprefix("python -m kronos_service.inference "))) == 0
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_five_lines_run_as_typed(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 5
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" SPY ") == 5
    assert "SYNTHETIC" in done.stderr


def test_every_command_is_run_by_a_test_or_by_ci() -> None:
    steps = re.findall(r"^time make (.+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    ci = {f"make {target}" for step in steps for target in step.split()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    here = {f"python -m kronos_service.finetune {line}" for line in FINETUNE} | {
        FORECAST,
        SERVE,
        SERVE_DEMO,
        CURL,
        KEYS,
    }
    for line in set(SHELL) - here - {"source .venv/bin/activate"}:
        assert line.startswith("make "), line
        assert re.search(rf"^{line.removeprefix('make ')}:", makefile, re.MULTILINE), line
        # what `check` is made of is run one by one
        assert line in ci or line == "make check", line
    (parts,) = re.findall(r"^check: ([\w -]+?) *##", makefile, re.MULTILINE)
    assert {f"make {part}" for part in parts.split()} <= ci


@pytest.mark.slow
def test_the_service_answers_the_request_that_is_shown(tmp_path: Path) -> None:
    """On the packaged base, since nobody has trained an adapter here."""
    assert SHELL.index(KEYS) + 1 == SHELL.index(SERVE)
    words = shlex.split(CURL)
    (address,) = (word for word in words if word.startswith("http://127.0.0.1:8000/"))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = "a-key-of-the-readme-test"
    settings = {
        "KRONOS_API_KEYS": key,
        "KRONOS_ALLOW_BASE_ONLY": "1",
        "KRONOS_BASE_MODEL": "nano",
        "KRONOS_PORT": str(port),
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "kronos_service.inference", "serve"], cwd=tmp_path, env=os.environ | settings
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        headers["Authorization"] = headers["Authorization"].replace("$KRONOS_API_KEYS", key)
        body = json.loads(words[words.index("-d") + 1])
        answer = httpx.post(
            address.replace("http://127.0.0.1:8000", url), headers=headers, json=body, timeout=60
        )
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["series"][0]["dates"]) == body["horizon"]
    assert code == 0


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("the service was not ready within two minutes")


def test_the_file_tree_names_only_what_exists() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    folders = [ROOT]
    for line in tree.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = folders[depth] / line.split()[0]
        assert path.exists(), path
        folders[depth + 1 :] = [path]


def test_the_terms_are_explained_before_they_are_used() -> None:
    before, glossary, _ = re.split(r"^## Words$|^## Your own data$", README, flags=re.MULTILINE)
    terms = re.findall(r"^\| ([a-z ]+) \| (?!meaning)", glossary, re.MULTILINE)
    assert len(terms) == 6
    for term in ("gain", "control", "placebo", "nat"):
        assert term in terms
        assert not re.search(rf"\b{term}s?\b", before), term
