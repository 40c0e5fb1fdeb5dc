"""The service behind the routes: it owns the loader, the feed and the queue, and answers forecasts."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import anyio

from kronos_service.inference.errors import NotReady
from kronos_service.inference.market.market import Market
from kronos_service.inference.market.refresher import MarketRefresher
from kronos_service.inference.metrics import Metrics, StateCollector
from kronos_service.inference.models.base_model import BaseChoice
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.limits import check_limits
from kronos_service.inference.requests.prepare import plan
from kronos_service.inference.requests.response import answer
from kronos_service.inference.scheduler.queue import SHUTTING_DOWN, ForecastQueue
from kronos_service.inference.scheduler.warm_up import warm_up
from kronos_service.inference.scheduler.work import BatchKey, Cost, ForecastJob, context_of
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.settings import Settings
from kronos_service.model.generation.generate import ROWS_PER_PASS
from kronos_service.model.generation.sampling import Sampling

Result = TypeVar("Result")

PLANNERS: Final = 4
"""Threads that prepare requests and write answers: more would only take turns on the interpreter."""
RETRY_SECONDS: Final = 5


class Service:
    """Everything that lives as long as the app."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime]) -> None:
        self.settings, self.clock = settings, clock
        self.metrics = Metrics()
        self.loader = AdapterLoader(
            settings.adapters,
            state=settings.state_dir,
            base=_base_choice(settings),
            allow_base_only=settings.allow_base_only,
            device=settings.device,
            poll_seconds=settings.poll_seconds,
            warm_up=self._warm_up,
        )
        self.feed = MarketRefresher(settings, clock=clock)
        self.queue = ForecastQueue(
            size=settings.queue_size,
            batch_rows=ROWS_PER_PASS,
            window_seconds=settings.batch_window_ms / 1000,
            metrics=self.metrics,
        )
        self.metrics.queue_depth.set_function(lambda: self.queue.depth)
        self.metrics.registry.register(
            StateCollector(self.loader.status, self.feed.status, lambda: clock().timestamp())
        )
        self._planners = anyio.CapacityLimiter(PLANNERS)

    def start(self) -> None:
        """Begin to load the model and to read the source, aside; until both are there it is not ready."""
        self.queue.start()
        self.feed.start()
        self.loader.start()

    def stop(self) -> None:
        """Finish what was admitted, then end every thread."""
        self.queue.close()
        self.queue.join()
        self.loader.stop()
        self.feed.stop()

    def not_ready_because(self) -> str | None:
        """Why nothing can be forecast now, or None."""
        if self.queue.is_closed:
            return SHUTTING_DOWN
        if self.loader.current() is None:
            return f"no model: {self.loader.status().reason or 'it is being loaded'}"
        if self.feed.current() is None:
            return f"no market data: {self.feed.status().error or 'the source is being read'}"
        return None

    def check_open(self) -> None:
        """Raise NotReady or Overloaded while nothing can be admitted, whatever the body says."""
        self._ready()
        self.queue.check_room()

    async def forecast(self, request: ForecastRequest, *, request_id: str, arrived: float) -> bytes:
        """The JSON of a ForecastResponse.

        Args:
            arrived: on the monotonic clock; the deadline counts from it.

        Raises:
            ServiceError: the request cannot be answered (see its subclasses).
        """
        serving, market = self._ready()
        check_limits(request, self.settings)
        ask = _ask_of(request)
        series = len(request.series)
        demand = Cost(serving=serving, ask=ask, bars=context_of(serving) * series, series=series)
        seconds = (request.deadline_ms or self.settings.default_deadline_ms) / 1000
        ticket = self.queue.admit(demand, arrived + seconds)
        try:
            planned = await self._aside(
                partial(plan, request, serving, market, now=self.clock(), max_bars=self.settings.max_bars)
            )
            work = ForecastJob(
                serving=serving,
                ask=ask,
                histories=[one.prepared.history for one in planned],
                expires_at=ticket.expires_at,
            )
            self.queue.submit(ticket, work)
        finally:
            self.queue.give_up(ticket)
        generated = await asyncio.wrap_future(work.future)
        return await self._aside(
            lambda: (
                answer(
                    request,
                    planned,
                    generated,
                    serving=serving,
                    leader_dates=market.leader_dates,
                    request_id=request_id,
                    now=self.clock(),
                )
                .model_dump_json()
                .encode()
            )
        )

    def _warm_up(self, serving: ServedModel) -> None:
        warm_up(serving)
        if not self.queue.knows_its_pace:
            self.queue.expect(warm_up(serving))  # the first one included what is done only once

    def _ready(self) -> tuple[ServedModel, Market]:
        serving, market = self.loader.current(), self.feed.current()
        reason = self.not_ready_because()
        if reason is not None or serving is None or market is None:
            self.metrics.rejections.labels("not_ready").inc()
            raise NotReady(reason or "starting", retry_after=RETRY_SECONDS)
        return serving, market

    async def _aside(self, work: Callable[[], Result]) -> Result:
        """Run off the event loop, a few at a time."""
        return await anyio.to_thread.run_sync(work, limiter=self._planners)


def _ask_of(request: ForecastRequest) -> BatchKey:
    sampling = Sampling(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
    return BatchKey(horizon=request.horizon, paths=request.paths, sampling=sampling)


def _base_choice(settings: Settings) -> BaseChoice | None:
    if settings.base_model is None:
        return None
    return BaseChoice(
        model=settings.base_model,
        tokenizer=settings.tokenizer,
        revision=settings.base_revision,
        tokenizer_revision=settings.tokenizer_revision,
    )
