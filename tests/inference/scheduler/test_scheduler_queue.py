"""The queue: what joins, what is turned away and how fast, what is dropped, and that nothing is lost."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from kronos_service.inference.errors import DeadlineExceeded, NotReady, Overloaded
from kronos_service.inference.metrics import Metrics
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.scheduler.queue import MARGIN, ForecastQueue
from kronos_service.inference.scheduler.work import BatchKey, ForecastJob, cost_of, run_batch
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.generate import Generated, History
from kronos_service.model.generation.sampling import Sampling

KEY = BatchKey(horizon=2, paths=3, sampling=Sampling())


class Gate:
    """Runs batches with the real model, one for each time it is opened, and notes them."""

    def __init__(self) -> None:
        self.batches: list[list[ForecastJob]] = []
        self.permits = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def __call__(self, batch: Sequence[ForecastJob]) -> list[Generated]:
        self.entered.release()
        assert self.permits.acquire(timeout=20)
        self.batches.append(list(batch))
        return run_batch(batch)

    def open(self, times: int = 1) -> None:
        self.permits.release(times)


@pytest.fixture
def serving(bundle: Bundle) -> ServedModel:
    return ServedModel(
        base=bundle,
        model=bundle.model,
        version=None,
        generation=None,
        digest=None,
        manifest=None,
        loaded_at=datetime.now(UTC),
    )


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def queue_of(gate: Gate) -> Iterator[Callable[..., ForecastQueue]]:
    """A started queue; at the end it is drained."""
    made: list[ForecastQueue] = []

    def make(**changes: Any) -> ForecastQueue:
        usual: dict[str, Any] = {
            "size": 4,
            "batch_rows": 32,
            "window_seconds": 0.0,
            "metrics": Metrics(),
            "run": gate,
        }
        queue = ForecastQueue(**(usual | changes))
        queue.start()
        made.append(queue)
        return queue

    yield make
    for queue in made:
        queue.close()
    gate.open(100)
    assert all(queue.join(20) for queue in made)


def work(serving: ServedModel, *, seed: int = 0, seconds: float = 60.0, **changes: Any) -> ForecastJob:
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(20, 5, dtype=torch.int64)
    history = History(
        x=torch.randn(20, 6, generator=generator),
        stamps=ones,
        future_stamps=ones[:2],
        events=None,
        seed=seed,
    )
    usual: dict[str, Any] = {
        "serving": serving,
        "key": KEY,
        "histories": [history],
        "expires_at": time.monotonic() + seconds,
    }
    return ForecastJob(**(usual | changes))


def put(queue: ForecastQueue, one: ForecastJob) -> ForecastJob:
    queue.submit(queue.admit(one.cost, one.expires_at), one)
    return one


def occupy(queue: ForecastQueue, gate: Gate, serving: ServedModel) -> ForecastJob:
    """Let the one inference thread be busy until the gate is opened."""
    first = put(queue, work(serving))
    assert gate.entered.acquire(timeout=20)
    return first


def kinds(count: int) -> list[BatchKey]:
    """Equally dear, and none joins another."""
    return [replace(KEY, sampling=Sampling(temperature=0.5 + i / 10)) for i in range(count)]


def test_its_thread_bears_a_name_and_keeps_no_process_alive(queue_of: Callable[..., ForecastQueue]) -> None:
    before = set(threading.enumerate())
    queue_of()
    (thread,) = set(threading.enumerate()) - before
    assert (thread.name, thread.daemon) == ("inference", True)


def test_what_waited_together_runs_together_and_each_gets_its_own_part(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    occupy(queue, gate, serving)
    others = [put(queue, work(serving, seed=seed)) for seed in (1, 2, 3)]
    gate.open(2)
    for one in others:
        together = one.future.result(20)
        (alone,) = run_batch([one])
        assert torch.equal(together.bars, alone.bars)
        assert together.bars_used == (20,)
    assert gate.batches[1] == others


def test_requests_without_a_name_share_their_places(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    occupy(queue, gate, serving)
    waiting = put(queue, work(serving))
    with pytest.raises(Overloaded, match="1 requests of your key are waiting already"):
        queue.admit(waiting.cost, waiting.expires_at, places=1)
    queue.give_up(queue.admit(waiting.cost, waiting.expires_at, owner="alice", places=1))


def test_only_the_same_model_and_settings_join(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=10)
    occupy(queue, gate, serving)
    twin = replace(serving)
    lead = put(queue, work(serving, seed=1))
    on_twin = put(queue, work(twin, seed=1))
    hotter = put(queue, work(serving, key=replace(KEY, sampling=Sampling(temperature=0.5))))
    more_paths = put(queue, work(serving, key=replace(KEY, paths=4)))
    same = put(queue, work(serving, seed=2))
    gate.open(5)
    wait_for([one.future for one in (lead, on_twin, hotter, more_paths, same)], timeout=20)
    assert gate.batches[1:] == [[lead, same], [on_twin], [hotter], [more_paths]]


def test_a_batch_holds_no_more_rows_than_allowed(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=10, batch_rows=16)
    occupy(queue, gate, serving)
    others = [put(queue, work(serving, seed=seed)) for seed in range(5)]
    gate.open(4)
    wait_for([one.future for one in others], timeout=20)
    assert [len(batch) for batch in gate.batches] == [1, 2, 2, 1]


def test_an_idle_queue_waits_for_company_only_as_long_as_its_window(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(window_seconds=60.0, batch_rows=16)
    gate.open(1)
    both = [put(queue, work(serving, seed=seed)) for seed in (1, 2)]
    started = time.monotonic()
    assert len([one.future.result(20) for one in both]) == 2
    assert time.monotonic() - started < 30  # full before the window had passed
    assert gate.batches == [both]


def test_beyond_its_size_the_queue_turns_away(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=4)
    occupy(queue, gate, serving)
    for seed in range(3):
        put(queue, work(serving, seed=seed))
    ticket = queue.admit(
        work(serving).cost, time.monotonic() + 60
    )  # a request that is being prepared takes a place too
    with pytest.raises(Overloaded, match="4 requests are waiting already") as caught:
        queue.admit(work(serving).cost, time.monotonic() + 60)
    assert caught.value.retry_after == 1
    assert caught.value.status == 429
    queue.give_up(ticket)


def test_a_place_that_is_given_up_is_free_again(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=1)
    occupy(queue, gate, serving)
    ticket = queue.admit(work(serving).cost, time.monotonic() + 60)
    with pytest.raises(Overloaded):
        queue.admit(work(serving).cost, time.monotonic() + 60)
    queue.give_up(ticket)
    queue.give_up(queue.admit(work(serving).cost, time.monotonic() + 60))


def test_a_deadline_that_the_measured_pace_cannot_meet_is_refused_with_the_wait(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    metrics = Metrics()
    queue = queue_of(size=10, metrics=metrics)
    started = time.monotonic()
    paced = occupy(queue, gate, serving)
    time.sleep(0.3)
    gate.open()
    paced.future.result(20)
    took = time.monotonic() - started
    busy = occupy(queue, gate, serving)
    queued = [put(queue, work(serving, key=one)) for one in kinds(8)]
    # nine works of 0.3 s or a little more each are ahead, no two of a kind
    with pytest.raises(Overloaded, match="longer than the deadline") as caught:
        queue.admit(busy.cost, time.monotonic() + 1.5)
    assert caught.value.retry_after is not None
    assert 9 * 0.3 <= caught.value.retry_after <= 9 * took + 1
    assert metrics.registry.get_sample_value("kronos_rejections_total", {"reason": "deadline"}) == 1
    queue.give_up(queue.admit(busy.cost, time.monotonic() + 30))
    assert queue.depth == len(queued)


def test_those_who_wait_to_run_together_are_not_estimated_as_if_alone(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=20)
    one = work(serving)
    queue.expect(30.0 / cost_of([one.cost]))
    occupy(queue, gate, serving)
    for _ in range(5):
        put(queue, work(serving, seconds=600))
    demands = [one.cost] * 6
    needed = MARGIN * 30.0 * (1.0 + cost_of(demands) / cost_of(demands[:1]))
    assert needed < 0.8 * MARGIN * 30.0 * 7
    with pytest.raises(Overloaded, match="longer than the deadline"):
        queue.admit(one.cost, time.monotonic() + 0.8 * needed)
    queue.give_up(queue.admit(one.cost, time.monotonic() + needed))


def test_before_any_batch_the_pace_that_was_expected_counts(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    known = [queue.has_estimate]
    one = work(serving)
    queue.expect(30.0 / cost_of([one.cost]))
    assert [*known, queue.has_estimate] == [False, True]
    occupy(queue, gate, serving)
    with pytest.raises(Overloaded, match="longer than the deadline"):
        queue.admit(one.cost, time.monotonic() + 60.0)
    queue.give_up(queue.admit(one.cost, time.monotonic() + 90.0))


def test_an_idle_queue_tries_whatever_it_measured(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    one = work(serving, seconds=30)
    queue.expect(40.0 / cost_of([one.cost]))
    gate.open()
    assert put(queue, one).future.result(20).bars_used == (20,)


def test_work_whose_deadline_passes_while_it_waits_is_dropped_unrun(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    occupy(queue, gate, serving)
    late, patient = put(queue, work(serving, seconds=0.05)), put(queue, work(serving, seed=1))
    time.sleep(0.1)
    gate.open(2)
    with pytest.raises(DeadlineExceeded):
        late.future.result(20)
    patient.future.result(20)
    assert gate.batches[1] == [patient]


def test_a_work_that_fails_takes_no_other_with_it(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of()
    occupy(queue, gate, serving)
    good = put(queue, work(serving, seed=1))
    broken_history = replace(good.histories[0], x=torch.full((20, 6), float("nan")))
    broken = put(queue, work(serving, histories=[broken_history]))
    other = put(queue, work(serving, seed=2))
    gate.open(10)
    assert good.future.result(20).bars.isfinite().all()
    assert other.future.result(20).bars.isfinite().all()
    with pytest.raises(ValueError, match="finite"):
        broken.future.result(20)


def test_after_close_nothing_is_admitted_and_everything_admitted_is_answered(
    queue_of: Callable[..., ForecastQueue], gate: Gate, serving: ServedModel
) -> None:
    queue = queue_of(size=10)
    occupy(queue, gate, serving)
    others = [put(queue, work(serving, seed=seed, key=replace(KEY, paths=seed))) for seed in (1, 2, 3)]
    prepared = work(serving, seed=4)
    ticket = queue.admit(prepared.cost, prepared.expires_at)
    queue.close()
    with pytest.raises(NotReady, match="shutting down"):
        queue.admit(work(serving).cost, time.monotonic() + 60)
    gate.open(10)
    assert not queue.join(0.2)  # one that was admitted is still being prepared
    queue.submit(ticket, prepared)
    assert queue.join(20)
    assert all(one.future.done() for one in (*others, prepared))


def test_many_clients_at_once_each_get_their_own_answer(serving: ServedModel) -> None:
    queue = ForecastQueue(size=200, batch_rows=32, window_seconds=0.001, metrics=Metrics())
    queue.start()
    expected = {seed: run_batch([work(serving, seed=seed)])[0].bars for seed in range(6)}
    with ThreadPoolExecutor(16) as pool:
        got = list(
            pool.map(
                lambda seed: (seed, put(queue, work(serving, seed=seed)).future.result(60).bars),
                [seed % 6 for seed in range(48)],
            )
        )
    queue.close()
    assert queue.join(20)
    assert all(torch.equal(bars, expected[seed]) for seed, bars in got)


def test_a_request_whose_client_has_gone_frees_its_place_and_is_never_run(
    queue_of: Callable[..., ForecastQueue], serving: ServedModel, gate: Gate
) -> None:
    queue = queue_of(size=1)
    put(queue, work(serving))
    assert gate.entered.acquire(timeout=20)
    waiting = put(queue, work(serving, seed=1))
    with pytest.raises(Overloaded):
        queue.admit(work(serving).cost, time.monotonic() + 60)
    waiting.future.cancel()
    queue.withdraw(waiting)
    assert queue.depth == 0
    last = put(queue, work(serving, seed=2))
    gate.open(2)
    assert last.future.result(timeout=20)
    assert [job for batch in gate.batches for job in batch if job is waiting] == []


def test_a_running_request_whose_client_has_gone_holds_nobody_up_and_teaches_no_pace(
    queue_of: Callable[..., ForecastQueue], serving: ServedModel, gate: Gate
) -> None:
    queue = queue_of()
    queue.expect(1e3)
    running = put(queue, work(serving))
    assert gate.entered.acquire(timeout=20)
    with pytest.raises(Overloaded):
        queue.admit(work(serving).cost, time.monotonic() + 60)
    queue.withdraw(running)
    assert queue._seconds_until_done() == 0
    queue.expect(1e-3)
    queue.give_up(queue.admit(work(serving).cost, time.monotonic() + 60))
    pace = queue._seconds_per_cost
    gate.open()
    part = running.future.result(timeout=20)
    assert (part.bars == 0).all()
    assert queue._seconds_per_cost == pace


def test_what_preparing_takes_counts_against_the_deadline(
    queue_of: Callable[..., ForecastQueue], serving: ServedModel
) -> None:
    queue = queue_of()
    queue.expect(1e-6)
    cost = work(serving).cost
    first = queue.admit(cost, time.monotonic() + 60, preparation=5.0)
    with pytest.raises(Overloaded, match="about 15"):
        queue.admit(cost, time.monotonic() + 10, preparation=5.0)
    queue.give_up(queue.admit(cost, time.monotonic() + 10))  # small ones do not wait for it
    queue.give_up(first)


def test_one_key_holds_no_more_places_than_its_share(
    queue_of: Callable[..., ForecastQueue], serving: ServedModel, gate: Gate
) -> None:
    queue = queue_of(size=4)
    cost, later = work(serving).cost, time.monotonic() + 60
    tickets = [queue.admit(cost, later, owner="alice", places=2)]
    queue.submit(tickets.pop(), work(serving, owner="alice"))
    assert gate.entered.acquire(timeout=20)  # it runs, and waits no more
    tickets = [queue.admit(cost, later, owner="alice", places=2) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 requests of your key"):
        queue.admit(cost, later, owner="alice", places=2)
    tickets.append(queue.admit(cost, later, owner="bob", places=2))
    for ticket in tickets:
        queue.give_up(ticket)
