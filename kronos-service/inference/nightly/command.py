"""The `forecast-all` command: every tradable symbol into one file, from which a database may be filled."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

from rich.console import Console

from kronos_service.data.forecasts import ForecastFileError, read_about
from kronos_service.data.sinks import SINKS, TABLE, Upsert
from kronos_service.data.snapshot.by_symbol import SymbolReader, open_by_symbol
from kronos_service.inference.forecast.command import adapter_or_default
from kronos_service.inference.forecast.table import SYNTHETIC
from kronos_service.inference.market.market import utc_now
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.nightly import ray_engine
from kronos_service.inference.nightly.chunk import ChunkForecaster
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.nightly.memory import chunk_size, free_bytes
from kronos_service.inference.nightly.partial import Began, Partial, open_partial
from kronos_service.inference.nightly.plan import Plan, load_model
from kronos_service.inference.nightly.tables import find_tables
from kronos_shared.cli import ConfigError, require_writable
from kronos_shared.errors import KronosError
from kronos_shared.normalization import MIN_HISTORY
from kronos_shared.progress import follow, say


class NothingForecastError(KronosError):
    """Not one symbol could be forecast."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a batch."""

    out: Path
    symbols: int
    """Tradable ones of the source."""
    failed: Mapping[str, str]
    """Symbol -> why it is not in the file."""
    unsent: str | None = None
    """Why the rows are not in the database; None where they are, or were not to be."""

    @property
    def exit_code(self) -> int:
        """0 where every symbol is in the file, 1 where some are not, 3 where the database lacks the rows."""
        return 3 if self.unsent else 1 if self.failed else 0


def forecast_all(
    config: ForecastAllConfig, *, now: datetime | None = None, console: Console | None = None
) -> Summary:
    """Forecast every tradable symbol of a source and write the rows to `config.out`, in one step.

    What an interrupted run of the same settings, data and model has done is kept.

    Args:
        now: the present, for tests.

    Raises:
        NothingForecastError: every symbol failed.
        KronosError: anything else the user can fix, named by its subclass; nothing has been written.
    """
    console = console or Console(stderr=True, markup=False)
    require_writable(config.out.parent, "--out")
    upsert = None if config.to is None else SINKS[config.to]()
    started = time.monotonic()
    with open_partial(config.out) as partial:
        now = now or utc_now()
        if config.as_of is not None:
            now = datetime.combine(config.as_of + timedelta(days=1), time_of_day(), UTC)
        tables = find_tables(config, partial.directory / "tables", now=now)
        reader = open_by_symbol(tables)
        is_sample = config.source == "snapshot" and config.snapshot is None and config.base_model is None
        adapter = adapter_or_default(config.adapter, console, is_sample=is_sample)
        serving = load_model(adapter, base_model=config.base_model, device=config.device)
        if serving.is_synthetic:
            say(f"{SYNTHETIC}: the model has learned from a sample market, of no real one", on=console)
        _check_horizon(config.horizon, serving)
        began, plan = _begin(config, partial, reader, tables, adapter, serving, now)
        about = _finished(config.out, plan)
        if about is None:
            about = _compute(partial, began, reader, plan, serving, config, console)
            console.print(f"{config.out}: made in {time.monotonic() - started:.1f} s", highlight=False)
        else:
            console.print(f"{config.out} is there already, from the same data and model", highlight=False)
    unsent = None if upsert is None else _send(upsert, config.out, console)
    summary = Summary(out=config.out, symbols=about["symbols"], failed=about["failed"], unsent=unsent)
    _report(summary, console)
    return summary


def _send(upsert: Upsert, out: Path, console: Console) -> str | None:
    """Write the file's rows into the database; returns why that failed, since the file stays good."""
    try:
        console.print(f"{upsert(out):,} rows are in the table {TABLE}", highlight=False)
    except KronosError as error:
        return " ".join(str(error).split())
    return None


