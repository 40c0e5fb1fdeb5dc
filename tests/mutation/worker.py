"""A process that has imported what the tests import, but for this package, and forks for each mutant.

It reads one JSON request a line (path, source, tests, limit) and answers (verdict, seconds, killer).
Importing torch takes longer than most tests; the package itself is imported in the fork, mutated.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

WARM: Final = (
    "accelerate exchange_calendars fastapi.testclient hypothesis.extra.numpy matplotlib numpy pandas peft "
    "pyarrow.parquet pydantic_settings pytest safetensors.torch structlog supabase torch uvicorn"
)
FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def judge(request: dict[str, Any]) -> dict[str, Any]:
    """Run the tests over one mutated file, which is put back afterwards."""
    file = Path(request["path"])
    kept = file.read_bytes()
    begin = time.monotonic()
    try:
        file.write_text(request["source"], encoding="utf-8")
        _forget(file)
        child = os.fork()
        if not child:
            _run(request["tests"])
        code = _wait(child, request["limit"])
    finally:
        file.write_bytes(kept)
        _forget(file)
    failed = FAILED.search(Path("mutant.log").read_text(encoding="utf-8", errors="replace"))
    verdict = {0: "survived", 5: "no tests", None: "timeout"}.get(code, "killed")
    return {
        "verdict": verdict,
        "seconds": round(time.monotonic() - begin, 1),
        "killer": failed[1] if failed else None,
    }


def _forget(file: Path) -> None:
    """Remove the cached bytecode, which Python would take for current by whole seconds and size."""
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def _run(tests: list[str]) -> None:
    os.setsid()
    log = os.open("mutant.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 3
    try:
        import pytest

        code = pytest.main(["-x", "-p", "no:cacheprovider", "--tb=line", "--hypothesis-seed=0", *tests])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(int(code))


def _wait(child: int, limit: float) -> int | None:
    """The child's exit code; None if it was killed for taking too long."""
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests started goes with it
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in WARM.split():
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(judge(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
