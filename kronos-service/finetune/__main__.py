"""`python -m kronos_service.finetune COMMAND`: prepare data, train adapters, evaluate them."""

import sys
from collections.abc import Sequence

from kronos_service.finetune.commands import COMMANDS, PROGRAM
from kronos_shared.errors import KronosError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 where an audit has findings, 2 with one line on stderr for a mistake
    the user can mend, 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        sys.stderr.write(f"error: unknown command {argv[0]!r}; there are {', '.join(COMMANDS)}\n")
        return 2
    try:
        return COMMANDS[argv[0]](argv[1:]) or 0
    except KronosError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _overview() -> str:
    lines = [f"  {name:<12} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {PROGRAM} COMMAND [--help] [flags]", "", "commands:", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
