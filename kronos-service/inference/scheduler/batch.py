"""Which of the waiting jobs run together: the oldest, and those that may join it without making any late."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kronos_service.inference.scheduler.work import BatchCost, ForecastJob


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The waiting jobs, divided; each list in the order in which they came."""

    batch: list[ForecastJob]
    rest: list[ForecastJob]
    expired: list[ForecastJob]


def choose_batch(
    waiting: Iterable[ForecastJob], *, most_rows: int, seconds_per_cost: float, now: float
) -> Choice:
    """The oldest job leads. A later one joins if it fits the lead and the rows, and every on-time job still
    meets its deadline.

    A job that joins delays those in the batch and those it overtakes. One that is late anyway is ignored: it
    would block every batch without being saved.

    Args:
        seconds_per_cost: see `Cost`.
        now: on the monotonic clock.
    """
    choice = Choice(batch=[], rest=[], expired=[])
    rows, slack = 0, math.inf  # slack: seconds by which the batch may still grow before any job is late
    chosen, passed = BatchCost(), BatchCost()
    for job in waiting:
        if job.expires_at <= now:
            choice.expired.append(job)
            continue
        cost = job.cost
        seconds = seconds_per_cost * cost.marginal
        if not choice.batch or (
            choice.batch[0].cost.joins(cost) and rows + cost.rows <= most_rows and seconds <= slack
        ):
            choice.batch.append(job)
            chosen.add(cost)
            rows, slack = rows + cost.rows, slack - seconds
            ahead = chosen.total
        else:
            choice.rest.append(job)
            passed.add(cost)
            # jobs passed over are taken to run together where they can: the estimate that admitted them
            ahead = chosen.total + passed.total
        left = job.expires_at - now - seconds_per_cost * ahead
        if left >= 0:
            slack = min(slack, left)
    return choice
