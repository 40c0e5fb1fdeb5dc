"""How far a command has come: bars on a terminal, a line every 30 s where its output goes to a file."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

console: Final = Console(markup=False)
"""Where the commands speak to a person; a run of several processes silences all but the main one.

Without markup: what others write, such as a path or `pip install name[extra]`, keeps its brackets.
"""

PLAIN_SECONDS: Final = 30.0
"""Between two lines where there is no terminal."""


def say(line: str, *, style: str = "", label: str = "", on: Console = console) -> None:
    """Print a line as it is: a command or a path that wraps cannot be copied.

    Args:
        label: what the line is about; then it alone has the style.
    """
    if label:
        on.print(Text.assemble((label, style), f": {line}"), soft_wrap=True)
    else:
        on.print(line, style=style, highlight=False, soft_wrap=True)


class Progress:
    """What countable work reports to; this one shows nothing."""

    name = ""
    """What is done."""

    def begin(self, done: int) -> None:
        """Count what earlier starts did; it does not enter the rate."""

    def advance(self, count: int, figures: str = "") -> None:
        """Count units as done; `figures` is shown beside them."""

    def reach(self, done: int, total: int) -> None:
        """Set how many units are done, where their total becomes known on the way."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


@contextmanager
def follow(
    name: str, *, unit: str, total: int = 0, epochs: int | None = None, on: Console = console
) -> Iterator[Progress]:
    """Show the progress of work with its rate, time left and figures.

    Args:
        name: what is done.
        unit: what is counted, in the plural.
        total: units of the work; with `epochs`, of each of its equal passes.
        epochs: passes, where the work is a training.
        on: the console; bars if it is a terminal, plain lines otherwise.
    """
    if not on.is_terminal:
        yield PlainLines(name, unit=unit, total=total, epochs=epochs, on=on)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[rate]}}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with RichProgress(*columns, console=on) as rich:
        yield Bar(rich, name, total=total, epochs=epochs)


@contextmanager
def working(text: str, *, on: Console = console, seconds: float = PLAIN_SECONDS) -> Iterator[None]:
    """Show that work goes on whose progress nobody counts: a spinner, or a line every 30 s."""
    if on.is_terminal:
        with on.status(text):
            yield
        return
    begun, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            on.print(f"{text}, {duration(time.monotonic() - begun)} so far", highlight=False, soft_wrap=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class PlainLines(Progress):
    """A line now and then: `adapter epoch 3/15, 480 of 1,200 windows, loss 4.1234, 52/s, 4 min left`."""

    def __init__(
        self,
        name: str,
        *,
        unit: str,
        total: int,
        epochs: int | None,
        on: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.unit, self.total, self.epochs = name, unit, total, epochs
        self.on, self.clock = on, clock
        self.begin(0)

    def begin(self, done: int) -> None:
        self.before = self.done = done
        self.begun = self.said = self.clock()

    def advance(self, count: int, figures: str = "") -> None:
        self.done += count
        now = self.clock()
        if now - self.said < PLAIN_SECONDS:
            return
        self.said = now
        rate = (self.done - self.before) / (now - self.begun)
        left = duration((self.total * (self.epochs or 1) - self.done) / rate) if rate else "unknown time"
        parts = [self._where(), figures, f"{rate:.1f}/s", f"{left} left"]
        self.say(", ".join(part for part in parts if part))

    def reach(self, done: int, total: int) -> None:
        self.total = total
        self.advance(done - self.done)

    def say(self, line: str) -> None:
        # Not wrapped to a width: a log file has none, and its lines are searched.
        self.on.print(line, highlight=False, soft_wrap=True)

    def _where(self) -> str:
        if self.epochs is None:
            return f"{self.name}, {self.done:,} of {self.total:,} {self.unit}"
        epoch, within = divmod(self.done - 1, self.total)
        return f"{self.name} epoch {epoch + 1}/{self.epochs}, {within + 1:,} of {self.total:,} {self.unit}"


class Bar(Progress):
    """One bar over all passes, with the number of the pass in its description."""

    def __init__(self, rich: RichProgress, name: str, *, total: int, epochs: int | None) -> None:
        self.rich, self.name, self.total, self.epochs = rich, name, total, epochs
        self.task = rich.add_task(name, total=total * (epochs or 1), rate="", figures="")

    def begin(self, done: int) -> None:
        self.rich.reset(self.task, completed=done, description=self._describe(done))

    def advance(self, count: int, figures: str = "") -> None:
        task = self.rich.tasks[self.task]
        description = self._describe(task.completed + count)
        rate = f"{task.speed:.1f}/s" if task.speed else ""
        self.rich.update(self.task, advance=count, description=description, figures=figures, rate=rate)

    def reach(self, done: int, total: int) -> None:
        self.rich.update(self.task, completed=done, total=total)

    def say(self, line: str) -> None:
        self.rich.console.print(line, highlight=False, soft_wrap=True)

    def _describe(self, done: float) -> str:
        if self.epochs is None:
            return self.name
        return f"{self.name} {min(int(done) // self.total + 1, self.epochs)}/{self.epochs}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
