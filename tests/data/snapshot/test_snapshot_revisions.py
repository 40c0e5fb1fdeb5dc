"""What a snapshot once knew stays; what the source overwrote becomes a revision seen now."""

from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.data.snapshot.revisions import Revised, revise
from kronos_service.data.tables import calendar_table

READ_AT = pd.Timestamp("2024-02-01T12:00Z")
NOW = pd.Timestamp("2024-03-01T12:00Z")
PAST, AHEAD = "2024-01-11T13:30Z", "2024-02-13T13:30Z"

Cells = dict[str, Any]


def calendar(*rows: Cells) -> pd.DataFrame:
    base = {"event_type": "cpi", "event_name": "CPI", "currency": "USD", "impact": "high", "forecast": 3.1}
    base |= {"event_id": "e", "release_at": PAST, "actual": None, "previous": None, "first_seen_at": None}
    return calendar_table(pd.DataFrame([base | row for row in rows]))


def merge(earlier: pd.DataFrame, today: pd.DataFrame) -> Revised:
    return revise(earlier, today, read_at=READ_AT.to_pydatetime(), now=NOW.to_pydatetime())


def versions(merged: Revised, *columns: str) -> list[tuple[Any, ...]]:
    rows = merged.calendar[list(columns)].astype(object)
    return [tuple(None if pd.isna(v) else v for v in row) for row in rows.itertuples(index=False)]


def test_a_calendar_that_has_not_changed_stays_as_it_is() -> None:
    same = calendar({"actual": 3.2}, {"event_id": "f", "release_at": AHEAD})
    merged = merge(same, same)
    pd.testing.assert_frame_equal(merged.calendar, same)
    assert (merged.added, merged.released, merged.overwritten, merged.gone) == (0, 0, 0, 0)


def test_a_release_since_the_last_export_fills_its_row() -> None:
    merged = merge(calendar({"release_at": AHEAD}), calendar({"release_at": AHEAD, "actual": 3.2}))
    assert versions(merged, "actual", "first_seen_at") == [(3.2, None)]
    assert merged.released == 1


def test_an_actual_that_came_late_was_first_seen_now() -> None:
    """The snapshot was read after the release, and the source had no actual then."""
    merged = merge(calendar({}), calendar({"actual": 3.2}))
    assert versions(merged, "actual", "first_seen_at") == [(None, None), (3.2, NOW)]
    assert merged.overwritten == 1


def test_an_overwritten_actual_keeps_the_first_one_and_is_a_revision_seen_now() -> None:
    merged = merge(calendar({"actual": 3.2}), calendar({"actual": 3.3}))
    assert versions(merged, "actual", "first_seen_at") == [(3.2, None), (3.3, NOW)]


def test_a_postponement_in_place_is_known_from_now_on() -> None:
    merged = merge(calendar({"release_at": AHEAD}), calendar({"release_at": "2024-02-20T13:30Z"}))
    assert versions(merged, "release_at", "first_seen_at") == [
        (pd.Timestamp(AHEAD), None),
        (pd.Timestamp("2024-02-20T13:30Z"), NOW),
    ]


def test_a_revision_that_the_source_keeps_as_a_row_is_taken_over() -> None:
    seen = "2024-02-20T12:00Z"
    today = calendar({"actual": 3.2}, {"actual": 3.0, "first_seen_at": seen})
    merged = merge(calendar({"actual": 3.2}), today)
    pd.testing.assert_frame_equal(merged.calendar, today)
    assert merged.added == 1


def test_a_forecast_changed_before_the_release_takes_the_actual_later() -> None:
    """Three exports: as scheduled; with another forecast; after the release."""
    first = calendar({"release_at": AHEAD, "forecast": 3.1})
    second = revise(
        first,
        calendar({"release_at": AHEAD, "forecast": 3.0}),
        read_at=pd.Timestamp("2024-01-01T00Z").to_pydatetime(),
        now=READ_AT.to_pydatetime(),
    )
    third = merge(second.calendar, calendar({"release_at": AHEAD, "forecast": 3.0, "actual": 3.2}))
    assert versions(third, "forecast", "actual", "first_seen_at") == [(3.1, None, None), (3.0, 3.2, READ_AT)]


def test_an_event_that_is_gone_from_the_source_stays_and_is_counted() -> None:
    merged = merge(calendar({"actual": 3.2}, {"event_id": "f"}), calendar({"actual": 3.2}))
    assert versions(merged, "event_id") == [("e",), ("f",)]
    assert merged.gone == 1


STATES = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": st.sampled_from("abc"),
            "actual": st.sampled_from([None, 1.0, 2.0]),
            "release_at": st.sampled_from([PAST, AHEAD]),
            "first_seen_at": st.sampled_from([None, "2024-01-20T00:00Z", "2024-02-20T00:00Z"]),
        }
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: (row["event_id"], row["first_seen_at"]),
)


@settings(max_examples=20, deadline=None)
@given(STATES, STATES)
def test_whatever_changes_nothing_known_is_lost_and_looking_again_adds_nothing(
    before: list[Cells], after: list[Cells]
) -> None:
    earlier, today = calendar(*before), calendar(*after)
    merged = merge(earlier, today)
    keys = ["event_id", "first_seen_at"]
    assert not merged.calendar.duplicated(keys).any()
    kept = merged.calendar.merge(earlier, on=keys, suffixes=("", "_before"))
    assert len(kept) == len(earlier)
    same = (kept["actual"] == kept["actual_before"]) | (kept["actual"].isna() & kept["actual_before"].isna())
    was_to_come = kept["actual_before"].isna() & (kept["release_at_before"] >= READ_AT)
    assert (same | was_to_come).all()
    assert (kept["release_at"] == kept["release_at_before"]).all()
    looks = [merged]
    for month in ("2024-04", "2024-05"):
        now = pd.Timestamp(f"{month}-01T12:00Z").to_pydatetime()
        looks.append(revise(looks[-1].calendar, today, read_at=now, now=now))
    pd.testing.assert_frame_equal(looks[2].calendar, looks[1].calendar)
