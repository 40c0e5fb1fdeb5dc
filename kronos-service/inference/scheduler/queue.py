"""The bounded queue before the one inference thread: who is admitted, what runs together, what is dropped.

- A request is admitted or rejected at once, by the number that waits and by the estimated time they take:
  a client told early can try another replica, one told at its deadline cannot.
- The oldest job leads each batch; later ones of the same model and settings join it (`choose_batch`).
- A job keeps the model it was admitted with. Every admitted job gets an answer, also while shutting down.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from kronos_service.inference.errors import DeadlineExceeded, NotReady, Overloaded
from kronos_service.inference.metrics import Metrics
from kronos_service.inference.scheduler.batch import choose_batch
from kronos_service.inference.scheduler.work import Cost, ForecastJob, cost_of, run_batch
from kronos_service.model.generation.generate import Generated

MARGIN: Final = 1.5
"""Estimated times are multiplied by this, so that what is admitted meets its deadline: the estimate is off by
up to this factor (`tests/benchmarks/test_benchmark_costs.py`).
"""
MEMORY: Final = 0.2
"""Weight of the latest batch in the running mean of seconds per cost."""
SHUTTING_DOWN: Final = "the service is shutting down: ask another replica"

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, eq=False)
class Ticket:
    """A place in the queue for a request that is being prepared."""

    cost: Cost
    expires_at: float
    preparation: float = 0.0
    """Seconds that preparing it takes."""
    owner: str = ""
    """Name of the key that asks."""


class ForecastQueue:
    """Runs jobs in batches, in a thread of its own; every method may be called from any thread."""

    def __init__(
        self,
        *,
        size: int,
        batch_rows: int,
        window_seconds: float,
        metrics: Metrics,
        run: Callable[[Sequence[ForecastJob]], list[Generated]] = run_batch,
    ) -> None:
        self._size, self._batch_rows, self._window = size, batch_rows, window_seconds
        self._metrics, self._run_batch = metrics, run
        self._tickets: set[Ticket] = set()
        self._waiting: deque[ForecastJob] = deque()
        self._running: Sequence[ForecastJob] = ()
        self._running_since = 0.0
        self._seconds_per_cost = self._mean_seconds_per_cost = 0.0
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)

    def start(self) -> None:
        """Start the inference thread."""
        self._thread.start()

    def check_room(self) -> None:
        """Raise as `admit` does while the queue is full or closed, whatever is asked for."""
        with self._changed:
            self._check_room()

    def admit(
        self,
        cost: Cost,
        expires_at: float,
        *,
        preparation: float = 0.0,
        owner: str = "",
        places: int | None = None,
    ) -> Ticket:
        """A place in the queue, taken before the request is prepared; end it with `submit` or `give_up`.

        Args:
            preparation: seconds that preparing it is expected to take.
            owner: name of the key that asks.
            places: the most that this key may hold; None: all.

        Raises:
            NotReady: the service is shutting down.
            Overloaded: the queue is full, or too long for the deadline; says when to try again.
        """
        ticket = Ticket(cost=cost, expires_at=expires_at, preparation=preparation, owner=owner)
        with self._changed:
            self._check_share(owner, places)
            self._check(ticket)
            self._tickets.add(ticket)
        return ticket

    def submit(self, ticket: Ticket, job: ForecastJob) -> None:
        """Put the job in the ticket's place; its future gets the outcome, or DeadlineExceeded."""
        with self._changed:
            self._tickets.remove(ticket)
            self._waiting.append(job)
            self._changed.notify_all()

    def give_up(self, ticket: Ticket) -> None:
        """Free the ticket's place, if nothing was submitted for it."""
        with self._changed:
            self._tickets.discard(ticket)
            self._changed.notify_all()

    def withdraw(self, job: ForecastJob) -> None:
        """Compute nothing more for a submitted job: its client has gone."""
        job.gone.set()
        with self._changed, suppress(ValueError):
            self._waiting.remove(job)

    @property
    def depth(self) -> int:
        """Admitted requests that wait."""
        return len(self._waiting) + len(self._tickets)

    @property
    def has_estimate(self) -> bool:
        """Whether waiting times can be estimated."""
        return self._seconds_per_cost > 0

    def expect(self, seconds_per_cost: float) -> None:
        """Estimate waiting times by this until batches have been measured."""
        self._seconds_per_cost = self._mean_seconds_per_cost = seconds_per_cost

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running) or self.depth > 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing is admitted any more."""
        return self._is_closed

    def close(self) -> None:
        """Admit nothing more; what was admitted is finished."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """After `close`: wait until everything admitted has its answer; False where that takes longer."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _check_room(self) -> None:
        if self._is_closed:
            raise NotReady(SHUTTING_DOWN)
        if self.depth >= self._size:
            self._metrics.rejections.labels("queue_full").inc()
            message = f"{self._size} requests are waiting already: try later"
            raise Overloaded(message, retry_after=_whole(self._seconds_until_done()))

    def _check_share(self, owner: str, places: int | None) -> None:
        held = sum(one.owner == owner for one in self._tickets) + sum(
            job.owner == owner for job in self._waiting
        )
        if places is not None and held >= places:
            self._metrics.rejections.labels("key_share").inc()
            message = f"{held} requests of your key are waiting already, as many as it may have: try later"
            raise Overloaded(message, retry_after=_whole(self._seconds_until_done()))

    def _check(self, ticket: Ticket) -> None:
        self._check_room()
        # An idle service always tries: one slow batch would otherwise raise the estimate above every
        # deadline, and no later batch could lower it again.
        needed = MARGIN * self._seconds_until_done(ticket)
        if self.is_busy and time.monotonic() + needed > ticket.expires_at:
            self._metrics.rejections.labels("deadline").inc()
            message = f"the answer would take about {needed:.1f} s, longer than the deadline: try later"
            raise Overloaded(message, retry_after=_whole(self._seconds_until_done()))

    def _seconds_until_done(self, *more: Ticket) -> float:
        """How long the admitted requests will take, and more after them."""
        running = cost_of(job.cost for job in self._running if job.is_wanted()) * self._seconds_per_cost
        done = time.monotonic() - self._running_since
        tickets = [*self._tickets, *more]
        waiting = [job.cost for job in self._waiting] + [ticket.cost for ticket in tickets]
        # only a large request counts here, and those are prepared one after another
        preparing = 0.0
        if any(ticket.preparation for ticket in more):
            preparing = sum(ticket.preparation for ticket in tickets)
        return max(0.0, running - done) + max(preparing, cost_of(waiting) * self._seconds_per_cost)

    def _loop(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._metrics.batch_size.observe(len(batch))
            self._answer(batch)
            took = time.monotonic() - started
            self._metrics.forecast_seconds.observe(took)
            with self._changed:
                self._running = ()
                if not all(job.is_wanted() for job in batch):
                    continue  # what was dropped half way would make the pace look faster
                latest = took / cost_of(job.cost for job in batch)
                mean = self._mean_seconds_per_cost or latest
                self._mean_seconds_per_cost = (1 - MEMORY) * mean + MEMORY * latest
                # A slower batch counts in full at once: admitting too much breaks deadlines, too little only
                # sends a client elsewhere.
                self._seconds_per_cost = max(self._mean_seconds_per_cost, latest)

    def _next_batch(self) -> list[ForecastJob]:
        """The next jobs to run together; empty when the queue is closed and nothing is left."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or (self._is_closed and not self._tickets))
                if not self._waiting:
                    return []
                self._wait_for_batch_mates()
                batch = self._take()
                if batch:
                    self._running, self._running_since = batch, time.monotonic()
                    return batch

    def _wait_for_batch_mates(self) -> None:
        """Give later requests the window to join, unless the batch is full or the queue is closing."""

        def is_full() -> bool:
            return self._is_closed or sum(job.cost.rows for job in self._waiting) >= self._batch_rows

        if self._window:
            self._changed.wait_for(is_full, timeout=self._window)

    def _take(self) -> list[ForecastJob]:
        choice = choose_batch(
            self._waiting,
            most_rows=self._batch_rows,
            seconds_per_cost=MARGIN * self._seconds_per_cost,
            now=time.monotonic(),
        )
        self._waiting = deque(choice.rest)
        for job in choice.expired:
            self._drop(job)
        # false for a job whose client has gone: its future was cancelled, and nobody reads the answer
        return [job for job in choice.batch if job.future.set_running_or_notify_cancel()]

    def _drop(self, job: ForecastJob) -> None:
        self._metrics.rejections.labels("expired").inc()
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(
                DeadlineExceeded("the deadline passed while the request waited: nothing was computed")
            )

    def _answer(self, batch: Sequence[ForecastJob]) -> None:
        """Give every job of the batch its part; if the batch fails, each is tried alone."""
        try:
            parts = self._run_batch(batch)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._answer([job])
                return
            _log.exception("forecast_failed")
            batch[0].future.set_exception(error)
            return
        for job, part in zip(batch, parts, strict=True):
            if time.monotonic() > job.expires_at:
                self._metrics.late.inc()
            job.future.set_result(part)


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
