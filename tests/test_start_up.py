"""What a command loads: nothing heavy for `--help` or a mistake, no extra where none is needed."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import pytest

from kronos_service.finetune.__main__ import main as finetune_main
from kronos_service.finetune.commands import COMMANDS as FINETUNE
from kronos_service.inference.__main__ import main as serve_main
from kronos_service.inference.commands import COMMANDS as INFERENCE
from kronos_service.inference.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
KEY = "a-key-of-the-start-up-test"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
COMMANDS = [("finetune", name) for name in FINETUNE] + [("inference", name) for name in INFERENCE]
HEAVY = (
    *("torch", "peft", "accelerate", "matplotlib", "pandas", "numpy", "pyarrow", "exchange_calendars"),
    *("fastapi", "uvicorn", "supabase", "adbc_driver_manager", "huggingface_hub", "transformers"),
)
RUN = """
import contextlib, importlib, io, json, sys
for name in {blocked}:
    sys.modules[name] = None
main = importlib.import_module("kronos_service.{program}.__main__").main
for argv in {lines}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as ended:
            code = ended.code
    loaded = [name for name in {heavy} if sys.modules.get(name)]
    print(json.dumps(dict(code=code, out=out.getvalue(), err=err.getvalue(), loaded=loaded)))
"""


class Answer(TypedDict):
    code: int
    out: str
    err: str
    loaded: list[str]


def answers(
    program: str, *lines: Sequence[str], blocked: tuple[str, ...] = (), **environment: str
) -> list[Answer]:
    """What one new process answers to each line, and which heavy modules it had loaded by then."""
    code = RUN.format(program=program, lines=[list(line) for line in lines], blocked=blocked, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("program", "commands"), [("finetune", FINETUNE), ("inference", INFERENCE)])
def test_help_loads_nothing_heavy_and_shows_an_example(program: str, commands: Mapping[str, object]) -> None:
    for command, answer in zip(
        commands, answers(program, *([name, "--help"] for name in commands)), strict=True
    ):
        assert answer["code"] == 0, answer["err"]
        assert answer["loaded"] == [], command
        for words in ("examples:", f"kronos_service.{program} {command}", "exit code: 0 ", "environment: "):
            assert words in answer["out"]


@pytest.mark.parametrize(("program", "commands"), [("finetune", FINETUNE), ("inference", INFERENCE)])
def test_a_misspelt_flag_loads_nothing_heavy_and_is_one_line(
    program: str, commands: Mapping[str, object]
) -> None:
    lines = [[name, "--confgi", "x"] for name in commands]
    for line, answer in zip(lines, answers(program, *lines), strict=True):
        assert (answer["code"], answer["out"], answer["loaded"]) == (2, "", []), line
        assert answer["err"].startswith("error: unknown flag --confgi")
        assert answer["err"].count("\n") == 1


@pytest.mark.parametrize("program", ["finetune", "inference"])
def test_the_list_of_commands_loads_nothing_heavy(program: str) -> None:
    (answer,) = answers(program, ["--help"])
    assert (answer["code"], answer["loaded"]) == (0, [])


@pytest.mark.parametrize(
    ("program", "argv", "blocked", "line"),
    [
        ("inference", ("serve",), "fastapi", "fastapi is not installed: pip install 'kronos-events[serve]'"),
        ("inference", ("serve",), "uvicorn", "uvicorn is not installed: pip install 'kronos-events[serve]'"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    program: str, argv: tuple[str, ...], blocked: str, line: str
) -> None:
    (answer,) = answers(program, argv, blocked=(blocked,), KRONOS_API_KEYS=KEY)
    assert (answer["code"], answer["err"]) == (2, f"error: {line}\n")


@pytest.mark.parametrize(
    ("main", "argv"),
    [(serve_main, ["serve"]), (finetune_main, ["export", "--source", "postgres", "--out", "x"])],
)
def test_a_missing_driver_of_the_database_is_named_in_one_line(
    main: Callable[[Sequence[str]], int],
    argv: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in list(sys.modules):  # another test may have imported the driver and the modules that use it
        if name.startswith(("adbc_driver_", "kronos_service.data.sources.", "kronos_service.data.sinks.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "adbc_driver_manager", None)
    monkeypatch.setenv("KRONOS_API_KEYS", KEY)
    monkeypatch.setenv("KRONOS_SOURCE", "postgres")
    assert main(argv) == 2
    missing = "adbc_driver_manager is not installed: pip install 'kronos-events[postgres]'"
    assert capsys.readouterr().err == f"error: {missing}\n"


def test_the_development_extra_holds_the_others() -> None:
    """But for those that need an environment of their own, which `make test-ecosystem` makes."""
    others = set(EXTRAS) - {"dev", "fev", "sktime"}
    (own,) = [line for line in EXTRAS["dev"] if line.startswith("kronos-events[")]
    assert set(own.removeprefix("kronos-events[").removesuffix("]").split(",")) == others


def test_no_setting_of_the_service_looks_like_one_of_a_command() -> None:
    """KRONOS_FORECAST_PATHS is the command's, KRONOS_MAX_PATHS the service's: both may be set."""
    for _, command in COMMANDS:
        prefix = f"{PREFIX}{command.replace('-', '_').upper()}_"
        assert not [name for name in Settings.model_fields if f"{PREFIX}{name.upper()}".startswith(prefix)]
