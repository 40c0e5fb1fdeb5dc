"""Days of 24-hour bars that do not begin at the session's: refused, or dated by the day on which they end."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.data.sources.session_dates import session_days
from kronos_service.data.sources.timestamps import TimestampError, read_timestamps
from kronos_service.events.sessions import sessions

NEW_YORK = "America/New_York"


def dated(stamps: list[str], zone: str, asset_class: str, day_starts: str | None = None) -> list[str]:
    moments = read_timestamps(pd.Series(stamps), "f, ts", zone)
    return [f"{day:%m-%d}" for day in session_days(moments, asset_class, "f, ts", day_starts=day_starts)]


@pytest.mark.parametrize(
    ("stamp", "zone"),
    [
        ("2024-01-01T16:00:00Z", "UTC"),  # OKX, BingX: midnight in Hong Kong
        ("2024-01-01T06:00:00Z", "UTC"),
        ("2024-01-01T06:00:00Z", "America/Chicago"),  # midnight there, and 6 hours past the UTC day
        ("2024-01-01T12:00:00Z", "UTC"),
        ("1704124800000", "UTC"),
    ],
)
def test_a_crypto_day_that_is_not_utcs_is_refused_with_its_remedy(stamp: str, zone: str) -> None:
    with pytest.raises(
        TimestampError, match=r"f, ts: 1 stamps .*day_starts = \{ crypto = \"(16|06|12):00\" \}"
    ):
        dated([stamp], zone, "crypto")


def test_the_end_of_the_utc_day_and_a_zone_to_the_east_are_fine() -> None:
    assert dated(["2024-01-02T23:59:59Z", "2024-01-02T23:59:59.999Z"], "UTC", "crypto") == ["01-02"] * 2
    assert dated(["2024-01-01T16:00:00Z"], "Asia/Hong_Kong", "crypto") == ["01-02"]


@given(start=st.integers(1, 23), day=st.integers(0, 300))
def test_a_shifted_crypto_day_ends_before_its_bar_may_be_known(start: int, day: int) -> None:
    begins = datetime(2024, 1, 1, start, tzinfo=UTC) + timedelta(days=day)
    moments = read_timestamps(pd.Series([begins.isoformat()]), "f", "UTC")
    (found,) = session_days(moments, "crypto", "f", day_starts=f"{start:02}:00")
    table = sessions("crypto", found.date(), found.date())
    ends = np.datetime64((begins + timedelta(days=1)).replace(tzinfo=None), "ns")
    assert ends <= table.as_of[0]
    assert table.as_of[0] - ends < np.timedelta64(24, "h")


def test_an_fx_day_that_begins_on_the_evening_before_takes_one_setting() -> None:
    # Tuesday evening, Sunday evening, and the shortened Thanksgiving Thursday, in summer and winter
    stamps = ["2021-07-13T21:00:00Z", "2021-07-18T21:00:00Z", "2021-11-25T23:00:00Z", "2021-11-26T00:00:00Z"]
    assert dated(stamps, NEW_YORK, "fx", "17:00") == ["07-14", "07-19", "11-26", "11-26"]
    assert dated(["2021-07-14", "2021-07-14 09:00"], NEW_YORK, "fx", "17:00") == ["07-14", "07-14"]
    for zone in ("UTC", NEW_YORK):
        with pytest.raises(TimestampError, match="evening before") as refused:
            dated(stamps[:1], zone, "fx")
        advised = 'ohlcv.time_zone = { fx = "America/New_York" }' in str(refused.value)
        assert advised == (zone != NEW_YORK)
        assert 'set ohlcv.day_starts = { fx = "17:00" }' in str(refused.value)


def test_the_advice_is_never_the_zone_that_is_set() -> None:
    with pytest.raises(TimestampError) as refused:
        dated(["2024-06-12T04:00:00Z"], "UTC", "us_equity")
    assert 'time_zone = { us_equity = "America/New_York" }' in str(refused.value)
    with pytest.raises(TimestampError) as refused:
        dated(["2024-06-12T18:20:00-04:00"], NEW_YORK, "us_equity")
    assert "they are 18:20" in str(refused.value)


def test_a_date_of_crypto_is_a_date_in_any_zone() -> None:
    moments = read_timestamps(pd.Series(["2024-06-12", "2024-06-13"]), "f", NEW_YORK)
    is_moment = pd.Series(False, index=moments.index)
    found = session_days(moments, "crypto", "f", is_moment=is_moment)
    assert [day.date() for day in found] == [date(2024, 6, 12), date(2024, 6, 13)]