def _check_horizon(horizon: int, serving: ServedModel) -> None:
    most = serving.context - MIN_HISTORY
    if horizon > most:
        raise ConfigError(
            f"--horizon must be at most {most}, got {horizon}: this model reads {serving.context} bars, "
            f"{MIN_HISTORY} of them history"
        )


def _begin(
    config: ForecastAllConfig,
    partial: Partial,
    reader: SymbolReader,
    tables: Path,
    adapter: Path | None,
    serving: ServedModel,
    now: datetime,
) -> tuple[Began, Plan]:
    """The plan; an unfinished batch of another one is thrown away, of the same one resumed."""
    plan = Plan(
        tables=tables.resolve(),
        tables_sha256=reader.sha256,
        adapter=adapter and adapter.resolve(),
        digest=serving.digest,
        base_model=config.base_model,
        base_digest=serving.base.base.content_sha256,
        device=config.device,
        horizon=config.horizon,
        paths=config.paths,
        seed=config.seed,
        recalibrated=config.recalibrated,
        with_base=config.with_base,
        max_stale_sessions=config.max_stale_sessions,
        as_of=config.as_of,
        now=now,
    )
    began = partial.began()
    if began is None or began.facts != plan.facts():
        began = Began(facts=plan.facts(), chunk=chunk_size(reader.longest, free=free_bytes()), now=now)
        partial.begin(began)
    return began, plan.at(began.now)


def _finished(out: Path, plan: Plan) -> dict[str, Any] | None:
    """What the file says about itself, if it is of this plan; any other file there is replaced."""
    if not out.exists():
        return None
    try:
        about = read_about(out)
    except ForecastFileError:
        return None
    return about if about.get("facts") == plan.facts() else None


def _compute(
    partial: Partial,
    began: Began,
    reader: SymbolReader,
    plan: Plan,
    serving: ServedModel,
    config: ForecastAllConfig,
    console: Console,
) -> dict[str, Any]:
    """Forecast the chunks that are missing, write the file, and return what it says about itself."""
    tradable = reader.symbols.loc[reader.symbols["tradable"], "symbol"].tolist()
    chunks = [tradable[start : start + began.chunk] for start in range(0, len(tradable), began.chunk)]
    left = [number for number in range(len(chunks)) if not partial.has(number)]
    todo = {number: chunks[number] for number in left}
    if config.engine == "ray":
        work = ray_engine.forecast_chunks(plan, partial, todo)
    else:
        work = _forecast_here(ChunkForecaster(plan, serving), partial, todo)
    with follow("forecast-all", unit="symbols", total=len(tradable), on=console) as progress:
        progress.begin(len(tradable) - sum(len(chunks[number]) for number in left))
        for number in work:
            progress.advance(len(chunks[number]))
    failed = partial.failed(len(chunks))
    if len(failed) == len(tradable):
        shown = "; ".join(f"{symbol}: {reason}" for symbol, reason in list(failed.items())[:3])
        raise NothingForecastError(
            f"none of the {len(tradable)} tradable symbols of {reader.name} could be forecast: {shown}"
        )
    about = {
        "facts": plan.facts(),
        "version": serving.version,
        "data": reader.name,
        "symbols": len(tradable),
        "failed": failed,
    }
    partial.finish(config.out, len(chunks), about)
    return about


def _forecast_here(
    forecaster: ChunkForecaster, partial: Partial, chunks: Mapping[int, Sequence[str]]
) -> Iterator[int]:
    for number, symbols in chunks.items():
        partial.put(number, forecaster(symbols))
        yield number


def _report(summary: Summary, console: Console) -> None:
    done = summary.symbols - len(summary.failed)
    console.print(f"{done} of {summary.symbols} symbols", highlight=False)
    if summary.unsent:
        say(f"not in the database: {summary.unsent}", on=console)
    for symbol, reason in summary.failed.items():
        say(f"left out {symbol}: {reason}", on=console)
