"""On which target each event falls and since when that was known: worked examples, and a rule for all."""

from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from event_samples import bars_of, calendar_of, empty_leaders, event, new_york, session_days, utc_time
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.events.encoder import encode_rows, prepare
from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.columns import ASSET_CLASSES


def encode(asset_class: str, days: npt.ArrayLike, *rows: dict[str, object]) -> npt.NDArray[np.float32]:
    bars = bars_of(np.asarray(days))
    return encode_rows(prepare(calendar_of(rows), empty_leaders()), bars["ts"], asset_class, symbol=None)


def targets_of(asset_class: str, around: str, event_type: str, release_at: pd.Timestamp) -> list[str]:
    """The target dates, within a fortnight, that carry the event."""
    day, week = date.fromisoformat(around), timedelta(days=7)
    days = sessions(asset_class, day - week, day + week).dates
    events = encode(asset_class, days[:-1], event("e", event_type, release_at))
    return [str(day) for day in days[1:][events[:, : len(DEFAULT_TAXONOMY.families)].any(axis=1)]]


@pytest.mark.parametrize(
    ("asset_class", "event_type", "release_at", "target"),
    [
        # A rate decision at 14:00 New York is within the day of every market.
        ("us_equity", "fomc_rate_decision", "2024-03-20 14:00", "2024-03-20"),
        ("crypto", "fomc_rate_decision", "2024-03-20 14:00", "2024-03-20"),
        # Minutes at 14:00 on a half day come after the close at 13:00 (the VIX: 13:15); a holiday follows.
        ("us_equity", "fomc_minutes", "2024-07-03 14:00", "2024-07-05"),
        ("index", "fomc_minutes", "2024-07-03 14:00", "2024-07-05"),
        ("index", "fomc_minutes", "2024-07-03 13:14", "2024-07-03"),
        ("fx", "fomc_minutes", "2024-07-03 14:00", "2024-07-03"),
        # A weekend's event falls on Monday's bar, but crypto trades on Sundays.
        ("us_equity", "gdp", "2024-03-10 10:00", "2024-03-11"),
        ("fx", "gdp", "2024-03-10 10:00", "2024-03-11"),
        ("crypto", "gdp", "2024-03-10 10:00", "2024-03-10"),
        # 20:30 UTC is past the close in summer time, and within the session in winter time.
        ("us_equity", "gdp", "2024-03-08 15:30", "2024-03-08"),
        ("us_equity", "gdp", "2024-03-11 16:30", "2024-03-12"),
        # Between 16:00 and 16:15 New York the VIX still trades; until 17:00 the dollar index does.
        ("us_equity", "gdp", "2024-03-06 16:10", "2024-03-07"),
        ("index", "gdp", "2024-03-06 16:10", "2024-03-06"),
        ("index", "gdp", "2024-03-06 16:15", "2024-03-07"),
        ("fx", "gdp", "2024-03-06 16:59", "2024-03-06"),
        ("fx", "gdp", "2024-03-06 17:00", "2024-03-07"),
        # An evening in New York is the next day in UTC.
        ("crypto", "gdp", "2024-03-06 18:59", "2024-03-06"),
        ("crypto", "gdp", "2024-03-06 19:00", "2024-03-07"),
    ],
)
def test_worked_examples(asset_class: str, event_type: str, release_at: str, target: str) -> None:
    assert targets_of(asset_class, target, event_type, new_york(release_at)) == [target]


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
@given(minute=st.integers(0, 60 * 24 * 730))
@settings(max_examples=30, deadline=None)
def test_each_event_falls_on_exactly_one_target(asset_class: str, minute: int) -> None:
    release = pd.Timestamp("2024-01-02", tz="UTC") + pd.Timedelta(minute, "min")
    assert len(targets_of(asset_class, str(release.date()), "nfp", release)) == 1


def test_a_family_keeps_its_largest_weight() -> None:
    rows = [
        event("a", "fomc_statement", new_york("2024-03-20 14:00"), impact="medium"),
        event("b", "fomc_rate_decision", new_york("2024-03-20 14:00"), impact="high"),
        event("c", "fomc_press_conference", new_york("2024-03-20 14:30"), impact="low"),
        event("d", "jobless_claims", new_york("2024-03-20 08:30"), impact="medium"),
        event("e", "jolts", new_york("2024-03-20 10:00"), impact="low"),
    ]
    events = encode("us_equity", ["2024-03-19"], *rows)
    weights = dict(zip(DEFAULT_TAXONOMY.families, events[0], strict=False))
    assert {name: weight for name, weight in weights.items() if weight} == {
        "fomc_rate": 1.0,
        "jobless_claims": 0.5,
        "sentiment_and_labour": 0.25,
    }


def test_a_postponement_moves_the_event_once_it_is_seen() -> None:
    """Planned for Wednesday, put off on Tuesday at as_of (17:00) exactly to Thursday."""
    days = ["2024-03-11", "2024-03-12", "2024-03-13"]
    moved = event("cpi", "cpi", new_york("2024-03-14 08:30"), first_seen_at=new_york("2024-03-12 17:00"))
    planned = event("cpi", "cpi", new_york("2024-03-13 08:30"))
    cpi = encode("us_equity", days, planned, moved)[:, DEFAULT_TAXONOMY.families.index("cpi")]
    assert cpi.tolist() == [0, 0, 1]
    late = moved | {"first_seen_at": new_york("2024-03-12 17:00:01")}
    cpi = encode("us_equity", days, planned, late)[:, DEFAULT_TAXONOMY.families.index("cpi")]
    assert cpi.tolist() == [0, 1, 1]


def test_an_event_first_seen_after_as_of_is_not_scheduled() -> None:
    surprise_cut = event(
        "cut", "fomc_rate_decision", new_york("2024-03-13 10:00"), first_seen_at=new_york("2024-03-13 10:00")
    )
    assert not encode("us_equity", ["2024-03-12"], surprise_cut).any()


def test_days_until_counts_from_the_target_to_the_session_of_the_next_high_impact_event() -> None:
    """A Saturday's event counts as Monday's; medium impact does not count; 10 days ahead is out of sight."""
    days = session_days("us_equity", "2024-02-28", "2024-03-11")
    rows = [
        event("a", "gdp", new_york("2024-03-09 10:00")),
        event("b", "jobless_claims", new_york("2024-03-07 08:30"), impact="medium"),
    ]
    found = dict(
        zip(days[1:], encode("us_equity", days, *rows)[:, DEFAULT_TAXONOMY.days_until], strict=False)
    )
    expected = {
        "02-29": 0.0,
        "03-01": 0.0,
        "03-04": 0.3,
        "03-05": 0.4,
        "03-06": 0.5,
        "03-07": 0.6,
        "03-08": 0.7,
    }
    for day, value in (expected | {"03-11": 1.0}).items():
        assert found[np.datetime64(f"2024-{day}")] == pytest.approx(value)


def test_days_until_looks_only_ahead() -> None:
    events = encode("crypto", ["2024-03-12"], event("a", "gdp", utc_time("2024-03-12 23:59")))
    assert events[0, DEFAULT_TAXONOMY.days_until] == 0
