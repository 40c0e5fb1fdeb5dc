"""From which bars forecasts are made: a drawn share of a split's event days and of its quiet days."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kronos_service.events.sessions import ONE_DAY
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.splits import SplitError
from kronos_shared.normalization import MIN_HISTORY


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The last known bar of a forecast, by its number in one of the series."""

    series: int
    bar: int


def possible_origins(
    series: Sequence[Series],
    *,
    first: np.datetime64,
    last: np.datetime64,
    calendar_covers: np.datetime64,
    horizon: int,
) -> list[Origin]:
    """Every bar whose next `horizon` bars all are targets dated `first`..`last` (both inclusive).

    No forecast looks past the split; each has `MIN_HISTORY` bars, no gap ahead, and a calendar that covers
    its last target.
    """
    last = min(last, calendar_covers)
    return [
        Origin(series=number, bar=bar)
        for number, one in enumerate(series)
        for bar in range(MIN_HISTORY - 1, len(one.dates) - horizon)
        if one.dates[bar + 1] >= first
        and one.dates[bar + horizon] < last + ONE_DAY
        and one.follows[bar + 1 : bar + 1 + horizon].all()
    ]


def draw_origins(series: Sequence[Series], possible: Sequence[Origin], count: int, seed: int) -> list[Origin]:
    """At most `count` of the possible origins: event and quiet next bars in the proportion they have there.

    So a plain mean over the draw estimates the mean over the split.

    Raises:
        SplitError: there is none to draw from.
    """
    if not possible:
        raise SplitError(
            "expected bars to forecast from, got none: the split has too few bars in a row, or its calendar "
            "ends too early; lower --horizon or take another split"
        )
    event = np.array([series[one.series].is_event[one.bar + 1] for one in possible])
    rng = np.random.default_rng(seed)
    count = min(count, len(possible))
    n_event = round(count * event.mean())
    drawn = np.concatenate([_draw(event, n_event, rng), _draw(~event, count - n_event, rng)])
    return [possible[number] for number in np.sort(drawn)]


def _draw(stratum: npt.NDArray[np.bool_], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    (members,) = np.nonzero(stratum)
    return rng.permutation(members)[:count]
