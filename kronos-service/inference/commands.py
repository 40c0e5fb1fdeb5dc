"""The commands of the inference side: each checks its flags, then imports and calls what does the work."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.settings import PREFIX, ForecastConfig, load_settings
from kronos_service.inference.settings import Settings as Service
from kronos_shared.cli import Command, Settings, needs, parse

PROGRAM = "python -m kronos_service.inference"


class ServeFlags(Settings):
    """The service is set up by its environment; a demo needs no setting."""

    demo: bool = False
    """show the page on the sample market, on this machine only, without keys; it keeps nothing"""
    renamed: ClassVar = {
        name: f"the environment variable {PREFIX}{name.upper()}" for name in Service.model_fields
    }


def serve(argv: Sequence[str]) -> None:
    """Answer POST /v1/forecast over HTTP; settings come from the environment (KRONOS_...)."""
    about = f"{serve.__doc__}"
    flags = parse(ServeFlags, argv, prog=f"{PROGRAM} serve", description=about, epilog=SERVE)
    settings = None if flags.demo else load_settings()

    with needs("serve"):
        from kronos_service.inference.http.server import serve as run
        from kronos_service.inference.http.server import serve_demo

    if settings is None:
        serve_demo()
    else:
        run(settings)


def forecast(argv: Sequence[str]) -> None:
    """Forecast a symbol with the base and its adapter: a table, and a fan chart with the events."""
    about = f"{forecast.__doc__}"
    config = parse(ForecastConfig, argv, prog=f"{PROGRAM} forecast", description=about, epilog=EXAMPLES)

    from kronos_service.inference.forecast.command import forecast as run

    run(config)


def forecast_all(argv: Sequence[str]) -> int:
    """Forecast every tradable symbol into one file, and into a database where asked to; for cron."""
    about = f"{forecast_all.__doc__}"
    prog = f"{PROGRAM} forecast-all"
    config = parse(ForecastAllConfig, argv, prog=prog, description=about, epilog=NIGHTLY)

    from kronos_service.inference.nightly.command import forecast_all as run

    return run(config).exit_code


COMMANDS: Mapping[str, Command] = {"serve": serve, "forecast": forecast, "forecast-all": forecast_all}

SERVE = f"""
examples:
  {PROGRAM} serve --demo
      the page on the sample market, without keys; it prints the address for the browser
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

NIGHTLY = f"""
examples:
  {PROGRAM} forecast-all --out forecasts/sample.parquet --paths 20
      the embedded sample market, with the adapter in adapters/ if there is one
  {PROGRAM} forecast-all --snapshot data/snapshots/2026-11 --out forecasts/2026-11-26.parquet
      a snapshot; the same command after a kill resumes
  {PROGRAM} forecast-all --source postgres --to postgres --out forecasts/2026-11-26.parquet
      from a database into its table forecasts

exit code: 0 done, 1 done but for symbols that are listed with their reasons, 2 a mistake (nothing written),
  3 written but not into the database (the same command tries that again), 130 interrupted
"""
