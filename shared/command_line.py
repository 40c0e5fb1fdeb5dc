"""What every program of the project does with its arguments: pick a command, tell mistakes in one line."""

import sys
from collections.abc import Callable, Mapping, Sequence

from kronos_shared.errors import KronosError

Command = Callable[[Sequence[str]], int | None]
"""What a command does with its flags; it returns an exit code, or None for 0."""


def run_command(program: str, commands: Mapping[str, Command], argv: Sequence[str] | None) -> int:
    """Run the command that `argv` (default: the process's) names first, with the rest of it.

    Returns its exit code (0 on success), 2 with one line on stderr for a mistake the user can mend, or 130
    when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview(program, commands))
        return 0 if argv else 2
    if argv[0] not in commands:
        sys.stderr.write(f"error: unknown command {argv[0]!r}; there are {', '.join(commands)}\n")
        return 2
    try:
        return commands[argv[0]](argv[1:]) or 0
    except KronosError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<12} {command.__doc__}" for name, command in commands.items()]
    return "\n".join([f"usage: {program} COMMAND [--help] [flags]", "", "commands:", *lines, ""])
