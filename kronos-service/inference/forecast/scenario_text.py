"""What-if texts of the `forecast` command, such as `cpi +2`, as a scenario on the forecast bars."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.cli import did_you_mean

FORM: Final = "'cpi +2', 'cpi +2 2026-04-10' or 'SPY -1.5 2026-04-10'"


def parse_scenario(
    texts: Sequence[str],
    scheduled: Mapping[date, Sequence[str]],
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Scenario:
    """A scenario from texts `NAME Z [DATE]`: a surprise of an event type or family, or a leader's move, in
    standard deviations.

    Args:
        scheduled: session date of each forecast bar -> the families whose releases fall on it. A surprise
            without a date belongs to the first of them; a leader's move needs a date.

    Raises:
        ScenarioError: a text of another form, an unknown name, a release that is not scheduled there, or on
            one date two surprises or two moves of one leader.
    """
    surprises: dict[date, float] = {}
    leaders: dict[str, dict[date, float]] = {}
    for text in texts:
        name, z, day = _parts(text)
        if name.upper() in taxonomy.leaders:
            if day is None:
                raise ScenarioError(f"expected a date for a leader's move, got {text!r}: write {FORM}")
            moves = leaders.setdefault(name.upper(), {})
            if day in moves:
                raise ScenarioError(f"expected one move of {name.upper()} a bar, got two on {day}: drop one")
            moves[day] = z
            continue
        on = _release(name, day, scheduled, taxonomy)
        if on in surprises:
            raise ScenarioError(
                f"expected one surprise a bar, got two on {on}: the larger one counts, drop one"
            )
        surprises[on] = z
    return Scenario(surprises=surprises, leaders=leaders)


def _parts(text: str) -> tuple[str, float, date | None]:
    words = text.split()
    try:
        if len(words) == 2:
            return words[0], float(words[1]), None
        name, z, day = words
        return name, float(z), date.fromisoformat(day)
    except ValueError:
        raise ScenarioError(f"expected a scenario such as {FORM}, got {text!r}") from None


def _release(
    name: str, day: date | None, scheduled: Mapping[date, Sequence[str]], taxonomy: Taxonomy
) -> date:
    family = taxonomy.event_types.get(name.lower(), name.lower())
    if family not in taxonomy.families:
        known = ", ".join((*taxonomy.families, *taxonomy.leaders))
        near = did_you_mean(name, (*taxonomy.families, *taxonomy.event_types, *taxonomy.leaders))
        raise ScenarioError(f"expected one of {known}, got {name!r}{near}")
    dates = [on for on, families in scheduled.items() if family in families and day in (None, on)]
    if not dates:
        there = ", ".join(f"{one} on {on}" for on, families in scheduled.items() for one in families)
        where = f"on {day}" if day else "on the forecast bars"
        raise ScenarioError(f"no {family} is scheduled {where}; there is {there or 'nothing'}")
    return dates[0]
