"""What really fell on each target."""

import numpy as np
import pandas as pd
import pytest
from event_samples import ANCHORS, calendar_of, event, new_york, random_world, session_days

from kronos_service.events.calendar import read_calendar
from kronos_service.events.encoder import encode_rows
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import SessionError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.columns import ASSET_CLASSES


def test_only_high_impact_events_of_the_currency_label_a_target() -> None:
    days = session_days("us_equity", "2024-03-11", "2024-03-15")
    calendar = calendar_of(
        [
            event("a", "cpi", new_york("2024-03-12 08:30")),
            event("b", "ppi", new_york("2024-03-13 08:30"), impact="medium"),
            event("c", "nfp", new_york("2024-03-14 08:30"), currency="EUR"),
            event("d", "gdp", new_york("2024-03-14 16:00")),
            event("old", "gdp", new_york("2020-03-14 16:00")),
        ]
    )
    labels = label_targets(read_calendar(calendar), "us_equity", days, symbol=None)
    assert labels.is_event.tolist() == [False, True, False, False, True]
    assert [(row, DEFAULT_TAXONOMY.families[family]) for row, family in np.argwhere(labels.families)] == [
        (1, "cpi"),
        (4, "gdp"),
    ]


@pytest.mark.parametrize(
    ("asset_class", "day", "before"),
    [
        ("us_equity", "2001-09-17", "2001-09-10"),  # the longest closure of these calendars
        ("us_equity", "2012-10-31", "2012-10-26"),  # Hurricane Sandy and a weekend
        ("index", "2022-01-18", "2022-01-14"),
        ("fx", "2024-01-08", "2024-01-05"),
    ],
)
def test_after_a_closure_the_first_target_has_the_events_since_the_session_before_it_alone(
    asset_class: str, day: str, before: str
) -> None:
    closed = new_york(f"{before} 17:00")
    inside = event("in", "cpi", closed + pd.Timedelta(hours=15))
    older = event("old", "nfp", closed - pd.Timedelta(hours=15))
    labels = label_targets(read_calendar(calendar_of([inside, older])), asset_class, [day], symbol=None)
    assert [DEFAULT_TAXONOMY.families[family] for family in np.flatnonzero(labels.families[0])] == ["cpi"]


def test_the_last_version_counts_whenever_it_was_seen() -> None:
    days = session_days("us_equity", "2024-03-11", "2024-03-15")
    planned = event("a", "cpi", new_york("2024-03-12 08:30"))
    moved = event("a", "cpi", new_york("2024-03-14 08:30"), first_seen_at=new_york("2024-04-01 09:00"))
    labels = label_targets(read_calendar(calendar_of([moved, planned])), "us_equity", days, symbol=None)
    assert labels.is_event.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
def test_labels_are_the_full_weights_of_a_schedule_that_was_always_known(asset_class: str) -> None:
    world = random_world(asset_class, ANCHORS[6], seed=3)
    calendar = world.calendar[world.calendar["first_seen_at"].isna()]
    days = session_days(asset_class, "2024-12-12", "2025-01-10")
    tables = type(world)(asset_class, world.bars, calendar, world.leaders).tables()
    encoded = encode_rows(tables, days[:-1], asset_class, symbol=None)
    labels = label_targets(read_calendar(calendar), asset_class, days[1:], symbol=None)
    np.testing.assert_array_equal(labels.families, encoded[:, : len(DEFAULT_TAXONOMY.families)] == 1.0)
    assert labels.is_event.any()
    assert not labels.is_event.all()


def test_dates_may_come_in_any_order_or_none() -> None:
    calendar = calendar_of([event("a", "cpi", new_york("2024-03-12 08:30"))])
    assert label_targets(
        read_calendar(calendar), "fx", ["2024-03-13", "2024-03-12"], symbol=None
    ).is_event.tolist() == [
        False,
        True,
    ]
    assert label_targets(read_calendar(calendar), "fx", [], symbol=None).families.shape == (0, 14)


def test_a_date_that_is_no_session_is_refused() -> None:
    with pytest.raises(SessionError, match="2024-03-10"):
        label_targets(read_calendar(calendar_of([])), "us_equity", ["2024-03-10"], symbol=None)


def test_no_bars_have_no_labels() -> None:
    labels = label_targets(read_calendar(calendar_of([])), "crypto", [], symbol=None)
    assert (labels.is_event.shape, labels.families.shape) == ((0,), (0, len(DEFAULT_TAXONOMY.families)))
    assert labels.is_event.dtype == labels.families.dtype == np.bool_
