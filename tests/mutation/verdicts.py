"""What is known of mutants: the verdicts of earlier runs, and the list of faults that change nothing."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mutants import Mutant

EQUIVALENT: Final = Path(__file__).parent / "equivalent.toml"


def equivalents() -> list[dict[str, str]]:
    listed: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return listed


def is_equivalent(mutant: Mutant, listed: Sequence[dict[str, str]]) -> bool:
    return any(
        (entry["module"], entry["in"], entry["was"], entry["becomes"])
        == (mutant.path, mutant.scope, mutant.was, mutant.becomes)
        for entry in listed
    )


class Verdicts:
    """One JSON line a verdict; the last of a mutant counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.of = {entry["key"]: entry for entry in map(json.loads, lines)}

    def known(self, mutant: Mutant, digest: str) -> dict[str, Any] | None:
        entry = self.of.get(mutant.key)
        return entry if entry and (entry["verdict"] != "survived" or entry["digest"] == digest) else None

    def add(self, mutant: Mutant, digest: str, verdict: dict[str, Any]) -> dict[str, Any]:
        entry = {"key": mutant.key, "path": mutant.path, "digest": digest, **verdict}
        self.of[mutant.key] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        return entry
