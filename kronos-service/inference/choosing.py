"""Which of the waiting works run together: the oldest, and those that may join it without making any late."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kronos_service.inference.work import Work


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The waiting works, told apart; each list in the order in which they came."""

    batch: list[Work]
    rest: list[Work]
    expired: list[Work]


def choose_batch(waiting: Iterable[Work], *, most_rows: int, pace: float, now: float) -> Choice:
    """The oldest work leads; a later one joins if it fits the lead, the rows, and everybody's time.

    A joiner lengthens the batch for those in it and for those passed over. It stays out if one of them, in
    time without it, would be late with it; who is late anyway holds nobody up.

    Args:
        pace: seconds per unit of cost.
        now: on the monotonic clock.
    """
    choice = Choice(batch=[], rest=[], expired=[])
    rows, slack = 0, math.inf  # slack: seconds that nobody so far would miss
    chosen = passed = 0.0  # seconds of work
    for work in waiting:
        seconds = pace * work.cost
        if work.expires_at <= now:
            choice.expired.append(work)
            continue
        is_lead = not choice.batch
        if is_lead or (choice.batch[0].joins(work) and rows + work.rows <= most_rows and seconds <= slack):
            choice.batch.append(work)
            rows, chosen, slack = rows + work.rows, chosen + seconds, slack - seconds
            left = work.expires_at - now - chosen
        else:
            choice.rest.append(work)
            passed += seconds
            left = work.expires_at - now - chosen - passed
        if left >= 0:
            slack = min(slack, left)
    return choice
