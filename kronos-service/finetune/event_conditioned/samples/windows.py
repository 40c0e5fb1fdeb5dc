"""Which bars are scored, in which split, from which window of context."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.normalization import MIN_HISTORY


@dataclass(frozen=True, kw_only=True)
class Window:
    """Bars [start, stop) of one series: all but the last are inputs, [first_target, stop) are the targets."""

    series: int
    start: int
    first_target: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Bars of a split that are not scored, by reason."""

    too_little_history: int = 0
    after_a_gap: int = 0
    past_the_calendar: int = 0

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(
            **{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)}
        )

    def describe(self) -> str:
        """`12 after a gap, 3 past the calendar`, or an empty string when nothing is left out."""
        counts = [(getattr(self, item.name), item.name.replace("_", " ")) for item in fields(self)]
        return ", ".join(f"{count} {reason}" for count, reason in counts if count)


def plan_windows(
    series: Sequence[Series],
    *,
    first: np.datetime64,
    last: np.datetime64,
    calendar_covers: np.datetime64,
    context: int,
    scored: int,
) -> tuple[list[Window], LeftOut]:
    """Windows that score every target dated `first`..`last` (both inclusive) exactly once.

    A window holds at most `context` input bars and steps by `scored` targets. `calendar_covers` is the
    last target date whose following ten days the calendar knows; targets past it, targets with fewer than
    `MIN_HISTORY` earlier bars, and bars after a gap (no position expected them) are left out and counted.
    """
    windows: list[Window] = []
    left_out = LeftOut()
    for number, one in enumerate(series):
        begin, end = np.searchsorted(one.dates, [first, last + np.timedelta64(1, "D")]).tolist()
        known = int(np.searchsorted(one.dates, calendar_covers + np.timedelta64(1, "D")))
        stop = max(begin, min(end, known))
        start = min(max(begin, MIN_HISTORY), stop)
        left_out += LeftOut(
            too_little_history=start - begin,
            after_a_gap=int((~one.follows[start:stop]).sum()),
            past_the_calendar=end - stop,
        )
        for target in range(start, stop, scored):
            after = min(target + scored, stop)
            if one.follows[target:after].any():
                windows.append(
                    Window(series=number, start=max(0, after - 1 - context), first_target=target, stop=after)
                )
    return windows, left_out
