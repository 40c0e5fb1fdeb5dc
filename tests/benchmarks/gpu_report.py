"""Everything that is to be measured on a GPU, in one command of at most eight minutes: `make gpu-report`.

Steps run one after the other, those of most worth first, each in a process of its own and within a time of
its own. Each appends its figures to gpu-report.json and gpu-report.md the moment it has them, so that one
that fails, hangs or is cut off loses nothing of the others. `--dry-run` runs all of them on a CPU with the
nano shape: it shows that they run, and its figures mean nothing.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_steps.figures import Figures

HERE = Path(__file__).parent
BESIDE = (HERE, HERE.parent / "model", HERE.parent / "integration")
"""Where the modules lie that the steps share with the tests."""
TOTAL_SECONDS = 480.0
DRY_SLOWER = 2
"""Times as long as a step may take in a dry run: a CPU that others use too is no measure."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process of the report; its module has a function `run(lab)`."""

    module: str
    title: str
    seconds: float


STEPS = (
    Step(module="gpu_steps.card", title="versions and card", seconds=25),
    Step(module="gpu_steps.truth", title="what it computes", seconds=25),
    Step(module="gpu_steps.memory", title="memory and speed of a step", seconds=40),
    Step(module="gpu_steps.job", title="the job on the sample", seconds=85),
    Step(module="gpu_steps.generation", title="forecasts", seconds=90),
    Step(module="gpu_steps.resume", title="NCCL and resume", seconds=55),
    Step(module="gpu_steps.service", title="the service", seconds=115),
    Step(module="gpu_steps.compiled", title="a step with torch.compile", seconds=45),
)
"""Most worth first: compiling is last, for it may take all the time there is."""


def report(steps: Sequence[Step], out: Path, *, dry_run: bool, seconds: float = TOTAL_SECONDS) -> list[str]:
    """Run the steps and return the titles of those that failed; none stops another."""
    figures = Figures.begin(out, dry_run=dry_run)
    ends, failed = time.monotonic() + seconds, []
    for step in steps:
        allowed = step.seconds * (DRY_SLOWER if dry_run else 1)
        left = min(allowed, ends - time.monotonic())
        if left <= 0:
            failure: str | None = f"not begun: the {seconds:.0f} s of the report are over"
            took = 0.0
        else:
            begun = time.monotonic()
            failure = _run(step, out, left, dry_run)
            took = time.monotonic() - begun
        figures.ended(step.title, took, failure)
        if failure:
            failed.append(step.title)
    return failed


def _run(step: Step, out: Path, seconds: float, dry_run: bool) -> str | None:
    """Why the step failed, or None."""
    command = [sys.executable, __file__, "--out", str(out), "--step", step.module, "--title", step.title]
    paths = os.pathsep.join([*map(str, BESIDE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*command, "--dry-run"] if dry_run else command,
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that what it has started ends with it
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"cut off after {seconds:.0f} s"
    finally:
        _end(process)
    sys.stderr.write(errors[-4000:] if process.returncode else "")
    return f"exit {process.returncode}: {_last(errors.splitlines())}" if process.returncode else None


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill the step and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _last(lines: Iterable[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, with the nano shape")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-report"), help="where the figures go")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--title", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        from gpu_steps.lab import Lab

        lab = Lab.of(Figures(given.out), given.title, dry_run=given.dry_run)
        importlib.import_module(given.step).run(lab)
        return 0
    import torch

    if not given.dry_run and not torch.cuda.is_available():
        sys.stderr.write("error: no CUDA device here: add --dry-run to see that the steps run\n")
        return 2
    failed = report(STEPS, given.out, dry_run=given.dry_run)
    sys.stdout.write(f"{given.out / Figures.TABLE}; failed: {', '.join(failed) or 'none'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
