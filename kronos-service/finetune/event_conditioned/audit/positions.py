"""Where the audit looks: a seeded draw of scored positions, half of it where time is delicate."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from random import Random
from typing import NamedTuple

from kronos_service.finetune.event_conditioned.audit.rows import ALWAYS, Records, Release
from kronos_service.finetune.event_conditioned.audit.sessions import NEW_YORK, Clock
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.samples.windows import Window


class Place(NamedTuple):
    """One position: bar `bar` of a series, in window `number` of a split's dataset."""

    split: str
    number: int
    window: Window
    symbol: str
    bar: int

    @property
    def position(self) -> int:
        """The bar's position in its window."""
        return self.bar - self.window.start


def draw_symbols(names: Sequence[str], classes: Sequence[str], count: int, rng: Random) -> list[str]:
    """`count` symbols, every asset class in turn, so that none is left out while there is room."""
    queues: dict[str, list[str]] = {}
    for name, asset_class in rng.sample(list(zip(names, classes, strict=True)), len(names)):
        queues.setdefault(asset_class, []).append(name)
    chosen: list[str] = []
    while len(chosen) < min(count, len(names)):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return sorted(chosen)


def scored_places(splits: Splits, symbols: Sequence[str]) -> list[Place]:
    """Every scored position of the symbols, in all splits."""
    places = []
    for split in splits.splits.values():
        for number, window in enumerate(split.windows):
            symbol = splits.series[window.series].symbol
            if symbol in symbols:
                bars = range(window.first_target - 1, window.stop - 1)
                places += [Place(split.name, number, window, symbol, bar) for bar in bars]
    return places


def context_places(places: Sequence[Place], rng: Random) -> list[Place]:
    """For each place, one of its window before the first scored one: inputs all the same."""
    return [
        place._replace(bar=rng.randrange(place.window.start, place.window.first_target)) for place in places
    ]


def draw_places(
    places: Sequence[Place], splits: Splits, records: Records, count: int, rng: Random
) -> list[Place]:
    """`count` places, half of them delicate as far as there are such."""
    days = {name: delicate_days(clock, records.releases) for name, clock in records.clocks.items()}
    delicate = []
    for place in places:
        one = splits.series[place.window.series]
        if one.dates[place.bar].item() in days[one.asset_class]:
            delicate.append(place)
    chosen = rng.sample(delicate, min(len(delicate), count // 2))
    return [*chosen, *rng.sample(list(places), min(len(places), count - len(chosen)))]


def delicate_days(clock: Clock, releases: Sequence[Release]) -> set[date]:
    """Sessions near a half day, a change of the clock, a release soon after a close, or a revision."""
    sessions = clock.sessions
    closes = [session.closes for session in sessions]
    near: set[int] = set()
    for k in range(1, len(sessions)):
        longer = _length(clock, k) != _length(clock, k - 1)
        if longer or _offset(closes[k]) != _offset(closes[k - 1]):
            near |= {k - 1, k}
    for release in releases:
        session = bisect_right(closes, release.release_at)  # the one it falls on
        if 0 < session < len(closes) and release.release_at - closes[session - 1] <= timedelta(hours=4):
            near |= {session - 1}
        if release.seen_at > ALWAYS:
            seen = bisect_right(closes, release.seen_at)
            near |= {seen - 2, seen - 1, seen, session - 1, session}
    return {sessions[k].day for k in near if 0 <= k < len(sessions)}


def _length(clock: Clock, k: int) -> timedelta:
    return clock.sessions[k].closes - clock.sessions[k].opens


def _offset(moment: datetime) -> timedelta | None:
    return moment.astimezone(NEW_YORK).utcoffset()
