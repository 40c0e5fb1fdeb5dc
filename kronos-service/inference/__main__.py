"""`python -m kronos_service.inference COMMAND`: serve forecasts."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from kronos_shared.errors import KronosError

PROGRAM: Final = "python -m kronos_service.inference"


def serve() -> None:
    """Answer POST /v1/forecast over HTTP; settings come from the environment (KRONOS_...)."""
    from kronos_service.inference.serve import serve as run
    from kronos_service.inference.settings import load_settings

    run(load_settings())


COMMANDS: Final = {"serve": serve}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 2 with one line on stderr for a mistake that the user can mend."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__, description=command.__doc__)
    try:
        COMMANDS[parser.parse_args(argv).command]()
    except KronosError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
