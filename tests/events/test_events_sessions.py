"""When bars open, close and may be conditioned, checked against times worked out by hand."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from event_samples import new_york, utc_time
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.events.sessions import SessionError, Sessions, locate, sessions, target_index, utc
from kronos_shared.columns import ASSET_CLASSES


def one_session(asset_class: str, day: str) -> Sessions:
    return sessions(asset_class, date.fromisoformat(day), date.fromisoformat(day))


@pytest.mark.parametrize(
    ("asset_class", "day", "opens", "closes", "as_of"),
    [
        ("us_equity", "2024-03-06", "03-06 09:30", "03-06 16:00", "03-06 17:00"),
        ("us_equity", "2024-07-03", "07-03 09:30", "07-03 13:00", "07-03 14:00"),
        ("us_equity", "2024-03-08", "03-08 09:30", "03-08 16:00", "03-08 17:00"),
        ("index", "2024-03-06", "03-06 09:30", "03-06 16:15", "03-06 17:15"),
        ("index", "2024-07-03", "07-03 09:30", "07-03 13:15", "07-03 14:15"),
        ("fx", "2024-03-06", "03-05 17:00", "03-06 17:00", "03-06 17:00"),
        ("fx", "2024-03-08", "03-07 17:00", "03-08 17:00", "03-08 18:00"),
        ("fx", "2024-03-11", "03-10 17:00", "03-11 17:00", "03-11 17:00"),
    ],
)
def test_new_york_sessions(asset_class: str, day: str, opens: str, closes: str, as_of: str) -> None:
    found = one_session(asset_class, day)
    for times, expected in ((found.opens, opens), (found.closes, closes), (found.as_of, as_of)):
        assert pd.Timestamp(times[0], tz="UTC") == new_york(f"2024-{expected}")


@pytest.mark.parametrize(
    ("day", "close"),
    [("2024-03-08", "21:00"), ("2024-03-11", "20:00"), ("2024-11-01", "20:00"), ("2024-11-04", "21:00")],
)
def test_the_close_in_utc_moves_with_daylight_saving(day: str, close: str) -> None:
    assert one_session("us_equity", day).closes[0] == np.datetime64(f"{day}T{close}")


def test_the_week_when_only_europe_has_changed_its_clocks_keeps_new_york_hours() -> None:
    assert one_session("fx", "2024-10-29").closes[0] == np.datetime64("2024-10-29T21:00")


def test_a_crypto_bar_is_known_when_its_day_is_over_and_not_an_hour_later() -> None:
    found = one_session("crypto", "2024-03-10")
    assert found.opens[0] == np.datetime64("2024-03-10T00:00")
    assert found.closes[0] == found.as_of[0] == np.datetime64("2024-03-11T00:00")


@pytest.mark.parametrize(
    ("asset_class", "day", "is_session"),
    [
        ("us_equity", "2024-07-04", False),
        ("us_equity", "2025-01-09", False),  # the day of mourning for President Carter
        ("index", "2024-03-29", False),  # Good Friday
        ("fx", "2024-03-29", True),
        ("fx", "2024-03-09", False),
        ("crypto", "2024-12-25", True),
    ],
)
def test_holidays(asset_class: str, day: str, is_session: bool) -> None:
    assert len(one_session(asset_class, day).dates) == is_session


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
@given(start=st.dates(date(2000, 1, 1), date(2035, 12, 1)), days=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_sessions_are_ordered_and_no_as_of_is_later_than_the_next_open(
    asset_class: str, start: date, days: int
) -> None:
    found = sessions(asset_class, start, start + timedelta(days=days))
    after = sessions(asset_class, start, start + timedelta(days=days + 40))
    assert (found.opens < found.closes).all()
    assert (found.closes <= found.as_of).all()
    assert (found.as_of <= found.closes + np.timedelta64(1, "h")).all()
    assert (found.as_of <= after.opens[1 : len(found.dates) + 1]).all()
    assert (found.dates >= np.datetime64(start)).all()
    np.testing.assert_array_equal(found.as_of, after.as_of[: len(found.dates)])


def test_locate_finds_each_bar() -> None:
    found = sessions("us_equity", date(2024, 7, 1), date(2024, 7, 8))
    assert locate(found, pd.to_datetime(["2024-07-08", "2024-07-05"], utc=True)).tolist() == [4, 3]


@pytest.mark.parametrize("day", ["2024-07-04", "2024-06-28", "2024-07-09"])
def test_locate_names_a_date_that_is_no_session(day: str) -> None:
    found = sessions("us_equity", date(2024, 7, 1), date(2024, 7, 8))
    with pytest.raises(SessionError, match=day):
        locate(found, [day])


def test_no_more_than_three_wrong_dates_are_named() -> None:
    found = sessions("us_equity", date(2024, 7, 1), date(2024, 7, 8))
    weekend = ["2024-07-04", "2024-07-06", "2024-07-07", "2024-07-09", "2024-07-10"]
    named = "got 5 others, the first 2024-07-04, 2024-07-06, 2024-07-07: check"
    with pytest.raises(SessionError, match=named):
        locate(found, weekend)


@pytest.mark.parametrize("asset_class", ["us_equity", "index", "fx"])
def test_hourly_bars_are_of_crypto_alone(asset_class: str) -> None:
    with pytest.raises(SessionError, match=f"1h bars of asset class {asset_class}: "):
        sessions(asset_class, date(2024, 7, 1), date(2024, 7, 8), "1h")


def test_a_bar_time_within_the_day_is_refused() -> None:
    found = sessions("crypto", date(2024, 7, 1), date(2024, 7, 8))
    with pytest.raises(SessionError, match="2024-07-02T13:30"):
        locate(found, ["2024-07-02 13:30"])


def test_a_release_at_the_close_belongs_to_the_next_session() -> None:
    found = sessions("us_equity", date(2024, 7, 1), date(2024, 7, 8))
    releases = utc(pd.Series([new_york("2024-07-02 15:59:59"), new_york("2024-07-02 16:00")]))
    assert found.dates[target_index(found, releases)].astype(str).tolist() == ["2024-07-02", "2024-07-03"]


def test_any_zone_becomes_utc() -> None:
    mixed = pd.Series([new_york("2024-03-06 08:30"), utc_time("2024-03-06 13:30")])
    assert (utc(mixed) == np.datetime64("2024-03-06T13:30")).all()
    texts = ["2024-03-06 08:30-05:00", "2024-03-06 14:30+01:00"]
    assert (utc(texts) == np.datetime64("2024-03-06T13:30")).all()
    assert utc(["2024-03-06 13:30"]).tolist() == utc(texts[:1]).tolist()


def test_unknown_asset_classes_and_dates_before_1990_are_refused() -> None:
    with pytest.raises(SessionError, match="'bond'"):
        sessions("bond", date(2024, 7, 1), date(2024, 7, 8))
    with pytest.raises(SessionError, match="1990-01-01"):
        sessions("crypto", date(1989, 7, 1), date(2024, 7, 8))


def test_the_shared_tables_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        one_session("crypto", "2024-03-10").as_of[0] = 0
