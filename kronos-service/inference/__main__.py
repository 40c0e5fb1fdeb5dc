"""`python -m kronos_service.inference COMMAND`: serve forecasts, or show one."""

import sys
from collections.abc import Sequence

from kronos_service.inference.commands import COMMANDS, PROGRAM
from kronos_shared.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run_command(PROGRAM, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
