"""The groups of load-bearing modules, and which of a group's tests reach which line."""

import hashlib
import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mutants import Fault
from trees import ROOT, TOOLS, Tree

MODULES: Final = ROOT / TOOLS / "modules.toml"


def read_groups() -> dict[str, "Group"]:
    listed = tomllib.loads(MODULES.read_text(encoding="utf-8"))["group"]
    return {entry["name"]: Group(**entry) for entry in listed}


@dataclass(frozen=True)
class Group:
    name: str
    modules: list[str]
    tests: list[str]

    def test_files(self) -> list[str]:
        found = [
            file
            for name in self.tests
            for file in ([ROOT / name] if name.endswith(".py") else _tests_in(name))
        ]
        return [str(file.relative_to(ROOT)) for file in found]

    def digest(self) -> str:
        """Of everything that a verdict depends on, but for the mutant itself."""
        files = [
            *ROOT.glob("shared/*.py"),
            *ROOT.glob("kronos-service/**/*.py"),
            *ROOT.glob("tests/**/conftest.py"),
        ]
        files += [ROOT / name for name in self.test_files()]
        return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def _tests_in(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("test_*.py"))


@dataclass(frozen=True)
class Reach:
    """Seconds of each test, and the tests that reach each line of each module."""

    seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def tests(self, fault: Fault) -> list[str]:
        """The tests that run the fault's lines, the quickest files first; for a line that only imports
        run, all tests of the files that reach the module: one may read a constant and run nothing.
        """
        of_module = self.lines[fault.module.path]
        first, last = fault.lines
        ran = [of_module[line] for line in map(str, range(first, last + 1)) if line in of_module]
        found = {test for tests in ran for test in tests}
        if ran and not found:
            files = {_file(test) for tests in of_module.values() for test in tests}
            found = {test for test in self.seconds if _file(test) in files}
        cost: Counter[str] = Counter()
        for test in found:
            cost[_file(test)] += self.seconds[test]  # type: ignore[assignment]
        order = {test: number for number, test in enumerate(self.seconds)}
        return sorted(found, key=lambda test: (cost[_file(test)], order[test]))

    def limit(self, tests: Sequence[str]) -> float:
        """Seconds until a mutant counts as hanging."""
        return 30 + 3 * sum(self.seconds[test] for test in tests)


def _file(test: str) -> str:
    return test.split("::")[0]


def reach(group: Group, digest: str, trees: Sequence[Tree], kept_in: Path) -> Reach:
    """Run the group's tests unmutated, half of the files in each tree; kept until a file changes."""
    kept = kept_in / f"reach-{group.name.replace(' ', '-')}-{digest}.json"
    if not kept.exists():
        files = sorted(group.test_files(), key=lambda name: -(ROOT / name).stat().st_size)
        halves = [files[number :: len(trees)] for number in range(len(trees))]
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda pair: _reach(group, *pair), zip(trees, halves, strict=True)))
        merged: dict[str, Any] = {"seconds": {}, "lines": {name: {} for name in group.modules}}
        for part in found:
            merged["seconds"] |= part["seconds"]
            for name, lines in part["lines"].items():
                for line, tests in lines.items():
                    merged["lines"][name].setdefault(line, []).extend(tests)
        kept.write_text(json.dumps(merged))
    return Reach(**json.loads(kept.read_text()))


def _reach(group: Group, tree: Tree, files: list[str]) -> dict[str, Any]:
    arguments = ["-p", "no:cacheprovider", "--tb=short", "--hypothesis-seed=0", *files]
    command = [
        sys.executable,
        str(TOOLS / "reached.py"),
        "reach.json",
        json.dumps(group.modules),
        json.dumps(arguments),
    ]
    done = subprocess.run(command, cwd=tree.path, env=tree.environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"mutate: the tests of {group.name!r} fail without a mutant\n{done.stdout}\n{done.stderr}"
        )
    found: dict[str, Any] = json.loads((tree.path / "reach.json").read_text())
    return found
