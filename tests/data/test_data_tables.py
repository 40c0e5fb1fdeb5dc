"""Raw frames take one form, whatever their reader made of them, or are refused by name."""

from datetime import date
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import small_calendar, small_tables

from kronos_service.data.tables import (
    OPTIONAL,
    ReleaseTimeError,
    TableError,
    bar_table,
    calendar_table,
    symbol_table,
)
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS

READERS = {
    "symbols": (symbol_table, SYMBOL_COLUMNS),
    "bars": (bar_table, BAR_COLUMNS),
    "calendar": (calendar_table, CALENDAR_COLUMNS),
}
COLUMNS = [(table, column) for table, (_, columns) in READERS.items() for column in columns]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_missing_column_is_named_unless_it_is_optional(table: str, column: str) -> None:
    read, columns = READERS[table]
    raw = small_tables()[table].drop(columns=column, errors="ignore")
    is_optional = column in OPTIONAL or (table, column) == ("calendar", "symbol")
    if is_optional and column != "event_id":  # without ids, the revision would be a second event
        typed = read(raw)
        assert tuple(typed.columns) == columns
        assert typed[column].isna().all()
    elif column != "event_id":
        with pytest.raises(TableError, match=rf"missing column {column};"):
            read(raw)


@pytest.mark.parametrize("table", list(READERS))
def test_an_empty_table_is_refused(table: str) -> None:
    with pytest.raises(TableError, match="is empty"):
        READERS[table][0](small_tables()[table].iloc[:0])


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_neither_row_order_nor_extra_columns_matter(seed: int) -> None:
    for table, (read, _) in READERS.items():
        raw = small_tables()[table]
        shuffled = raw.sample(frac=1, random_state=seed).assign(note="x")
        pd.testing.assert_frame_equal(read(shuffled), read(raw))


def test_absent_event_ids_are_made_from_type_and_release_date() -> None:
    made = calendar_table(small_calendar().iloc[:2].drop(columns="event_id"))
    assert made["event_id"].tolist() == ["nfp:2024-01-05", "cpi:2024-01-11"]
    both = small_calendar().iloc[[0, 0]].drop(columns="event_id").assign(currency=["USD", "CAD"])
    assert sorted(calendar_table(both)["event_id"]) == ["CAD:cpi:2024-01-11", "cpi:2024-01-11"]
    half = small_calendar().iloc[:2].assign(event_id=pd.Series(["kept", None], dtype=object))
    assert calendar_table(half)["event_id"].tolist() == ["nfp:2024-01-05", "kept"]


@pytest.mark.parametrize(
    "release",
    [
        "2024-01-11",
        pd.Series([date(2024, 1, 11)], dtype=object),
        pd.NaT,
        pd.Series(["2024-01-11T13:30:00Z", "2024-01-12"]),
    ],
    ids=["text", "date objects", "null", "one of two"],
)
def test_bare_release_dates_are_refused(release: Any) -> None:
    row = (
        small_calendar().iloc[[0, 0]]
        if isinstance(release, pd.Series) and len(release) > 1
        else small_calendar()[:1]
    )
    with pytest.raises(ReleaseTimeError, match="no time of day"):
        calendar_table(row.reset_index(drop=True).assign(release_at=release))


def test_times_of_any_precision_and_zone_become_utc_nanoseconds() -> None:
    written = ["2024-01-11T13:30:00Z", "2024-01-11T08:30:00.5-05:00", "2024-01-11 13:30:00.123456+00:00"]
    typed = calendar_table(small_calendar().iloc[:3].assign(release_at=written, event_id=["a", "c", "b"]))
    assert str(typed["release_at"].dtype) == "datetime64[ns, UTC]"
    expected = ["2024-01-11T13:30:00Z", "2024-01-11T13:30:00.123456Z", "2024-01-11T13:30:00.5Z"]
    assert typed["release_at"].tolist() == [pd.Timestamp(t) for t in expected]


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("bars", "close", "n/a", "column close must hold numbers"),
        ("bars", "ts", "yesterday", "column ts must hold ISO 8601 times"),
        ("bars", "ts", None, "have no ts"),
        ("bars", "symbol", None, "have no symbol"),
        ("symbols", "tradable", "perhaps", "tradable must be true or false"),
        ("calendar", "currency", None, "have no currency"),
        ("calendar", "actual", "3.1%", "column actual must hold numbers"),
    ],
)
def test_a_value_that_does_not_parse_is_refused(table: str, column: str, value: Any, message: str) -> None:
    raw = small_tables()[table].astype(object)
    raw.loc[raw.index[1], column] = value
    with pytest.raises(TableError, match=message) as refused:
        READERS[table][0](raw)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("truth", [True, "true", "t", 1, "True"])
def test_tradable_may_be_written_in_several_ways(truth: object) -> None:
    raw = small_tables()["symbols"].assign(tradable=pd.Series([truth] * 4, dtype=object))
    assert symbol_table(raw)["tradable"].all()
