"""Every setting of every command has a test that fails if the package ignores it: the table flags.toml.

The table is checked by default. That its tests notice takes minutes: pytest -m slow tests/test_flags.py
"""

import ast
import importlib
import inspect
import os
import pkgutil
import signal
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import kronos_service
import kronos_shared
from kronos_service.inference.settings import Settings as ServiceSettings
from kronos_shared.cli import Settings as CommandSettings

ROOT = Path(__file__).parents[1]
SETTINGS_MODULES = ("config", "settings", "commands")

Row = Mapping[str, str]
"""`test`: its node id; or `reason`: why none can notice; both with a `marker` that keeps it from running."""


def table() -> dict[str, Row]:
    """The rows of flags.toml, by `Class.field`."""
    classes: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tests/flags.toml").read_text("utf-8"))
    return {
        f"{owner}.{field}": {"test": row} if isinstance(row, str) else row
        for owner, rows in classes.items()
        for field, row in rows.items()
    }


def settings_classes() -> Iterator[type[BaseModel]]:
    """The classes that commands and service read their settings into."""
    for package in (kronos_service, kronos_shared):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] in SETTINGS_MODULES:
                for one in vars(importlib.import_module(module.name)).values():
                    if isinstance(one, type) and issubclass(one, CommandSettings | ServiceSettings):
                        yield one


def optional_settings(classes: Iterable[type[BaseModel]]) -> set[str]:
    """`Class.field` of each setting that has a default, by the class that defines it; without a required one
    no command starts.
    """
    return {
        f"{_owner(one, name).__name__}.{name}"
        for one in classes
        for name, info in one.model_fields.items()
        if not info.is_required()
    }


def _owner(one: type[BaseModel], field: str) -> type:
    return next(base for base in one.__mro__ if field in inspect.get_annotations(base))


def faults(rows: Mapping[str, Row], settings: Iterable[str]) -> Iterator[str]:
    """What is wrong with a table for these settings."""
    wanted = set(settings)
    yield from (f"{name}: no test; name one in tests/flags.toml" for name in sorted(wanted - rows.keys()))
    for name, row in rows.items():
        if name not in wanted:
            yield f"{name}: there is no such setting"
        if "test" not in row and "reason" not in row:
            yield f"{name}: neither a test nor a reason"
        if "marker" in row and "reason" not in row:
            yield f"{name}: no reason why its test is {row['marker']}"
        if "test" in row and not is_test(row["test"]):
            yield f"{name}: there is no test {row['test']}"


def is_test(node_id: str) -> bool:
    """Whether its file defines a test of this name, whatever its parameters."""
    path, _, name = node_id.partition("::")
    return name.partition("[")[0] in _tests(ROOT / path)


@cache
def _tests(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {one.name for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_setting_has_a_test_that_would_notice_if_it_were_ignored() -> None:
    assert list(faults(table(), optional_settings(settings_classes()))) == []


def test_faults_of_a_table_are_found() -> None:
    here = "tests/test_flags.py::test_faults_of_a_table_are_found"
    rows = {
        "A.good": {"test": here},
        "A.parameter": {"test": f"{here}[1-2]"},
        "A.speed": {"reason": "shows in nothing but speed"},
        "A.slow": {"test": here, "marker": "slow", "reason": "trains for minutes"},
    }
    assert list(faults(rows, rows)) == []
    assert list(faults(rows, [*rows, "A.new"])) == ["A.new: no test; name one in tests/flags.toml"]
    assert list(faults(rows, rows.keys() - {"A.good"})) == ["A.good: there is no such setting"]
    for row, message in (
        ({"test": f"{here}_too"}, f"there is no test {here}_too"),
        ({"test": "tests/test_flag.py::test"}, "there is no test tests/test_flag.py::test"),
        ({"test": here, "marker": "slow"}, "no reason why its test is slow"),
        ({}, "neither a test nor a reason"),
    ):
        assert list(faults({"A.bad": row}, ["A.bad"])) == [f"A.bad: {message}"]


def test_a_setting_belongs_to_the_class_that_defines_it_last() -> None:
    class Low(CommandSettings):
        needed: int
        kept: int = 1
        changed: int = 1

    class High(Low):
        changed: int = 2

    assert optional_settings([High]) == {"Low.kept", "High.changed"}


def result(tests: Sequence[str], directory: Path, *, ignored: str = "", marker: str = "") -> pytest.ExitCode:
    """How tests end in a process that ignores a setting; it is forked, since importing torch takes longer."""
    child = os.fork()
    if not child:
        _run([str(ROOT / one) for one in tests], directory, ignored, marker)
    try:
        return pytest.ExitCode(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        raise


def _run(tests: Sequence[str], directory: Path, ignored: str, marker: str) -> None:
    code = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setsid()
        os.chdir(directory)  # where an ignored directory lets a test write
        output = os.open("log", os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        os.environ["IGNORED_SETTING"] = ignored
        project = ["--rootdir", str(ROOT), "--config-file", str(ROOT / "pyproject.toml"), "-m", marker]
        plugins = ["-p", "no:cacheprovider", "-p", "ignored_setting"]
        code = pytest.ExitCode(pytest.main([*project, *plugins, *tests]))
        sys.stdout.flush()
    finally:
        os._exit(code)


NAMED = {name: row for name, row in table().items() if "test" in row}


@pytest.mark.slow
@pytest.mark.parametrize("setting", NAMED)
def test_the_named_test_notices(setting: str, tmp_path: Path) -> None:
    row = NAMED[setting]
    code = result([row["test"]], tmp_path, ignored=setting, marker=row.get("marker", ""))
    assert code == pytest.ExitCode.TESTS_FAILED, (tmp_path / "log").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_named_tests_pass_where_nothing_is_ignored(tmp_path: Path) -> None:
    tests = sorted({row["test"] for row in NAMED.values() if "marker" not in row})
    assert result(tests, tmp_path) == pytest.ExitCode.OK, (tmp_path / "log").read_text()[-3000:]


@pytest.mark.slow
def test_a_test_that_does_not_notice_is_told_from_one_that_does(tmp_path: Path) -> None:
    here = "tests/test_flags.py::test_a_setting_belongs_to_the_class_that_defines_it_last"
    assert result([here], tmp_path, ignored="Recipe.rank") == pytest.ExitCode.OK
    assert result([f"{here}_too"], tmp_path, ignored="Recipe.rank") == pytest.ExitCode.USAGE_ERROR
