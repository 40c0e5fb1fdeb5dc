"""Compares calendar and bars with the world: what is public of each event type, asset class and leader.

Nothing here looks at one row alone, which `validation` does: a row may be well formed and the table still be
dated by the wrong clock, month or unit. Every departure is reported with its rows and what it would do to a
training. What cannot be true is refused; the rest is a warning.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, get_args

import numpy as np
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

from kronos_service.data.public_facts import (
    CLASSES,
    LEADER_PRICES,
    RELEASES,
    AcceptedName,
    DepartureName,
    ReleaseFacts,
)
from kronos_service.data.tables import TableError, some
from kronos_service.events.calendar import counted
from kronos_service.events.sessions import DAILY, Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy

EFFECTS: Final[Mapping[DepartureName, str]] = {
    "early-figure": "the model would be taught the future",
    "closed-day": "the release is put on a bar that it did not move",
    "day-of-month": "dated by the month they report on, figures are known weeks before the world knew them",
    "weekday": "a release on a neighbouring day is put on a bar that it did not move",
    "hour": "a release may fall on another bar, and its figure is used earlier or later than it was known",
    "pause": "releases that are missing make event days that train as quiet days",
    "count": "two measures under one type mix their surprises; or releases are missing",
    "unit": "the larger unit sets the scale of its surprises: those in the smaller one are taken for 0",
    "figure": "one wrong figure sets the scale of all later surprises of its type",
    "price": "the leader's channel is another instrument's",
    "volume": "volume and amount of these bars are 0 for the model",
    "flat": "bars that repeat teach the model that nothing moves",
}
"""What a departure would do to a training."""
NEW_YORK: Final = "America/New_York"
MOST: Final = 0.5
"""A share of rows above it is most of them: no exception, but the rule of the file."""
NEARLY_ALL: Final = 0.8
"""More than the share of months whose first is a working day."""
ALL_BUT_ERRORS: Final = 0.95
"""Of a year's releases: dates by chance, as in a drawn calendar, are often within their days."""
FEW: Final = 6
"""Fewer releases of a type show no rule of days."""
OFTEN: Final = 0.25
"""Weekdays and days of the month have exceptions, up to this share."""
CLOCK_SKEW: Final = timedelta(minutes=5)
_OPEN_TO_PRIVATE: Final = ("Columbus Day", "Veterans Day")
"""Federal holidays on which markets are open and private institutes publish."""


class PlausibilityError(TableError):
    """Tables that cannot be true."""


@dataclass(frozen=True, kw_only=True)
class Departure:
    """Rows of one event type or symbol that differ from what is public."""

    name: DepartureName
    subject: str
    rows: int
    of: int
    says: str
    """How they differ."""
    is_refused: bool = False

    def __str__(self) -> str:
        share = f"{self.rows} of {self.of} ({self.rows / self.of:.0%})"
        return f"{self.name}: {self.subject}: {share} {self.says}; {EFFECTS[self.name]}"


