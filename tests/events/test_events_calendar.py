"""The calendar as sorted versions, and the refusals."""

import numpy as np
import pandas as pd
import pytest
from event_samples import calendar_of, event, utc_time

from kronos_service.events.calendar import (
    ALWAYS,
    EVERYBODY,
    NEVER,
    CalendarError,
    calendar_reach,
    read_calendar,
    symbols_of,
)

RELEASE = utc_time("2024-03-12 12:30")


def versions() -> pd.DataFrame:
    """One event seen three times, and one in another currency."""
    return calendar_of(
        [
            event("cpi", "cpi", RELEASE, first_seen_at=utc_time("2024-03-20"), actual=2.0),
            event("cpi", "cpi", RELEASE),
            event("boj", "tankan", RELEASE, currency="JPY"),
            event("cpi", "cpi", RELEASE, first_seen_at=utc_time("2024-03-12 12:31"), actual=1.0),
        ]
    )


def test_a_version_stands_until_the_next_one_is_seen() -> None:
    rows = read_calendar(versions())
    assert rows.event_id.tolist() == ["cpi", "cpi", "cpi", "last"]
    assert rows.first_seen_at[0] == ALWAYS
    np.testing.assert_array_equal(rows.superseded_at[:2], rows.first_seen_at[1:3])
    assert (rows.superseded_at[2:] == NEVER).all()
    np.testing.assert_array_equal(rows.actual, [np.nan, 1.0, 2.0, np.nan])


def test_a_calendar_without_first_seen_at_was_always_known() -> None:
    rows = read_calendar(calendar_of([event("cpi", "cpi", RELEASE)]).drop(columns="first_seen_at"))
    assert (rows.first_seen_at == ALWAYS).all()


def test_rows_of_a_calendar_without_symbols_are_everybody_s() -> None:
    plain = versions().iloc[::-1]
    named = plain.assign(symbol=pd.Series(["SYN01", None, "SYN02", None, None], index=plain.index))
    assert symbols_of(plain).tolist() == [EVERYBODY] * len(plain)
    assert symbols_of(plain).index.equals(plain.index)
    assert symbols_of(named).tolist()[:3] == ["SYN01", EVERYBODY, "SYN02"]
    rows = read_calendar(plain)
    assert rows.falls_on(None).all()
    assert rows.falls_on("SYN01").all()


def test_the_reach_is_the_last_date_in_usd() -> None:
    calendar = calendar_of([event("boj", "cpi", utc_time("2031-01-01"), currency="JPY")], reach="2030-05-06")
    assert calendar_reach(calendar) == np.datetime64("2030-05-06")


@pytest.mark.parametrize(
    ("calendar", "message"),
    [
        (calendar_of([event("a", "cpi", RELEASE) | {"release_at": pd.NaT}]), "release_at in every row"),
        (calendar_of([event("a", "cpi", RELEASE) | {"event_id": None}]), "event_id"),
        (calendar_of([event("a", "cpi", RELEASE, impact="huge")]), "got huge"),
        (calendar_of([event("a", "cpi", RELEASE), event("a", "cpi", RELEASE)]), "the first of a:"),
        (calendar_of([]).drop(columns=["impact", "actual"]), "none named impact, actual"),
    ],
)
def test_what_cannot_be_encoded_is_named(calendar: pd.DataFrame, message: str) -> None:
    with pytest.raises(CalendarError, match=message):
        read_calendar(calendar)


def test_a_calendar_without_usd_events_has_no_reach() -> None:
    with pytest.raises(CalendarError, match="got none"):
        calendar_reach(versions().query("currency == 'JPY'"))
