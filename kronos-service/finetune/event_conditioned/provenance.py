"""Which versions of which software made a figure."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "numpy", "pandas", "peft", "accelerate", "exchange_calendars")


def versions() -> dict[str, str]:
    """This package and its git revision (where it runs from a checkout), Python and the libraries."""
    revision = _git_revision(Path(__file__).parent)
    return (
        {"kronos-events": version("kronos-events")}
        | ({"git revision": revision} if revision else {})
        | {"python": platform.python_version(), "platform": platform.platform(terse=True)}
        | {name: version(name) for name in LIBRARIES}
    )


def _git_revision(directory: Path) -> str | None:
    """The commit, with `+changes` where tracked files differ from it; None without git or a checkout."""
    described = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"]
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        for command in (tracked, described):
            done = subprocess.run(
                command, cwd=directory, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
