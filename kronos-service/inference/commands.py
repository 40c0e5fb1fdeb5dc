"""The commands of the inference side: each checks its flags, then imports and calls what does the work."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kronos_service.inference.settings import PREFIX, ForecastConfig, load_settings
from kronos_service.inference.settings import Settings as Service
from kronos_shared.cli import Command, Settings, needs, parse

PROGRAM = "python -m kronos_service.inference"


class ServeFlags(Settings):
    """None: the service is set up by its environment."""

    renamed: ClassVar = {
        name: f"the environment variable {PREFIX}{name.upper()}" for name in Service.model_fields
    }


def serve(argv: Sequence[str]) -> None:
    """Answer POST /v1/forecast over HTTP; settings come from the environment (KRONOS_...)."""
    parse(ServeFlags, argv, prog=f"{PROGRAM} serve", description=f"{serve.__doc__}", epilog=SERVE)
    settings = load_settings()

    with needs("serve"):
        from kronos_service.inference.http.server import serve as run

    run(settings)


def forecast(argv: Sequence[str]) -> None:
    """Forecast a symbol with the base and its adapter: a table, and a fan chart with the events."""
    about = f"{forecast.__doc__}"
    config = parse(ForecastConfig, argv, prog=f"{PROGRAM} forecast", description=about, epilog=EXAMPLES)

    from kronos_service.inference.forecast.command import forecast as run

    run(config)


COMMANDS: Mapping[str, Command] = {"serve": serve, "forecast": forecast}

SERVE = f"""
examples:
  KRONOS_API_KEYS=$(openssl rand -hex 24) {PROGRAM} serve
      the adapter in adapters/, on port 8000 of this machine

environment: docs/serving.md lists all settings
"""

EXAMPLES = f"""
examples:
  {PROGRAM} forecast --symbol SPY --horizon 10 --paths 100 --plot out.png
      the embedded sample market, with the adapter in adapters/ if there is one
  {PROGRAM} forecast --symbol SPY --as-of 2025-11-03 --plot out.png
      from an earlier origin: the chart shows what came too
  {PROGRAM} forecast --symbol SPY --scenario 'cpi +2'
      what if the next CPI surprises by two standard deviations
"""
