"""Where the audit looks: a seeded draw of scored positions, half of them where time is delicate."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from random import Random
from typing import NamedTuple

from kronos_service.finetune.event_conditioned.audit.rows import ALWAYS, PlainRows, Release
from kronos_service.finetune.event_conditioned.audit.sessions import NEW_YORK, SessionTable
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.samples.windows import Window


class Position(NamedTuple):
    """One position: bar `bar` of a series, in window `number` of a split's dataset."""

    split: str
    number: int
    window: Window
    symbol: str
    bar: int

    @property
    def offset(self) -> int:
        """The bar's position in its window."""
        return self.bar - self.window.start


def draw_symbols(names: Sequence[str], classes: Sequence[str], count: int, rng: Random) -> list[str]:
    """`count` symbols, one asset class after the other, so that each is drawn while there is room."""
    queues: dict[str, list[str]] = {}
    for name, asset_class in rng.sample(list(zip(names, classes, strict=True)), len(names)):
        queues.setdefault(asset_class, []).append(name)
    chosen: list[str] = []
    while len(chosen) < min(count, len(names)):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return sorted(chosen)


def scored_positions(splits: Splits, symbols: Sequence[str]) -> list[Position]:
    """Every scored position of the symbols, in all splits."""
    positions = []
    for split in splits.splits.values():
        for number, window in enumerate(split.windows):
            symbol = splits.series[window.series].symbol
            if symbol in symbols:
                bars = range(window.first_target - 1, window.stop - 1)
                positions += [Position(split.name, number, window, symbol, bar) for bar in bars]
    return positions


def context_positions(positions: Sequence[Position], rng: Random) -> list[Position]:
    """For each position, an earlier one of its window: not scored, but its row is an input too."""
    return [
        position._replace(bar=rng.randrange(position.window.start, position.window.first_target))
        for position in positions
    ]


def draw_positions(
    positions: Sequence[Position], splits: Splits, rows: PlainRows, count: int, rng: Random
) -> list[Position]:
    """`count` positions, up to half of them on delicate days."""
    days = {name: delicate_days(table, rows.releases) for name, table in rows.sessions.items()}
    delicate = []
    for position in positions:
        one = splits.series[position.window.series]
        if one.dates[position.bar].item() in days[one.asset_class]:
            delicate.append(position)
    chosen = rng.sample(delicate, min(len(delicate), count // 2))
    return [*chosen, *rng.sample(list(positions), min(len(positions), count - len(chosen)))]


def delicate_days(table: SessionTable, releases: Sequence[Release]) -> set[date]:
    """Sessions near a half day, a clock change, a release soon after a close, or a revision."""
    sessions = table.sessions
    closes = [session.closes for session in sessions]
    near: set[int] = set()
    for k in range(1, len(sessions)):
        longer = _length(table, k) != _length(table, k - 1)
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


def _length(table: SessionTable, k: int) -> timedelta:
    return table.sessions[k].closes - table.sessions[k].opens


def _offset(moment: datetime) -> timedelta | None:
    return moment.astimezone(NEW_YORK).utcoffset()
