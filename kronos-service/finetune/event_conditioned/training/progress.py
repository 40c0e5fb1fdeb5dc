"""What the training loop tells whoever watches it: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 30.0
"""Between two lines where there is no terminal."""

SHOWN = (("train", "train/fixed_loss"), ("val event", "val/event_total"), ("val quiet", "val/quiet_total"))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The hooks of a training; by default nobody watches."""

    begin: Callable[[int], None] = lambda windows: None
    """Once, before the first step: windows done by earlier starts, over all epochs."""
    advance: Callable[[int, float], None] = lambda windows, loss: None
    """After each step: windows done, and the step's weighted mean loss."""
    epoch_end: Callable[[int, dict[str, float]], None] = lambda epoch, figures: None
    """After each epoch (and before the first, as epoch 0): its validation figures."""
    note: Callable[[str], None] = lambda line: None
    """Anything else that a person should know."""


@contextmanager
def training_progress(console: Console, name: str, windows: int, epochs: int) -> Iterator[Progress]:
    """Follow a training of `epochs` passes over `windows`: loss, rate and time left, a line per epoch."""

    def epoch_end(epoch: int, figures: Mapping[str, float]) -> None:
        shown = "  ".join(f"{label} {figures[key]:.4f}" for label, key in SHOWN)
        console.print(f"{name} epoch {epoch:>2}/{epochs}  {shown}")

    def note(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        lines = PlainLines(name=name, windows=windows, epochs=epochs, say=note)
        yield Progress(begin=lines.begin, advance=lines.advance, epoch_end=epoch_end, note=note)
        return
    with _bars(console, name, windows, epochs) as (begin, advance):
        yield Progress(begin=begin, advance=advance, epoch_end=epoch_end, note=note)


class PlainLines:
    """A line from time to time: `adapter epoch 3/15, 480 of 1,200 windows, loss 4.1234, 52/s, 4 min left`."""

    def __init__(
        self,
        *,
        name: str,
        windows: int,
        epochs: int,
        say: Callable[[str], None],
        seconds: float = PLAIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.windows, self.epochs = name, windows, epochs
        self.say, self.seconds, self.clock = say, seconds, clock
        self.begin(0)

    def begin(self, done: int) -> None:
        self.before = self.done = done
        self.begun = self.said = self.clock()

    def advance(self, windows: int, loss: float) -> None:
        self.done += windows
        now = self.clock()
        if now - self.said < self.seconds:
            return
        self.said = now
        rate = (self.done - self.before) / (now - self.begun)
        left = (self.windows * self.epochs - self.done) / rate
        epoch, within = divmod(self.done - 1, self.windows)
        self.say(
            f"{self.name} epoch {epoch + 1}/{self.epochs}, {within + 1:,} of {self.windows:,} windows, "
            f"loss {loss:.4f}, {rate:.1f}/s, {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def _bars(
    console: Console, name: str, windows: int, epochs: int
) -> Iterator[tuple[Callable[[int], None], Callable[[int, float], None]]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("windows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task("", total=windows * epochs, rate="", figures="")

        def describe(done: float) -> str:
            return f"{name} {min(int(done) // windows + 1, epochs)}/{epochs}"

        def begin(done: int) -> None:
            bars.reset(task, completed=done, description=describe(done))

        def advance(done: int, loss: float) -> None:
            now = bars.tasks[task]
            rate, figures = f"{now.speed or 0:.0f}/s", f"loss {loss:.4f}"
            text = describe(now.completed + done)
            bars.update(task, advance=done, description=text, figures=figures, rate=rate)

        yield begin, advance
        bars.remove_task(task)
