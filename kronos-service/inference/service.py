"""The service behind the routes: it owns loader, market refresher and queue, and answers forecasts."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from kronos_service.inference.errors import NotReady
from kronos_service.inference.market.market import Market
from kronos_service.inference.market.readers import taxonomy_of_source
from kronos_service.inference.market.refresher import MarketRefresher
from kronos_service.inference.metrics import Metrics, StateCollector
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import check_limits, inline_rows, prepare
from kronos_service.inference.requests.response import respond
from kronos_service.inference.scheduler.preparation import Preparation
from kronos_service.inference.scheduler.queue import SHUTTING_DOWN, ForecastQueue
from kronos_service.inference.scheduler.shares import Shares
from kronos_service.inference.scheduler.work import BatchKey, Cost, ForecastJob, warm_up
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.served_log.writer import Served, ServedLog
from kronos_service.inference.settings import Settings
from kronos_service.model.adapter.hub import hub_store
from kronos_service.model.factory import BaseChoice
from kronos_service.model.generation.generate import ROWS_PER_PASS
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_location import HubName

RETRY_SECONDS: Final = 5


class Service:
    """Everything that lives as long as the app."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime]) -> None:
        if isinstance(settings.adapters, HubName):
            store = hub_store(settings.adapters, settings.state_dir / "hub")
            settings = settings.model_copy(update={"adapters": store})
        self.settings, self.clock = settings, clock
        self.metrics = Metrics()
        self.taxonomy = taxonomy_of_source(settings)
        self.loader = AdapterLoader(
            settings.adapters,
            state=settings.state_dir,
            base=_base_choice(settings),
            allow_base_only=settings.allow_base_only,
            device=settings.device,
            precision=settings.precision,
            taxonomy=self.taxonomy,
            poll_seconds=settings.poll_seconds,
            warm_up=self._warm_up,
        )
        self.refresher = MarketRefresher(settings, clock=clock, taxonomy=self.taxonomy)
        self.queue = ForecastQueue(
            size=settings.queue_size,
            batch_rows=ROWS_PER_PASS,
            window_seconds=settings.batch_window_ms / 1000,
            metrics=self.metrics,
        )
        self.metrics.queue_depth.set_function(lambda: self.queue.depth)
        self.metrics.registry.register(
            StateCollector(self.loader.status, self.refresher.status, clock, most_stale=settings.stale_after)
        )
        self.log = _log_of(settings, self.refresher.current, clock, self.metrics)
        self.preparation = Preparation()
        self.shares = Shares(settings.key_limits, places=settings.queue_size, metrics=self.metrics)

    def start(self) -> None:
        """Load the model and read the source in the background; until both are there it is not ready."""
        self.queue.start()
        if self.log is not None:
            self.log.start()
        self.refresher.start()
        self.loader.start()

    def stop(self) -> None:
        """Finish what was admitted, then end every thread."""
        self.queue.close()
        self.queue.join()
        self.loader.stop()
        self.refresher.stop()
        if self.log is not None:
            self.log.stop()

    def lacks(self) -> str | None:
        """What is missing for a forecast, for anybody to read: no paths, no versions; None if nothing is."""
        if self.queue.is_closed:
            return SHUTTING_DOWN
        if self.loader.current() is None:
            return "no model: GET /v1/model says why"
        if self.refresher.current() is None:
            return "no market data: GET /v1/model says why"
        return None

    def not_ready_because(self) -> str | None:
        """Why nothing can be forecast now, or None."""
        if self.queue.is_closed:
            return SHUTTING_DOWN
        if self.loader.current() is None:
            return f"no model: {self.loader.status().reason or 'it is being loaded'}"
        if self.refresher.current() is None:
            return f"no market data: {self.refresher.status().error or 'the source is being read'}"
        return None

    def check_open(self, caller: str) -> None:
        """Raise NotReady or Overloaded while nothing of this key can be admitted, whatever the body says."""
        self._ready()
        self.shares.check(caller)
        self.queue.check_room()

    async def forecast(
        self, request: ForecastRequest, *, caller: str, request_id: str, arrived: float
    ) -> bytes:
        """The JSON of a ForecastResponse.

        Args:
            caller: name of the key that asks.
            arrived: on the monotonic clock; the deadline counts from it.

        Raises:
            ServiceError: the request cannot be answered (see its subclasses).
        """
        serving, market = self._ready()
        if request.model == "base":
            serving = serving.without_adapter
        check_limits(request, self.settings)
        sampling = Sampling(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
        key = BatchKey(horizon=request.horizon, paths=request.paths, sampling=sampling)
        series = len(request.series)
        # the most it can cost: how many bars there are is known only once it is prepared
        cost = Cost(serving=serving, key=key, bars=serving.context * series, series=series)
        seconds = (request.deadline_ms or self.settings.default_deadline_ms) / 1000
        rows = inline_rows(request)
        self.shares.take(caller)
        ticket = self.queue.admit(
            cost,
            arrived + seconds,
            preparation=self.preparation.seconds(rows),
            owner=caller,
            places=self.shares.places(caller),
        )
        try:
            prepared = await self.preparation.prepare(
                partial(
                    prepare,
                    request,
                    serving,
                    market,
                    now=self.clock(),
                    max_bars=self.settings.max_bars,
                    max_stale_sessions=self.settings.max_stale_sessions,
                ),
                rows=rows,
                expires_at=ticket.expires_at,
            )
            job = ForecastJob(
                serving=serving,
                key=key,
                histories=[one.prepared.history for one in prepared],
                expires_at=ticket.expires_at,
                owner=caller,
            )
            self.queue.submit(ticket, job)
        finally:
            self.queue.give_up(ticket)
        try:
            generated = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self.queue.withdraw(job)
            raise
        now = self.clock()
        if self.log is not None:
            self.log.add(
                Served(request=request, series=prepared, generated=generated, serving=serving, now=now)
            )
        response = partial(
            respond,
            request,
            prepared,
            generated,
            serving=serving,
            leader_dates=market.leader_dates,
            request_id=request_id,
            now=now,
            stale_after=self.settings.stale_after,
        )
        return await self.preparation.run(lambda: response().model_dump_json().encode())

    def _warm_up(self, serving: ServedModel) -> None:
        warm_up(serving)
        if not self.queue.has_estimate:
            self.queue.expect(warm_up(serving))  # the first one also packed the weights

    def _ready(self) -> tuple[ServedModel, Market]:
        serving, market = self.loader.current(), self.refresher.current()
        reason = self.not_ready_because()
        if reason is not None or serving is None or market is None:
            self.metrics.rejections.labels("not_ready").inc()
            raise NotReady(reason or "starting", retry_after=RETRY_SECONDS)
        return serving, market


def _log_of(
    settings: Settings, market: Callable[[], Market | None], clock: Callable[[], datetime], metrics: Metrics
) -> ServedLog | None:
    if settings.served_log is None:
        return None
    return ServedLog(
        settings.served_log,
        keep_days=settings.served_log_days,
        market=market,
        clock=clock,
        registry=metrics.registry,
    )


def _base_choice(settings: Settings) -> BaseChoice | None:
    if settings.base_model is None:
        return None
    return BaseChoice(
        model=settings.base_model,
        tokenizer=settings.tokenizer,
        revision=settings.base_revision,
        tokenizer_revision=settings.tokenizer_revision,
    )
