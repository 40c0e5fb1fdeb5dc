"""The commands of the inference side: each parses its own flags and calls the function that does the work."""

import argparse
from collections.abc import Sequence

from kronos_shared.command_line import Command
from kronos_shared.options import parse

PROGRAM = "python -m kronos_service.inference"


def serve(argv: Sequence[str]) -> None:
    """Answer POST /v1/forecast over HTTP; settings come from the environment (KRONOS_...)."""
    from kronos_service.inference.http.server import serve as run
    from kronos_service.inference.settings import load_settings

    argparse.ArgumentParser(prog=f"{PROGRAM} serve", description=serve.__doc__).parse_args(argv)
    run(load_settings())


def forecast(argv: Sequence[str]) -> None:
    """Forecast a symbol with the base and its adapter: a table, and a fan chart with the events."""
    from kronos_service.inference.forecast.command import ForecastConfig
    from kronos_service.inference.forecast.command import forecast as run

    run(
        parse(ForecastConfig, argv, prog=f"{PROGRAM} forecast", description=f"{forecast.__doc__}\n{EXAMPLES}")
    )


COMMANDS: dict[str, Command] = {"serve": serve, "forecast": forecast}

EXAMPLES = f"""
examples:
  {PROGRAM} forecast --symbol SPY --horizon 10 --paths 100 --plot out.png
      the embedded sample market, with the adapter in adapters/ if there is one
  {PROGRAM} forecast --symbol SPY --as-of 2025-11-03 --plot out.png
      from an earlier origin: the chart shows what came too
  {PROGRAM} forecast --symbol SPY --scenario 'cpi +2'
      what if the next CPI surprises by two standard deviations
"""
