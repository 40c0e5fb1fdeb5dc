"""SIGTERM and SIGINT as a request to stop: the loop finishes its step, writes a checkpoint and ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from types import FrameType

from kronos_service.finetune.event_conditioned.training.distributed import group, sum_over_processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A training ended at a signal, its steps in a checkpoint; `exit_code` is the shell's 128 + signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(kw_only=True)
class Stop:
    """Whether this process has been asked to stop, and by which signal."""

    signal: Signals | None = None

    def asked_anywhere(self) -> bool:
        """Whether any process of the run has been asked; all get the same answer."""
        return sum_over_processes(float(self.signal is not None)) != [0.0]

    def stopped(self, step: int, steps: int) -> "Stopped":
        """The exception to raise after so many of a training's steps."""
        number = self.signal or signal.SIGTERM
        where = f"after step {step} of {steps}; a checkpoint is written" if step else "before the first step"
        return Stopped(f"stopped by {number.name} {where}", 128 + number)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first SIGTERM or SIGINT into a request; a second one ends the process at once, as usual.

    With several processes every signal is a request: their launcher repeats the first one to all of them, and
    that repetition must not kill a process before the checkpoint.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main one may set handlers
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, _: FrameType | None) -> None:
        stop.signal = Signals(number)
        if group().num_processes == 1:
            restore()

    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
