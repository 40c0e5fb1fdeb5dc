"""Copies of the project in which files are mutated, each with the process that runs tests there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mutants import Mutant

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = Path("tests/mutation")
COPIED: Final = (
    "kronos-service",
    "shared",
    "tests",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
)


class Tree:
    """A copy of the project for one process to mutate, and that process."""

    def __init__(self, scratch: Path, number: int) -> None:
        self.path = scratch / f"tree{number}"
        self.path.mkdir()
        for name in COPIED:
            there = ROOT / name
            if there.is_dir():
                shutil.copytree(there, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(there, self.path / name)
        packages = self.path / "src"  # before the installed package on the path, also for what tests start
        packages.mkdir()
        (packages / "kronos_service").symlink_to("../kronos-service")
        (packages / "kronos_shared").symlink_to("../shared")
        self.environment = {**os.environ, "PYTHONPATH": str(packages)}
        self._worker: subprocess.Popen[str] | None = None

    def judge(self, mutant: Mutant, tests: Sequence[str], limit: float) -> dict[str, Any]:
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, str(TOOLS / "worker.py")],
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._worker.stdin
        assert self._worker.stdout
        request = {"path": mutant.path, "source": mutant.source, "tests": list(tests), "limit": limit}
        print(json.dumps(request), file=self._worker.stdin, flush=True)
        answer = self._worker.stdout.readline()
        if not answer:
            raise SystemExit(f"mutate: the process in {self.path} ended; its last log is mutant.log there")
        verdict: dict[str, Any] = json.loads(answer)
        if verdict["verdict"] == "no tests":
            raise SystemExit(f"mutate: pytest found none of {list(tests)[:3]} in {self.path}")
        return verdict

    def close(self) -> None:
        if self._worker is not None:
            assert self._worker.stdin
            self._worker.stdin.close()
            self._worker.wait()
