"""Forecasts of some symbols: what the service answers for each of them alone, to the bit.

Letters: N sample paths, H horizon in bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
from pydantic import ValidationError

from kronos_service.data.forecasts import SCHEMA
from kronos_service.data.snapshot.by_symbol import open_by_symbol
from kronos_service.events.taxonomy import require_same
from kronos_service.inference.market.market import Market, build_market, usable_bars
from kronos_service.inference.models.served_model import ServedModel, base_alone
from kronos_service.inference.nightly.plan import Plan
from kronos_service.inference.requests.prepare import PreparedSeries, prepare
from kronos_service.inference.requests.rows import forecast_rows
from kronos_service.inference.scheduler.work import BatchKey, ForecastJob, run_batch
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.settings import Settings
from kronos_service.model.generation.inputs import to_prices
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.errors import KronosError

MAX_BARS: Final[int] = Settings.model_fields["max_bars"].default
"""As many bars as the service reads of a symbol where its operator has not said otherwise."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What came of some symbols."""

    rows: pa.Table
    """`SCHEMA`, in the order of the symbols."""
    failed: dict[str, str]
    """Symbol -> why it could not be forecast."""


class ChunkForecaster:
    """Holds the model and the market of a plan; each call depends on its symbols alone.

    A process that has only the plan makes one with `planned_model`.
    """

    def __init__(self, plan: Plan, serving: ServedModel) -> None:
        self._plan = plan
        with_adapter = serving.manifest is not None
        self._models = [serving, base_alone(serving.base)] if plan.with_base and with_adapter else [serving]
        self._reader = open_by_symbol(plan.tables)
        if with_adapter:
            require_same(serving.base.taxonomy, self._reader.taxonomy, f"snapshot {self._reader.name}")
        self._market = build_market(
            f"snapshot:{self._reader.name}",
            self._reader.symbols,
            self._reader.bars(self._reader.taxonomy.leaders),
            self._reader.calendar,
            now=plan.now,
            taxonomy=self._reader.taxonomy,
        )

    def __call__(self, symbols: Sequence[str]) -> Chunk:
        """The rows of these symbols, and why some have none."""
        bars, _ = usable_bars(self._reader.symbols, self._reader.bars(symbols), now=self._plan.now)
        market = replace(self._market, bars=bars)
        failed: dict[str, str] = {}
        tables = [self._forecast(model, market, symbols, failed) for model in self._models]
        # by symbol, then by model: the order must not depend on where a chunk ends
        by_symbol = zip(symbols, zip(*tables, strict=True), strict=True)
        rows = [table for symbol, part in by_symbol if symbol not in failed for table in part]
        return Chunk(rows=pa.concat_tables([SCHEMA.empty_table(), *rows]), failed=failed)

    def _forecast(
        self, serving: ServedModel, market: Market, symbols: Sequence[str], failed: dict[str, str]
    ) -> list[pa.Table]:
        """The rows of each symbol, in their order; none of those that failed."""
        left = [symbol for symbol in symbols if symbol not in failed]
        prepared = [self._prepare(serving, market, symbol, failed) for symbol in left]
        rows = self._generate(serving, [one for one in prepared if one is not None], failed)
        return [rows.get(symbol, SCHEMA.empty_table()) for symbol in symbols]

    def _prepare(
        self, serving: ServedModel, market: Market, symbol: str, failed: dict[str, str]
    ) -> PreparedSeries | None:
        plan = self._plan
        try:
            request = ForecastRequest.model_validate(
                {
                    "series": [{"symbol": symbol}],
                    "horizon": plan.horizon,
                    "paths": plan.paths,
                    "seed": plan.seed,
                    "recalibrated": plan.recalibrated,
                }
            )
            (prepared,) = prepare(
                request,
                serving,
                market,
                now=plan.now,
                max_bars=MAX_BARS,
                max_stale_sessions=plan.max_stale_sessions,
            )
        except ValidationError as error:
            failed[symbol] = f"not a name of a symbol: {error.errors()[0]['msg']}"
            return None
        except KronosError as error:
            failed[symbol] = _reason(error)
            return None
        return prepared

    def _generate(
        self, serving: ServedModel, series: Sequence[PreparedSeries], failed: dict[str, str]
    ) -> dict[str, pa.Table]:
        """The rows of these series, generated together; one by one where that fails."""
        if not series:
            return {}
        plan = self._plan
        key = BatchKey(horizon=plan.horizon, paths=plan.paths, sampling=Sampling())
        histories = [one.prepared.history for one in series]
        job = ForecastJob(serving=serving, key=key, histories=histories, expires_at=float("inf"))
        try:
            (generated,) = run_batch([job])
        except KronosError as error:
            if len(series) == 1:
                failed[series[0].symbol] = _reason(error)
                return {}
            alone = [self._generate(serving, [one], failed) for one in series]
            return {symbol: rows for part in alone for symbol, rows in part.items()}
        return {
            one.symbol: forecast_rows(
                one, to_prices(bars, one.prepared), serving=serving, seed=plan.seed, now=plan.now
            )
            for one, bars in zip(series, generated.bars, strict=True)
        }


def _reason(error: KronosError) -> str:
    """In one line, without the position in a request that nobody sent."""
    return " ".join(str(error).split()).removeprefix("series.0.symbol: ").replace("series 0: ", "")
