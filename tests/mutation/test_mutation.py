"""The tool behind `make mutate`: which faults it plants, which tests it runs, and when a score is too low."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from groups import Reach, read_groups
from mutants import Module, Mutant
from mutate import Judged, lowest, too_few
from trees import ROOT
from verdicts import Verdicts, equivalents, is_equivalent
from worker import judge

SOURCE = '''"""Doubles."""

from typing import Final

STEP: Final = 2


@name("step")
def double(value: "int", path, log) -> int:
    """Of any whole number."""
    if value < 0 and path:
        raise ValueError("expected a whole number")
    if not_yet(path):
        path.fsync()
    log.info("doubled")
    return STEP * value


def pairs(left, right):
    return list(zip(left, right, strict=True))


__all__ = ["double", "pairs"]
'''


@pytest.fixture
def module(tmp_path: Path) -> Module:
    (tmp_path / "double.py").write_text(SOURCE)
    return Module(tmp_path, "double.py")


@pytest.fixture
def mutants(module: Module) -> list[Mutant]:
    return [fault.render() for fault in module.faults]


def test_faults_are_in_what_runs_and_not_in_what_is_read(mutants: list[Mutant]) -> None:
    changes = {(mutant.was, mutant.becomes) for mutant in mutants}
    assert {
        ("STEP: Final = 2", "STEP: Final = 3"),
        ("if value < 0 and path:", "if value <= 0 and path:"),
        ("if value < 0 and path:", "if value < 0 or path:"),
        ('raise ValueError("expected a whole number")', "pass"),
        ("if not_yet(path):", "if not not_yet(path):"),
        ("path.fsync()", "pass"),
        ("return STEP * value", "return STEP / value"),
    } <= changes
    assert {change for was, change in changes if "zip" in was} == {
        "return list(zip(None, right, strict=True))",
        "return list(zip(left, None, strict=True))",
        "return list(zip(right, strict=True))",
        "return list(zip(left, strict=True))",
        "return list(None)",
    }
    unread = ("log.info", '"""', "@name", "def ", "import", "__all__")
    assert not [was for was, _ in changes if any(part in was for part in unread)]
    assert all(mutant.source != SOURCE for mutant in mutants)
    assert len({mutant.key for mutant in mutants}) == len(mutants)


def test_a_fault_is_run_by_the_tests_that_reach_its_statement(module: Module) -> None:
    reached = Reach(
        seconds={
            "slow.py::a": 9.0,
            "slow.py::b": 1.0,
            "fast.py::c": 2.0,
            "fast.py::reads": 0.0,
            "idle.py::d": 0.0,
        },
        lines={"double.py": {"5": [], "11": ["slow.py::a", "fast.py::c"], "13": ["slow.py::b"]}},
    )
    by_line = {fault.lines[0]: reached.tests(fault) for fault in module.faults}
    assert by_line[11] == ["fast.py::c", "slow.py::a"]  # the quicker file first
    assert by_line[13] == ["slow.py::b"]
    assert by_line[5] == ["fast.py::c", "fast.py::reads", "slow.py::a", "slow.py::b"]  # the import's line
    assert by_line[14] == []


@pytest.mark.soak
def test_a_verdict_is_the_tests_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "step.py").write_text("def step(path):\n    return 2\n")
    (tmp_path / "test_step.py").write_text(
        "from step import step\ndef test_step(tmp_path): assert step(tmp_path) == 2\n"
    )

    def verdict(source: str, limit: float = 60) -> tuple[str, str | None]:
        request = {"path": "step.py", "source": source, "tests": ["test_step.py"], "limit": limit}
        answer = judge(request)
        assert (tmp_path / "step.py").read_text() == "def step(path):\n    return 2\n"
        return answer["verdict"], answer["killer"]

    # The same size and the same second, so that cached bytecode of one would serve for the other.
    for _ in range(2):
        assert verdict("def step(path):\n    return 3\n") == ("killed", "test_step.py::test_step")
        assert verdict("def step(path):\n    return +2\n") == ("survived", None)
    assert verdict("def step(path):\n    while 1: pass\n", limit=2)[0] == "timeout"
    assert verdict("def step(path:\n")[0] == "killed"


