"""The figures of the report, on disk from the moment each is known."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from kronos_shared.atomic import replace_file

DRY = "**Dry run on a CPU with the nano shape: these figures mean nothing.**\n\n"
HEAD = "| step | figure | value | unit | about |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Figures:
    """One JSON and one Markdown table in a directory; one process at a time adds to them."""

    out: Path

    JSON: ClassVar = "gpu-report.json"
    TABLE: ClassVar = "gpu-report.md"

    @classmethod
    def begin(cls, out: Path, *, dry_run: bool) -> "Figures":
        """Empty ones in place of those that may be there."""
        out.mkdir(parents=True, exist_ok=True)
        began = datetime.now(UTC).isoformat(timespec="seconds")
        figures = cls(out)
        figures._write({"began": began, "dry_run": dry_run, "figures": [], "steps": []})
        title = f"# GPU report, {began}\n\n" + (DRY if dry_run else "")
        (out / cls.TABLE).write_text(title + HEAD, encoding="utf-8")
        return figures

    def add(self, step: str, name: str, value: float | str, unit: str = "", about: str = "") -> None:
        """Print a figure and append it to both files."""
        content = self.read()
        content["figures"].append({"step": step, "name": name, "value": value, "unit": unit, "about": about})
        self._write(content)
        self._row(step, name, shown(value), unit, about)

    def ended(self, step: str, seconds: float, failure: str | None) -> None:
        """Append how a step ended."""
        content = self.read()
        content["steps"].append({"step": step, "seconds": round(seconds, 1), "failure": failure})
        self._write(content)
        self._row(step, "**FAILED**" if failure else "done", f"{seconds:.0f}", "s", failure or "")

    def read(self) -> dict[str, Any]:
        """All that is known so far."""
        content: dict[str, Any] = json.loads((self.out / self.JSON).read_bytes())
        return content

    def _write(self, content: dict[str, Any]) -> None:
        replace_file(self.out / self.JSON, (json.dumps(content, indent=1) + "\n").encode())

    def _row(self, *cells: str) -> None:
        row = "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |\n"
        with (self.out / self.TABLE).open("a", encoding="utf-8") as table:
            table.write(row)
        sys.stdout.write(row)
        sys.stdout.flush()


def shown(value: float | str) -> str:
    """Four digits of a number."""
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
