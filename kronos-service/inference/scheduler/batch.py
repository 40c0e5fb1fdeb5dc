"""Which of the waiting works run together: the oldest, and those that may join it without making any late."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kronos_service.inference.scheduler.work import BatchCost, ForecastJob


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The waiting works, told apart; each list in the order in which they came."""

    batch: list[ForecastJob]
    rest: list[ForecastJob]
    expired: list[ForecastJob]


def choose_batch(waiting: Iterable[ForecastJob], *, most_rows: int, pace: float, now: float) -> Choice:
    """The oldest work leads; a later one joins if it fits the lead, the rows, and everybody's time.

    A joiner lengthens the batch for those in it and for those passed over. It stays out if one of them, in
    time without it, would be late with it; who is late anyway holds nobody up.

    Args:
        pace: seconds per unit of cost (see `Cost`).
        now: on the monotonic clock.
    """
    choice = Choice(batch=[], rest=[], expired=[])
    rows, slack = 0, math.inf  # slack: seconds that nobody so far would miss
    chosen, passed = BatchCost(), BatchCost()
    for work in waiting:
        if work.expires_at <= now:
            choice.expired.append(work)
            continue
        demand = work.demand
        is_lead = not choice.batch
        seconds = pace * demand.cost
        if is_lead or (
            choice.batch[0].demand.joins(demand) and rows + demand.rows <= most_rows and seconds <= slack
        ):
            choice.batch.append(work)
            chosen.add(demand)
            rows, slack = rows + demand.rows, slack - seconds
            ahead = chosen.total
        else:
            choice.rest.append(work)
            passed.add(demand)
            ahead = chosen.total + passed.total
        left = work.expires_at - now - pace * ahead
        if left >= 0:
            slack = min(slack, left)
    return choice
