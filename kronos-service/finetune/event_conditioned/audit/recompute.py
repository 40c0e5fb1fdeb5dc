"""One input row at a time, from nothing but what was usable at its as_of: the audit's own arithmetic.

Plain loops over plain rows. It shares only the names of the taxonomy with the encoder (a test holds that):
shared code would hide an error from the comparison.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise, zip_longest
from typing import Final, NamedTuple

import numpy as np

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.audit.rows import (
    Bar,
    PlainRows,
    Release,
    closed_bars,
    known_releases,
)
from kronos_service.finetune.event_conditioned.audit.sessions import Session, SessionTable
from kronos_shared.columns import FEATURES

WEIGHT: Final = {"high": 1.0, "medium": 0.5, "low": 0.25}
LIMIT: Final = 5.0
"""Scores are clipped to +-5."""
SAME: Final = 1e-9
"""A standard deviation up to this is rounding noise of a constant series, so the score is 0."""
ROUNDING: Final = 1e-14
"""Relative error that the order of a float64 sum may leave."""
CLOSE: Final = FEATURES.index("close")


class Moment(NamedTuple):
    """Where a position stands in time: its as_of, that of the bar before it (of the session before the first
    bar), and the session it is about.
    """

    as_of: datetime
    before: datetime
    target: Session


class Surprise(NamedTuple):
    """How far an event's actual was from its forecast, and from when on that may be used (strictly later)."""

    event_type: str
    symbol: str | None
    usable_at: datetime
    value: float


class Value(NamedTuple):
    """A recomputed float64 value, and how far the order of summation may move it (0: not at all)."""

    value: float
    slack: float = 0.0

    def agrees(self, given: float) -> bool:
        """Whether a float32 is this value rounded, to the bit, within `slack`."""
        return bool(np.float32(self.value - self.slack) <= given <= np.float32(self.value + self.slack))


def recompute_row(rows: PlainRows, symbol: str, number: int) -> list[Value]:
    """The channels at bar `number` of a symbol, about the session after it."""
    now, table = moment(rows, symbol, number), rows.sessions_of(symbol)
    known = known_releases(rows.of(symbol), now.as_of)
    families, days_until = _schedule(known, table, table.number[now.target.day], rows.taxonomy)
    return [
        *map(Value, families),
        _surprise(known, now.before),
        Value(days_until),
        *(leader_move(rows, leader, now) for leader in rows.taxonomy.leaders),
    ]


def moment(rows: PlainRows, symbol: str, number: int) -> Moment:
    """The session that bar `number` of a symbol is about, and until when its row may know things."""
    table, bars = rows.sessions_of(symbol), rows.bars[symbol]
    session = table.number[bars[number].day]
    session_before = table.number[bars[number - 1].day] if number > 0 else session - 1
    return Moment(table.as_of(session), table.as_of(session_before), table.sessions[session + 1])


def leader_move(rows: PlainRows, leader: str, now: Moment, shift: int = 0) -> Value:
    """A leader's move from its last close known at the bar before to its last known now, over its spread.

    `shift` adds so many bars that are not known yet: what a leak would give.
    """
    bars = rows.leaders[leader]
    until, then = (bars[: len(closed_bars(bars, limit)) + shift] for limit in (now.as_of, now.before))
    if len(until) == len(then) or len(then) < 61:
        return Value(0.0)
    logs = [math.log(bar.values[CLOSE]) for bar in then[-61:]]
    sigma = _spread([later - earlier for earlier, later in pairwise(logs)])
    move = math.log(until[-1].values[CLOSE]) - logs[-1]
    return _score(move, sigma, error=ROUNDING * (abs(logs[-1]) + 1))


def recompute_window(bars: Sequence[Bar], history: Sequence[Bar]) -> list[list[Value]]:
    """The bars of a window as z-scores by mean and spread (ddof 0) of its `history`, clipped."""
    columns = []
    for feature in range(6):
        past = [bar.values[feature] for bar in history]
        mean = math.fsum(past) / len(past)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in past) / len(past))
        spread = deviation + 1e-7 * abs(mean)
        columns.append([_in_spreads(bar.values[feature], mean, spread) for bar in bars])
    return [list(row) for row in zip(*columns, strict=True)]


def _in_spreads(value: float, mean: float, spread: float) -> Value:
    if spread == 0:  # a column of zeros: every other value is far out
        return Value(0.0 if value == mean else math.copysign(LIMIT, value - mean))
    return Value(_clip((value - mean) / spread), ROUNDING * (abs(value) + abs(mean)) / spread)


def _schedule(
    known: Sequence[Release], table: SessionTable, target: int, taxonomy: Taxonomy
) -> tuple[list[float], float]:
    """Weights of the families on the target, and how near the next high-impact event is."""
    standing = {release.event_id: release for release in known}  # the last version seen counts
    families = [0.0] * len(taxonomy.families)
    nearest = 10.0
    before, until = table.sessions[target - 1].closes, table.sessions[target].opens + timedelta(days=12)
    for release in standing.values():
        if not before <= release.release_at < until:
            continue
        for ahead in range(target, len(table.sessions)):
            if table.sessions[ahead].opens > until:
                break
            opened, closed = table.sessions[ahead - 1].closes, table.sessions[ahead].closes
            if not opened <= release.release_at < closed:
                continue
            if ahead == target:
                family = taxonomy.families.index(taxonomy.event_types[release.event_type])
                families[family] = max(families[family], WEIGHT[release.impact])
            if release.impact == "high":
                away = table.sessions[ahead].day - table.sessions[target].day
                nearest = min(nearest, away / timedelta(days=1))
    return families, 1 - nearest / 10


def _surprise(known: Sequence[Release], before: datetime) -> Value:
    """The largest surprise that became usable since `before`."""
    surprises = first_surprises(known)
    largest = Value(0.0)
    for one in surprises:
        if one.usable_at >= before:
            earlier = [
                other.value
                for other in surprises
                if (other.event_type, other.symbol) == (one.event_type, one.symbol)
                and other.usable_at < one.usable_at
            ]
            sigma = _spread(earlier) if len(earlier) >= 8 else 0.0
            score = _score(one.value, sigma, error=0.0)
            largest = max(largest, score, key=lambda score: (abs(score.value), score.value))
    return largest


def first_surprises(known: Sequence[Release]) -> list[Surprise]:
    """For each event the first version with actual and forecast that was not replaced before it was usable.

    The rows of one event are consecutive, in the order in which they were seen.
    """
    first: dict[str, Surprise] = {}
    for release, following in zip_longest(known, known[1:]):
        if release.actual is None or release.forecast is None or release.event_id in first:
            continue
        replaced = (
            following is not None
            and following.event_id == release.event_id
            and following.seen_at <= release.usable_at()
        )
        if not replaced:
            value = release.actual - release.forecast
            first[release.event_id] = Surprise(release.event_type, release.symbol, release.usable_at(), value)
    return list(first.values())


def _spread(values: Sequence[float]) -> float:
    """Standard deviation, ddof 1."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _score(value: float, sigma: float, *, error: float) -> Value:
    if sigma <= SAME:
        return Value(0.0)
    score = _clip(value / sigma)
    return Value(score, error / sigma + 100 * ROUNDING * abs(score))


def _clip(value: float) -> float:
    return max(-LIMIT, min(LIMIT, value))