def test_a_kill_is_kept_and_a_survivor_tried_again_when_its_tests_change(
    tmp_path: Path, mutants: list[Mutant]
) -> None:
    file = tmp_path / "verdicts.jsonl"
    first = Verdicts(file)
    first.add(mutants[0], "then", {"verdict": "killed"})
    first.add(mutants[1], "then", {"verdict": "survived"})
    later = Verdicts(file)
    assert later.known(mutants[0], "now")
    assert later.known(mutants[1], "then")
    assert later.known(mutants[1], "now") is None
    assert later.known(mutants[2], "then") is None


def test_a_sample_fails_only_where_chance_does_not_explain_it(mutants: list[Mutant]) -> None:
    assert (lowest(1), lowest(10), lowest(40), lowest(100)) == (0, 5, 29, 80)

    def sample(killed: int, survived: int) -> list[Judged]:
        return [Judged(mutants[0], verdict, 1) for verdict in ["killed"] * killed + ["survived"] * survived]

    assert too_few("store", sample(29, 11)) is None
    complaint = too_few("store", sample(28, 12))
    assert complaint
    assert "expected at least 29 of 40" in complaint
    assert too_few("store", [*sample(1, 0), Judged(mutants[0], "equivalent", 1)]) is None


def test_groups_and_equivalents_name_what_there_is() -> None:
    for group in read_groups().values():
        assert group.test_files()
        for path in [*group.modules, *group.tests]:
            assert (ROOT / path).exists(), path
    for entry in equivalents():
        assert set(entry) == {"module", "in", "was", "becomes", "reason"}
        source = [line.strip() for line in (ROOT / entry["module"]).read_text(encoding="utf-8").splitlines()]
        assert set(entry["was"].split("\n")) <= set(source), entry


def test_an_equivalent_is_that_very_change_in_that_function(mutants: list[Mutant]) -> None:
    one = next(mutant for mutant in mutants if mutant.becomes == "return STEP / value")
    entry = {"module": one.path, "in": "double", "was": one.was, "becomes": one.becomes, "reason": "a test"}
    assert is_equivalent(one, [entry])
    for other in ("module", "in", "was", "becomes"):
        assert not is_equivalent(one, [entry | {other: "another"}])


def test_what_a_shared_fixture_reaches_counts_for_each_test_that_uses_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest, step\n@pytest.fixture(scope='session')\ndef made(): return step.step()\n"
    )
    (tmp_path / "step.py").write_text("def step():\n    return 2\n\ndef other():\n    return 3\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "test_step.py").write_text(
        "import step\ndef test_a(made): assert made\ndef test_b(made): assert made\n"
        "def test_c(): assert step.other()\n"
    )
    command = [sys.executable, str(ROOT / "tests" / "mutation" / "reached.py"), "out.json", '["step.py"]']
    subprocess.run([*command, '["test_step.py"]'], cwd=tmp_path, check=True, capture_output=True)
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]["step.py"]
    assert lines["2"] == ["test_step.py::test_a", "test_step.py::test_b"]
    assert lines["5"] == ["test_step.py::test_c"]
    assert lines["1"] == []


def test_what_a_cache_keeps_is_reached_by_each_test_that_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text(
        "from functools import cached_property, lru_cache\n@lru_cache\ndef table(): return made()\n"
        "def made():\n    return [2]\n"
        "class Step:\n    @cached_property\n    def size(self):\n        return 3\n"
        "STEP = Step()\ndef find(): return table()\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "test_step.py").write_text(
        "import pytest, step\n@pytest.fixture(scope='module')\ndef found(): return step.find()\n"
        "def test_a(): assert step.find() is step.find()\n"
        "def test_b(): assert step.find() == [2] and step.STEP.size\n"
        "def test_c(): assert step.STEP.size == 3\n"
        "def test_d(found): assert found\n"
    )
    command = [sys.executable, str(ROOT / "tests" / "mutation" / "reached.py"), "out.json", '["step.py"]']
    subprocess.run([*command, '["test_step.py"]'], cwd=tmp_path, check=True, capture_output=True)
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]["step.py"]
    assert lines["5"] == [f"test_step.py::test_{name}" for name in ("a", "b", "d")]
    assert lines["9"] == [f"test_step.py::test_{name}" for name in ("b", "c")]
