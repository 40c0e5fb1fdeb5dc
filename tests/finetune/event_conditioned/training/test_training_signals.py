"""A signal asks a training to stop; the second one, and any after the block, does what it did before."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from accelerate import PartialState

from kronos_service.finetune.event_conditioned.training.signals import SIGNALS, Stop, stop_on_signals


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """The signals that reach the handlers of whoever called."""
    found: list[int] = []
    before = {number: signal.signal(number, lambda number, _: found.append(number)) for number in SIGNALS}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_the_second_is_as_usual(
    caught: list[int], number: signal.Signals
) -> None:
    with stop_on_signals() as stop:
        assert not stop.asked_anywhere()
        send(number)
        assert stop.asked_anywhere()
        assert (stop.signal, caught) == (number, [])
        send(number)
    assert caught == [number]
    send(number)
    assert caught == [number, number]


@pytest.mark.parametrize("number", SIGNALS)
def test_after_the_block_a_signal_is_as_before_it(caught: list[int], number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        pass
    send(number)
    assert (stop.signal, caught) == (None, [number])


def test_with_several_processes_every_signal_is_a_request(caught: list[int]) -> None:
    state = PartialState()
    before = state.num_processes
    try:
        state.num_processes = 2
        with stop_on_signals() as stop:
            send(signal.SIGINT)
            send(signal.SIGTERM)
    finally:
        state.num_processes = before
    assert (stop.signal, caught) == (signal.SIGTERM, [])


def test_another_thread_than_the_main_one_is_never_asked_and_changes_no_handler(caught: list[int]) -> None:
    asked: list[bool] = []

    def work() -> None:
        with stop_on_signals() as stop:
            send(signal.SIGTERM)
            asked.append(stop.asked_anywhere())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (asked, caught) == ([False], [signal.SIGTERM])


@pytest.mark.parametrize(
    ("own", "name", "code"),
    [(signal.SIGINT, "SIGINT", 130), (signal.SIGTERM, "SIGTERM", 143), (None, "SIGTERM", 143)],
)
def test_a_stop_says_where_and_exits_as_a_shell_does_also_where_another_process_was_asked(
    own: signal.Signals | None, name: str, code: int
) -> None:
    stopped = Stop(signal=own).stopped(3, 9)
    assert str(stopped) == f"stopped by {name} after step 3 of 9; a checkpoint is written"
    assert stopped.exit_code == code
    assert str(Stop(signal=own).stopped(0, 9)) == f"stopped by {name} before the first step"
