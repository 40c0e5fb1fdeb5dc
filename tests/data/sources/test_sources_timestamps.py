"""A stamp gives the right session date or is refused, whatever zone is claimed for it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.data.sources.column_map import FileMap
from kronos_service.data.sources.session_dates import session_days
from kronos_service.data.sources.timestamps import (
    TimestampError,
    read_timestamps,
    refuse_bare_dates,
)
from kronos_service.data.tables import ReleaseTimeError
from kronos_service.events.sessions import sessions

NEW_YORK = "America/New_York"
ZONES = [
    "UTC",
    NEW_YORK,
    "America/Chicago",
    "Europe/London",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Pacific/Honolulu",
    "Pacific/Kiritimati",
]
HALF_DAY = date(2024, 7, 3)


def days(stamps: list[object], zone: str, asset_class: str = "us_equity") -> list[str]:
    moments = read_timestamps(pd.Series(stamps), "file, ts", zone)
    return [f"{day:%Y-%m-%d}" for day in session_days(moments, asset_class, "file, ts")]


@pytest.mark.parametrize(
    ("stamps", "zone", "asset_class"),
    [
        (["2024-03-08", "2024-03-11"], "UTC", "us_equity"),
        (["20240308", "20240311"], NEW_YORK, "us_equity"),
        (["2024-03-08 16:00", "2024-03-11 09:30:00"], NEW_YORK, "us_equity"),
        # New York put its clocks forward on 10 March 2024.
        (["2024-03-08T00:00:00-05:00", "2024-03-11T00:00:00-04:00"], NEW_YORK, "us_equity"),
        (["2024-03-08T05:00:00Z", "2024-03-11T04:00:00Z"], NEW_YORK, "us_equity"),
        (["2024-03-08T00:00:00Z", "2024-03-11T00:00:00Z"], "UTC", "us_equity"),
        (["2024-03-08 00:00:00-06:00", "2024-03-11 00:00:00-05:00"], "America/Chicago", "index"),
        (["2024-03-08T00:00:00Z", "2024-03-11T23:59:59.999Z"], "UTC", "crypto"),
        (["2024-03-08", "2024-03-11"], NEW_YORK, "fx"),
        ([date(2024, 3, 8), date(2024, 3, 11)], NEW_YORK, "us_equity"),
        ([datetime(2024, 3, 8), datetime(2024, 3, 11)], NEW_YORK, "us_equity"),
        ([datetime(2024, 3, 8, 5, tzinfo=UTC), datetime(2024, 3, 11, 4, tzinfo=UTC)], NEW_YORK, "us_equity"),
    ],
)
def test_the_stamps_that_vendors_use_become_the_session_date(
    stamps: list[object], zone: str, asset_class: str
) -> None:
    assert days(stamps, zone, asset_class) == ["2024-03-08", "2024-03-11"]


@pytest.mark.parametrize(
    ("stamp", "zone", "asset_class"),
    [
        ("2024-06-12T00:00:00Z", NEW_YORK, "crypto"),  # 20:00 of the 11th in New York: a day too early
        ("2024-06-12T00:00:00Z", NEW_YORK, "us_equity"),
        ("2024-06-12T00:00:00Z", NEW_YORK, "fx"),
        ("2024-06-12T04:00:00Z", "UTC", "us_equity"),  # right by luck: 24-hour bars would not be
        ("2024-06-12T21:00:00Z", "UTC", "fx"),  # the open of the next session
        ("2024-07-03T19:00:00Z", NEW_YORK, "us_equity"),  # two hours after the half day's close
    ],
)
def test_a_stamp_that_could_be_another_day_is_refused(stamp: str, zone: str, asset_class: str) -> None:
    with pytest.raises(
        TimestampError, match=r"file, ts: 1 stamps are neither midnight .* set ohlcv\.(time_zone|day_starts)"
    ):
        days([stamp], zone, asset_class)


@given(
    asset_class=st.sampled_from(["us_equity", "index", "fx", "crypto"]),
    at=st.integers(0, 400),
    kind=st.sampled_from(["utc midnight", "new york midnight", "open", "inside"]),
    share=st.floats(0, 0.999),
    claimed=st.sampled_from(ZONES),
    as_text=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_no_claimed_zone_moves_a_bar_to_another_session(
    asset_class: str, at: int, kind: str, share: float, claimed: str, as_text: bool
) -> None:
    table = sessions(asset_class, date(2023, 1, 1), date(2024, 12, 31))
    day, open_, close = table.dates[at].item(), table.opens[at], table.closes[at]
    moment = {
        "utc midnight": datetime.combine(day, datetime.min.time(), UTC),
        "new york midnight": datetime.combine(day, datetime.min.time(), ZoneInfo(NEW_YORK)),
        "open": pd.Timestamp(open_, tz="UTC").to_pydatetime(),
        "inside": pd.Timestamp(open_ + (close - open_) * share, tz="UTC").floor("s").to_pydatetime(),
    }[kind]
    stamp = moment.isoformat() if as_text else moment.astimezone(UTC)
    try:
        (found,) = days([stamp], claimed, asset_class)
    except TimestampError:
        return
    # What falls on a date without a session is listed by the validation.
    is_session = np.isin(np.datetime64(found), table.dates)
    # What happens to be midnight in the zone claimed is a date, even if it was meant as a moment.
    if is_session and not (kind in ("open", "inside") and _is_midnight(moment, claimed)):
        assert found == day.isoformat()


def _is_midnight(moment: datetime, zone: str) -> bool:
    return moment.astimezone(ZoneInfo(zone)).time() == datetime.min.time()


@given(
    wall=st.datetimes(datetime(2020, 1, 1), datetime(2026, 12, 31)).map(
        lambda t: t.replace(second=0, microsecond=0)
    ),
    zone=st.sampled_from(ZONES),
)
@settings(max_examples=50, deadline=None)
def test_a_time_without_a_zone_is_the_moment_that_clocks_there_showed_it(wall: datetime, zone: str) -> None:
    there = wall.replace(tzinfo=ZoneInfo(zone))
    doubtful = there.utcoffset() != there.replace(fold=1).utcoffset()
    try:
        (found,) = read_timestamps(pd.Series([f"{wall:%Y-%m-%d %H:%M}"]), "file, release_at", zone)
    except TimestampError:
        assert doubtful
        return
    assert not doubtful
    assert found == there


@pytest.mark.parametrize("wall", ["2024-11-03 01:30", "2024-03-10 02:30"])
def test_an_hour_that_a_clock_change_repeats_or_skips_is_refused(wall: str) -> None:
    with pytest.raises(TimestampError, match=f"file, release_at: expected ISO 8601 times, got .*{wall}"):
        read_timestamps(pd.Series(["2024-06-12 08:30", wall]), "file, release_at", NEW_YORK)


def test_text_with_and_without_its_own_zone_may_be_mixed_and_nulls_stay() -> None:
    raw = pd.Series(
        ["2024-06-12 08:30", "2024-06-12T12:30:00Z", None, "2024-06-12T08:30-0400", "20240612T083000"]
    )
    found = read_timestamps(raw, "file, release_at", NEW_YORK)
    assert found.isna().tolist() == [False, False, True, False, False]
    assert set(found.dropna()) == {pd.Timestamp("2024-06-12T12:30Z")}


def test_a_format_and_an_epoch_say_how_to_read_what_is_not_iso() -> None:
    moment = pd.Timestamp("2024-06-12T12:30Z")
    american = pd.Series(["06/12/2024 08:30AM"])
    assert read_timestamps(american, "f", NEW_YORK, FileMap(time_format="%m/%d/%Y %I:%M%p"))[0] == moment
    with_offset = pd.Series(["12.06.24 14:30 +0200"])
    assert read_timestamps(with_offset, "f", NEW_YORK, FileMap(time_format="%d.%m.%y %H:%M %z"))[0] == moment
    # A date at the end is no offset.
    assert (
        read_timestamps(pd.Series(["08:30 12-06-24"]), "f", NEW_YORK, FileMap(time_format="%H:%M %d-%m-%y"))[
            0
        ]
        == moment
    )
    for value in (1718195400000, "1718195400000", 1718195400000.0):
        assert read_timestamps(pd.Series([value]), "f", NEW_YORK, FileMap(epoch="ms"))[0] == moment


@pytest.mark.parametrize("value", ["yesterday", "17181954", "06/12/2024", 17181954, 17.5])
def test_what_is_not_a_time_is_refused_with_its_value(value: object) -> None:
    with pytest.raises(TimestampError, match="f: expected ISO 8601 times, got .*" + str(value)[:4]):
        read_timestamps(pd.Series([value]), "f", "UTC")


def test_a_release_needs_a_time_of_day() -> None:
    def refuse(values: Sequence[Any], at_midnight: bool) -> None:
        raw = pd.Series(values)
        moments = read_timestamps(raw, "f", NEW_YORK)
        refuse_bare_dates(raw, moments, pd.Series(at_midnight, index=raw.index), "f")

    refuse(["2024-06-12 08:30", None], True)
    refuse(["2024-06-12 00:00"], False)
    for bare in (["2024-06-12"], [date(2024, 6, 12)]):
        with pytest.raises(ReleaseTimeError, match=r"f: 1 values have no time of day \(row 1: 2024-06-12"):
            refuse(bare, False)
    for midnight in (["2024-06-12 08:30", "2024-06-12 00:00"], [datetime(2024, 6, 12)]):
        with pytest.raises(ReleaseTimeError, match=f"row {len(midnight)}"):
            refuse(midnight, True)


def test_half_days_and_null_stamps_do_not_get_in_the_way() -> None:
    close = datetime(2024, 7, 3, 13, tzinfo=ZoneInfo(NEW_YORK))
    found = session_days(
        read_timestamps(pd.Series([close.isoformat(), None]), "f", NEW_YORK), "us_equity", "f"
    )
    assert found.isna().tolist() == [False, True]
    assert found[0] == pd.Timestamp(HALF_DAY, tz="UTC")
    saturday = (HALF_DAY + timedelta(days=3)).isoformat() + " 12:00"
    assert days([saturday], NEW_YORK) == ["2024-07-06"]  # for the validation to list