def calendar_departures(
    calendar: pd.DataFrame,
    *,
    now: datetime,
    bars: tuple[date, date] | None = None,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> list[Departure]:
    """What a typed calendar has that the world has not; only rows in the currency of their type count.

    Of a type that only the taxonomy knows, the world says no more than its usual hours, if it gives any.

    Args:
        now: the present; a figure of a later release is refused.
        bars: dates of the first and the last bar, to see types that begin late or stop early.
    """
    ours = counted(calendar, taxonomy)
    # A revision or a postponement is a later row of the same event.
    order = ours.sort_values("first_seen_at", na_position="first", kind="stable")
    events = order.drop_duplicates("event_id", keep="last").sort_values("release_at")
    reach = (events["release_at"].min(), events["release_at"].max()) if len(events) else (pd.NaT, pd.NaT)
    found = list[Departure]()
    for name in taxonomy.event_types:
        rows, all_rows = events[events["event_type"] == name], ours[ours["event_type"] == name]
        if rows.empty:
            continue
        found += _early(name, all_rows, now)
        facts, usual = _facts(name, taxonomy), taxonomy.releases.get(name)
        if usual is not None:
            local = rows["release_at"].dt.tz_convert(usual.time_zone)
            found += _hours(name, local, usual.times, usual.time_zone)
        elif facts is not None:
            local = rows["release_at"].dt.tz_convert(NEW_YORK)
            found += [*_days(name, local, facts), *_hours(name, local, facts.times, "New York")]
            found += [
                *_rhythm(name, rows["release_at"], facts, reach, bars),
                *_figures(name, all_rows, facts),
            ]
    return found


def _facts(name: str, taxonomy: Taxonomy) -> ReleaseFacts | None:
    """What is public of a type: of another country's, or of a company's, nothing."""
    is_ours = taxonomy.currency_of(name) == DEFAULT_TAXONOMY.currency and name not in taxonomy.symbol_types
    return RELEASES.get(name) if is_ours else None


def bar_departures(bars: pd.DataFrame, symbols: pd.DataFrame, interval: Interval = DAILY) -> list[Departure]:
    """What typed bars, whole symbols at a time, have that their asset class or the leader has not.

    An hour without a trade is no departure, so volume and repeated bars are looked at in daily bars only.
    """
    asset_class = symbols.set_index("symbol")["asset_class"]
    found = []
    for name, rows in bars[bars["symbol"].isin(asset_class.index)].groupby("symbol"):
        facts = CLASSES[str(asset_class[name])]
        if str(name) in LEADER_PRICES:
            low, high = LEADER_PRICES[str(name)]
            outside = rows[(rows["low"] < low) | (rows["high"] > high)]
            says = f"bars outside {low:g} to {high:g}, the first {_first(outside)}"
            found += _some("price", str(name), len(outside), len(rows), says)
        if interval != DAILY:
            continue
        if facts.volume:
            empty = rows[rows["volume"] == 0]
            if len(empty) > OFTEN * len(rows):
                found += _some("volume", str(name), len(empty), len(rows), "bars without volume")
        found += _flat(str(name), rows, facts.flat)
    return found


def refuse(departures: Iterable[Departure], accepted: Sequence[str] = ()) -> None:
    """Raise for what cannot be true and was not accepted.

    Raises:
        PlausibilityError: with each, and with the flag that accepts it, where one does.
    """
    refused = [one for one in departures if one.is_refused and one.name not in accepted]
    if refused:
        flags = [name for name in get_args(AcceptedName) if name in {one.name for one in refused}]
        remedy = "correct them at the source"
        if flags:
            remedy += f", or, where they are meant, add --accept {' '.join(flags)}"
        if "early-figure" in {one.name for one in refused}:
            remedy += "; no flag accepts a figure before its release"
        listed = "; ".join(str(one) for one in refused)
        raise PlausibilityError(f"the calendar cannot be true: {listed}: {remedy}")


def describe(departures: Iterable[Departure], accepted: Sequence[str] = ()) -> list[str]:
    """A line for each departure."""
    return [f"{'accepted' if one.name in accepted else 'warning'}: {one}" for one in departures]


def closed_days(first: date, last: date) -> frozenset[date]:
    """The weekdays on which nothing is released in the United States: federal holidays, but for two."""
    return frozenset().union(*(_closed_in(year) for year in range(first.year, last.year + 1)))


@lru_cache(maxsize=256)
def _closed_in(year: int) -> frozenset[date]:
    calendar = USFederalHolidayCalendar()
    named = calendar.holidays(date(year, 1, 1), date(year, 12, 31), return_name=True)
    closed = named[~named.astype("str").str.startswith(_OPEN_TO_PRIVATE)]
    return frozenset(pd.DatetimeIndex(closed.index).date)


def release_hours(local: pd.Series) -> str:
    """The hours of releases in New York, with how often each is found: "08:30 (11), 09:30"."""
    counts = Counter(local.dt.strftime("%H:%M")).most_common()
    return some([f"{hour} ({count})" if count > 1 else hour for hour, count in counts], most=4)


def _some(
    name: DepartureName, subject: str, rows: int, of: int, says: str, refused: bool = False
) -> list[Departure]:
    """The departure of some rows; none of no rows."""
    one = Departure(name=name, subject=subject, rows=rows, of=of, says=says, is_refused=refused)
    return [one] * bool(rows)


def _early(name: str, rows: pd.DataFrame, now: datetime) -> Iterator[Departure]:
    early = rows[rows["actual"].notna() & (rows["release_at"] > pd.Timestamp(now + CLOCK_SKEW))]
    if not early.empty:
        first = early["release_at"].min()
        says = f"rows have an actual before their release, the first {first:%Y-%m-%d %H:%M} UTC"
        yield from _some("early-figure", name, len(early), len(rows), says, refused=True)


def _days(name: str, local: pd.Series, facts: ReleaseFacts) -> Iterator[Departure]:
    days = local.dt.date
    closed = closed_days(days.min(), days.max())
    weekday = local.dt.day_of_week + 1
    is_closed = (weekday > 5) | days.isin(closed)
    if is_closed.any():
        shown = _listed(local[is_closed])
        says = f"releases on a weekend or holiday, when nothing is released ({shown})"
        yield from _some(
            "closed-day", name, int(is_closed.sum()), len(local), says, refused=is_closed.mean() > MOST
        )
    unusual = ~weekday.isin(facts.weekdays) & ~is_closed
    if unusual.mean() > OFTEN:
        usual = ", ".join(_WEEKDAYS[day] for day in facts.weekdays)
        says = f"releases on other weekdays than {usual} ({_listed(local[unusual])})"
        yield from _some("weekday", name, int(unusual.sum()), len(local), says)
    outside = ~local.dt.day.map(facts.has_day)
    if outside.mean() > OFTEN and len(local) >= 2:
        first, last = facts.days
        says = f"releases outside day {first} to {last} of the month ({_listed(local[outside])})"
        refused = outside.mean() > ALL_BUT_ERRORS and len(local) >= 2 * FEW and facts.has_long_window
        yield from _some("day-of-month", name, int(outside.sum()), len(local), says, refused=refused)
    elif facts.per_year[1] < 20 and len(local) >= FEW:
        day, count = Counter(local.dt.day).most_common(1)[0]
        if count > NEARLY_ALL * len(local):
            says = f"releases on day {day} of the month, as no calendar has it"
            yield from _some("day-of-month", name, count, len(local), says)


def _hours(name: str, local: pd.Series, times: Sequence[str], zone: str) -> Iterator[Departure]:
    clock = local.dt.strftime("%H:%M")
    other = ~clock.isin(times)
    if other.any():
        usual = " or ".join(times)
        says = f"releases at other hours than {usual} {zone} ({release_hours(local[other])}"
        says += f"; first {local[other].iloc[0]:%Y-%m-%d}){_slip(local, other, times, zone)}"
        yield from _some("hour", name, int(other.sum()), len(local), says)


def _slip(local: pd.Series, other: pd.Series, times: Sequence[str], zone: str) -> str:
    """What kind of clock gives such hours: one an hour off in half of the year, or another zone's."""
    usual = pd.Timestamp(f"2000-01-03 {times[0]}")
    minutes = local[other].dt.hour * 60 + local[other].dt.minute - (usual.hour * 60 + usual.minute)
    is_summer = local.map(lambda moment: bool(moment.dst()))
    if (
        other.sum() > 2
        and set(minutes) in ({60}, {-60})
        and is_summer.nunique() == 2
        and is_summer[other].nunique() == 1
    ):
        season = "summer" if is_summer[other].iloc[0] else "winter"
        return f", all in {season}: a clock without {zone}'s daylight saving"
    if other.sum() > 2 and other.all() and len(set(minutes)) == 1:
        return f", all by {int(minutes.iloc[0]) / 60:+g} h: another time zone than the one set"
    return ""


def _rhythm(
    name: str,
    times: pd.Series,
    facts: ReleaseFacts,
    reach: tuple[Any, Any],
    bars: tuple[date, date] | None,
) -> Iterator[Departure]:
    limit = pd.Timedelta(days=facts.longest_gap)
    edges = [*times]
    first, last = reach
    if bars is not None:
        # The calendar as a whole is covered by the reach of the training; a type within it is not.
        first = max(first, pd.Timestamp(bars[0], tz="UTC"))
        last = min(last, pd.Timestamp(bars[1], tz="UTC"))
    starts = [first] if first + limit < edges[0] else []
    ends = [last] if last - limit > edges[-1] else []
    moments = [*starts, *edges, *ends]
    pauses = [(a, b) for a, b in pairwise(moments) if b - a > limit]
    if pauses:
        shown = some([f"{a:%Y-%m-%d} to {b:%Y-%m-%d}" for a, b in pauses], most=3)
        says = f"times between releases are longer than {facts.longest_gap} days ({shown})"
        yield from _some("pause", name, len(pauses), len(moments) - 1, says)
    counts = times.dt.year.value_counts().sort_index()
    whole = counts[(counts.index > times.iloc[0].year) & (counts.index < times.iloc[-1].year)]
    many = counts[counts > facts.per_year[1]]
    few = whole[whole < facts.per_year[0]] if not pauses else whole.iloc[:0]
    if len(many) or len(few):
        odd = pd.concat([many, few]).sort_index()
        shown = some([f"{year}: {count}" for year, count in odd.items()])
        says = (
            f"years with fewer than {facts.per_year[0]} or more than {facts.per_year[1]} releases ({shown})"
        )
        yield from _some("count", name, len(odd), len(counts), says)


def _figures(name: str, rows: pd.DataFrame, facts: ReleaseFacts) -> Iterator[Departure]:
    if facts.figure is None:
        return
    table = rows[["actual", "forecast"]].abs()
    figures: pd.Series = pd.concat([table["actual"], table["forecast"]], ignore_index=True)
    figures = figures[(figures > 0) & np.isfinite(figures)]
    if figures.empty:
        return
    low, high = facts.figure
    fits = {unit: (figures * unit >= low) & (figures * unit <= high) for unit in facts.units}
    usual = max(fits, key=lambda unit: int(fits[unit].sum()))
    somewhere = pd.DataFrame(fits).any(axis=1)
    elsewhere, nowhere = somewhere & ~fits[usual], ~somewhere
    if elsewhere.sum() >= max(2, 0.05 * len(figures)):
        shown = some([f"{value:g}" for value in figures[elsewhere]], most=4)
        example = f"{figures[fits[usual]].median():g}"
        says = f"figures in another unit than the others ({shown}; the others are like {example})"
        yield from _some("unit", name, int(elsewhere.sum()), len(figures), says)
    if nowhere.any():
        shown = some([f"{value:g}" for value in figures[nowhere]], most=4)
        says = f"figures outside {low / usual:g} to {high / usual:g} ({shown})"
        yield from _some("figure", name, int(nowhere.sum()), len(figures), says)


def _flat(name: str, rows: pd.DataFrame, longest: int) -> list[Departure]:
    prices = rows[["open", "high", "low", "close"]].to_numpy()
    same = np.concatenate([[False], (prices[1:] == prices[:-1]).all(axis=1)])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(~same), [len(same)]]))
    stuck = int(runs[runs >= longest].sum())
    return _some("flat", name, stuck, len(rows), f"bars repeat the one before, {int(runs.max())} in a row")


_WEEKDAYS: Final = ("", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def _listed(local: pd.Series) -> str:
    return some([f"{moment:%a %Y-%m-%d}" for moment in local], most=3)


def _first(rows: pd.DataFrame) -> str:
    return "" if rows.empty else f"{rows['ts'].iloc[0]:%Y-%m-%d} at {rows['close'].iloc[0]:g}"
