"""Training in several processes: shares of the work, sums over processes, and one process that writes.

Each process holds all trained tensors (about a million numbers) and takes its share of every batch; gradients
are summed once per step, as one buffer. DistributedDataParallel would average over processes instead, and so
count targets differently where shares differ in size; here a share may even be empty, and a step is the same
whatever the number of processes. With one process every function is a plain call.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env, reduce
from torch import nn

from kronos_shared.errors import KronosError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, such as while the main one audits or forecasts; one that has died
is noticed at once.
"""


class ProcessError(KronosError):
    """The processes of a run cannot work together."""


def group() -> PartialState:
    """The processes of this run; joins them on the first call."""
    if PartialState._shared_state:
        return PartialState()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.cuda.is_available())
    return PartialState(cpu=on_cpu, timeout=PATIENCE)


def process_number() -> int:
    """This process's number; the main one is 0."""
    number: int = group().process_index
    return number


def share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, beginning with this process's number: together the shares hold each item once."""
    state = group()
    return items[state.process_index :: state.num_processes]


def on_main(work: Callable[[], T]) -> T:
    """Do the work in the main process alone, and hand its result to every process.

    Where it raises a `KronosError`, the main process raises it too and the others exit without a message:
    one report of a mistake is enough, and a process left waiting would hang until `PATIENCE` is over.
    """
    state = group()
    if state.num_processes == 1:
        return work()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = work()
        except KronosError as error:
            outcome[1] = error
    with _linked():
        broadcast_object_list(outcome)
    if outcome[1] is None:
        return outcome[0]  # type: ignore[no-any-return]
    if state.is_main_process:
        raise outcome[1]
    sys.exit(2)


@contextmanager
def local_main_first() -> Iterator[None]:
    """One process per machine runs first; the others read its cache."""
    state = group()
    if not state.is_local_main_process:
        _wait()
    yield
    if state.is_local_main_process:
        _wait()


def _wait() -> None:
    with _linked():
        group().wait_for_everyone()


def sum_over_processes(*numbers: float) -> list[float]:
    """Each number, summed over the processes."""
    if group().num_processes == 1:
        return list(numbers)
    with _linked():
        # float64: counts of targets must stay exact.
        mine = torch.tensor(numbers, dtype=torch.float64, device=group().device)
        summed: list[float] = reduce(mine, reduction="sum").tolist()
    return summed


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of all gradients; one whose share of the batch was empty adds zeros."""
    if group().num_processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    # One buffer, one message: the tensors are many and small, so latency would cost more than bytes.
    with _linked():
        flat = reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
    parts = flat.split([gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def gathered(part: T) -> list[T]:
    """The parts of all processes, in their order."""
    if group().num_processes == 1:
        return [part]
    with _linked():
        return gather_object([part])  # type: ignore[no-any-return]


def require_same(facts: dict[str, object]) -> None:
    """Raise `ProcessError` unless all processes report the same facts; it names the first that differs."""
    for number, others in enumerate(gathered(facts)):
        for name, value in facts.items():
            if others[name] != value:
                raise ProcessError(
                    f"{name} is {value!r} here but {others[name]!r} in process {number}: every machine "
                    "needs the same snapshot, base and package"
                )


@contextmanager
def _linked() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"lost the other processes of this run (their own messages say why): {str(error)[:120]}"
        ) from None
