"""Shares of the work, and what two processes tell each other; whole runs of two are in the soak."""

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.finetune.event_conditioned.training import distributed
from kronos_service.finetune.event_conditioned.training.schedule import Schedule
from kronos_shared.errors import KronosError


def shares(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """What each of `count` processes would take."""
    state = PartialState()
    before = state.num_processes, state.process_index
    try:
        state.num_processes = count
        parts = []
        for state.process_index in range(count):
            parts.append(distributed.share(items))
        return parts
    finally:
        state.num_processes, state.process_index = before


@given(
    windows=st.integers(1, 60), batch_size=st.integers(1, 20), count=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_every_window_of_an_epoch_is_in_one_share_of_one_step(
    windows: int, batch_size: int, count: int, seed: int
) -> None:
    schedule = Schedule(windows=windows, batch_size=batch_size, epochs=2, seed=seed)
    seen: list[int] = []
    for step in range(schedule.steps_per_epoch):
        assert schedule.windows_before(step) == len(seen)
        parts = shares(schedule.batch(step), count)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen += [window for part in parts for window in part]
    assert sorted(seen) == list(range(windows))
    assert schedule.windows_before(schedule.steps) == 2 * windows


def test_epochs_have_their_own_order() -> None:
    schedule = Schedule(windows=50, batch_size=50, epochs=2, seed=0)
    assert schedule.batch(0) != schedule.batch(1)
    assert schedule.batch(0) == Schedule(windows=50, batch_size=50, epochs=9, seed=0).batch(0)
    assert schedule.batch(0) != Schedule(windows=50, batch_size=50, epochs=2, seed=1).batch(0)


def test_one_process_does_everything_itself() -> None:
    def fail() -> None:
        raise KronosError("as it is")

    assert distributed.on_main(lambda: 5) == 5
    assert distributed.gathered("a") == ["a"]
    assert distributed.sum_over_processes(1.5, 2.0) == [1.5, 2.0]
    distributed.require_same({"snapshot": "a"})
    with pytest.raises(KronosError, match="as it is"):
        distributed.on_main(fail)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def in_processes(work: Callable[[], object], count: int = 2, *, here: int = 0) -> list[Any]:
    """What the work returns in each process of a gloo group: process `here` is this one, and the others are
    forked, so that torch need not be imported. Of one that exits, the code.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environments = [
        {"WORLD_SIZE": str(count), "RANK": str(number), "LOCAL_RANK": str(number), **address}
        for number in range(count)
    ]
    running = {n: forked(work, environments[n]) for n in range(count) if n != here}
    outcomes: dict[int, Any] = {}
    try:
        outcomes[here] = in_group(work, environments[here])
    except SystemExit as error:
        outcomes[here] = error.code
    finally:
        for number, (child, reading) in running.items():
            with os.fdopen(reading, "rb") as pipe:
                told = pipe.read()
            _, status = os.waitpid(child, 0)
            outcomes[number] = pickle.loads(told) if told else os.waitstatus_to_exitcode(status)
    return [outcomes[number] for number in range(count)]


def in_group(work: Callable[[], object], environment: dict[str, str]) -> object:
    """What the work returns in a process that joins the group, and leaves it again."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(distributed, "PATIENCE", timedelta(minutes=1))  # a fault must not hang
        PartialState._reset_state()
        try:
            return work()
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            PartialState._reset_state()


def forked(work: Callable[[], object], environment: dict[str, str]) -> tuple[int, int]:
    """A process that does the work: its id, and a pipe from which its outcome can be read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 70
    try:
        os.write(writing, pickle.dumps(in_group(work, environment)))
        code = 0
    except SystemExit as error:
        code = int(str(error.code))
    finally:
        os._exit(code)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="forks after torch is imported")


@linux_only
def test_two_processes_share_sum_and_agree() -> None:
    def work() -> dict[str, Any]:
        number = distributed.process_number()
        gradients = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2)]
        if number == 1:  # the other one's share is empty
            gradients[0].grad = torch.full((2, 2), 3.0)
        distributed.sum_gradients(gradients)
        distributed.require_same({"snapshot": "a", "base": 1})
        return {
            "number": number,
            "share": distributed.share(range(5)),
            "sums": distributed.sum_over_processes(number + 1.0, 2.0**53 + 2 if number else 0.0),
            "gradients": [one.grad.tolist() for one in gradients if one.grad is not None],
            "gathered": distributed.gathered(f"from {number}"),
            "from main": distributed.on_main(lambda: f"by {number}"),
        }

    first, second = in_processes(work)
    assert (first.pop("number"), second.pop("number")) == (0, 1)
    assert (list(first.pop("share")), list(second.pop("share"))) == ([0, 2, 4], [1, 3])
    assert first == second
    assert first["sums"] == [3.0, 2.0**53 + 2]
    assert first["gradients"] == [[[3.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert first["gathered"] == ["from 0", "from 1"]
    assert first["from main"] == "by 0"


@linux_only
def test_what_differs_between_processes_is_named_in_both() -> None:
    def work() -> str:
        try:
            distributed.require_same({"base": "b", "snapshot": f"s{distributed.process_number()}"})
        except distributed.ProcessError as error:
            return str(error)
        return "the same"

    first, second = in_processes(work)
    assert first.startswith("snapshot is 's0' here but 's1' in process 1")
    assert second.startswith("snapshot is 's1' here but 's0' in process 0")


@linux_only
@pytest.mark.parametrize("here", [0, 1])
def test_a_mistake_in_the_main_process_is_told_once_and_ends_all(here: int) -> None:
    def work() -> str:
        def fail() -> None:
            raise KronosError("no such snapshot")

        try:
            distributed.on_main(fail)
        except KronosError as error:
            return str(error)
        return "nothing"

    assert in_processes(work, here=here) == ["no such snapshot", 2]


@linux_only
def test_a_process_that_is_gone_is_named_as_the_reason() -> None:
    def work() -> str:
        assert distributed.gathered("joined") == ["joined"] * 2
        if distributed.process_number() == 1:
            sys.exit(3)
        try:
            distributed.sum_over_processes(1.0)
        except distributed.ProcessError as error:
            return str(error)
        return "the sum"

    said, code = in_processes(work)
    assert said.startswith("lost the other processes of this run")
    assert code == 3


@linux_only
@pytest.mark.parametrize("here", [0, 1])
def test_one_process_of_a_machine_goes_first_and_the_others_find_what_it_made(
    tmp_path: Path, here: int
) -> None:
    made = tmp_path / "cache"

    def work() -> tuple[bool, bool]:
        with distributed.local_main_first():
            found = made.exists()
            if distributed.process_number() == 0:
                time.sleep(0.2)  # the other one, if it does not wait, is through by then
            made.touch()
        return found, made.exists()

    assert in_processes(work, here=here) == [(False, True), (True, True)]


def test_a_group_of_several_without_gpus_is_on_cpus_and_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Recorder:
        _shared_state: ClassVar[dict[str, object]] = {}

        def __init__(self, **given: object) -> None:
            asked.append(given)

    monkeypatch.setattr(distributed, "PartialState", Recorder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.group()
    monkeypatch.setenv("WORLD_SIZE", "2")
    distributed.group()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    distributed.group()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    distributed.group()
    monkeypatch.setattr(Recorder, "_shared_state", {"joined": True})
    distributed.group()
    waits = {"timeout": distributed.PATIENCE}
    on_cpu = [False, True, False, True]
    assert asked == [*({"cpu": cpu, **waits} for cpu in on_cpu), {}]
    assert timedelta(hours=1) <= distributed.PATIENCE
