"""`python -m kronos_service.finetune COMMAND`: prepare data, train adapters, evaluate them."""

import sys
from collections.abc import Sequence

from kronos_service.finetune import PROGRAM
from kronos_service.finetune.commands import COMMANDS
from kronos_shared.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 1 is an audit's with findings."""
    return run_command(PROGRAM, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
