"""What-if scenarios: supposed surprises and leader moves on forecast bars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from kronos_service.events.scaling import CLIP
from kronos_service.events.sessions import Times
from kronos_service.events.taxonomy import Taxonomy
from kronos_shared.errors import KronosError


class ScenarioError(KronosError):
    """A scenario does not fit the forecast's bars."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Supposed values, in standard deviations, by session date of the forecast bar on which they happen."""

    surprises: Mapping[date, float] = field(default_factory=dict)
    """Session date of the release -> surprise; it conditions the bar after it."""
    leaders: Mapping[str, Mapping[date, float]] = field(default_factory=dict)
    """Leader -> session date -> its move on that bar; it conditions the bar after it."""


def scenario_rows(scenario: Scenario, future: Times, taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """The (H - 1, C) rows past the last known bar, given the session dates `future` (H,) of the forecast.

    Row j describes forecast bar j + 1, so it holds what is supposed to happen on bar j.

    Raises:
        ScenarioError: an unknown leader, a value that is not finite, or a date that is no forecast bar, or
            the last one: no bar follows that could react.
    """
    unknown = sorted(set(scenario.leaders) - set(taxonomy.leaders))
    if unknown:
        known = ", ".join(taxonomy.leaders) or "none"
        raise ScenarioError(f"expected leaders {known}, got {', '.join(unknown)}: drop them")
    rows = np.zeros((len(future) - 1, len(taxonomy.channels)))
    _place(rows[:, taxonomy.surprise], scenario.surprises, future)
    for number, leader in enumerate(taxonomy.leaders):
        _place(rows[:, taxonomy.first_leader + number], scenario.leaders.get(leader, {}), future)
    return rows


def _place(column: npt.NDArray[np.float64], values: Mapping[date, float], future: Times) -> None:
    position = {day.item(): bar for bar, day in enumerate(future)}
    for day, value in values.items():
        if day not in position:
            raise ScenarioError(
                f"expected a date among the forecast bars {future[0]} .. {future[-1]}, got {day}"
            )
        if position[day] == len(future) - 1:
            raise ScenarioError(
                f"expected a date before the last forecast bar, got {day}: lengthen the horizon"
            )
        if not np.isfinite(value):
            raise ScenarioError(f"expected a finite value on {day}, got {value}")
        column[position[day]] = np.clip(value, -CLIP, CLIP)
