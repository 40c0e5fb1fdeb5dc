"""The whole tensor: shape, agreement with its definition written twice, rows past the last bar, refusals."""

import numpy as np
import pandas as pd
import pytest
from event_reference import reference_tensor
from event_samples import (
    ANCHORS,
    World,
    bars_of,
    calendar_of,
    empty_leaders,
    event,
    new_york,
    random_world,
    session_days,
    walking_leaders,
)

from kronos_service.events.calendar import CalendarError
from kronos_service.events.encoder import EventEncoder, encode_rows, prepare
from kronos_service.events.leaders import LeaderError
from kronos_service.events.sessions import SessionError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, UnknownEventType
from kronos_shared.columns import ASSET_CLASSES
from kronos_shared.errors import KronosError


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
@pytest.mark.parametrize("number", range(len(ANCHORS)))
def test_the_tensor_agrees_with_its_definition(asset_class: str, number: int) -> None:
    world = random_world(asset_class, ANCHORS[number], seed=100 + number)
    encoded = encode_rows(world.tables(), world.bars["ts"], asset_class, horizon=5, symbol=None)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, reference_tensor(world, horizon=5), atol=1e-6)


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
def test_the_first_bar_that_may_be_is_encoded(asset_class: str) -> None:
    tables = random_world(asset_class, ANCHORS[0], seed=100).tables()
    assert encode_rows(tables, ["1990-01-02", "1990-01-03"], asset_class, symbol=None).shape == (
        2,
        len(DEFAULT_TAXONOMY.channels),
    )


def test_the_random_worlds_use_every_kind_of_channel() -> None:
    world = random_world("us_equity", ANCHORS[0], seed=100)
    encoded = encode_rows(world.tables(), world.bars["ts"], "us_equity", symbol=None)
    for kind in (
        slice(DEFAULT_TAXONOMY.surprise),
        DEFAULT_TAXONOMY.surprise,
        DEFAULT_TAXONOMY.days_until,
        slice(DEFAULT_TAXONOMY.first_leader, None),
    ):
        assert np.unique(encoded[:, kind]).size > 2


@pytest.mark.parametrize(("horizon", "rows"), [(0, 21), (1, 21), (2, 22), (10, 30), (80, 100)])
def test_rows_are_bars_and_all_but_one_of_the_horizon(horizon: int, rows: int) -> None:
    bars = bars_of(session_days("us_equity", "2024-02-01", "2024-03-01"))
    calendar = calendar_of([])
    encoded = EventEncoder().encode(bars, "us_equity", calendar, walking_leaders(), horizon=horizon)
    assert encoded.shape == (rows, 20)


@pytest.mark.parametrize("asset_class", ASSET_CLASSES)
def test_rows_past_the_last_bar_know_the_schedule_and_nothing_else(asset_class: str) -> None:
    """With a schedule that was always known they hold what the same targets hold when their bars exist."""
    world = random_world(asset_class, ANCHORS[5], seed=1)
    always = world.calendar[world.calendar["first_seen_at"].isna()]
    days = session_days(asset_class, "2024-11-18", "2024-12-10")
    world = World(asset_class, bars_of(days), always, world.leaders)
    whole = encode_rows(world.tables(), days, asset_class, symbol=None)
    ahead = encode_rows(world.tables(), days[:8], asset_class, horizon=len(days) - 7, symbol=None)
    np.testing.assert_array_equal(ahead[:8], whole[:8])
    np.testing.assert_array_equal(
        ahead[:, : DEFAULT_TAXONOMY.surprise], whole[:, : DEFAULT_TAXONOMY.surprise]
    )
    np.testing.assert_array_equal(
        ahead[:, DEFAULT_TAXONOMY.days_until], whole[:, DEFAULT_TAXONOMY.days_until]
    )
    assert not ahead[8:, [DEFAULT_TAXONOMY.surprise, *range(DEFAULT_TAXONOMY.first_leader, 20)]].any()
    assert ahead[8:, : DEFAULT_TAXONOMY.surprise].any()


def test_the_target_is_the_next_session_even_where_the_next_bar_is_missing() -> None:
    cpi = calendar_of([event("cpi", "cpi", new_york("2024-03-12 08:30"))])
    days = pd.to_datetime(["2024-03-08", "2024-03-11", "2024-03-13"])  # the bar of the 12th is missing
    encoded = EventEncoder().encode(bars_of(days), "us_equity", cpi, empty_leaders())
    np.testing.assert_array_equal(encoded[:, DEFAULT_TAXONOMY.families.index("cpi")], [0, 1, 0])


def test_a_calendar_says_everything_about_targets_until_ten_days_before_its_last_release() -> None:
    tables = prepare(calendar_of([], reach="2024-03-21T23:00:00Z"), empty_leaders())
    assert tables.covers == np.datetime64("2024-03-11")


def test_the_order_of_rows_does_not_matter() -> None:
    world = random_world("fx", ANCHORS[3], seed=9)
    ordered = World(
        "fx",
        world.bars,
        world.calendar.sort_values(["release_at", "event_id"], ascending=False),
        {name: frame.sort_values("ts", ascending=False) for name, frame in world.leaders.items()},
    )
    first, second = (encode_rows(w.tables(), w.bars["ts"], "fx", symbol=None) for w in (world, ordered))
    np.testing.assert_array_equal(first, second)


def encode_with(
    days: list[str], calendar: pd.DataFrame | None = None, leaders: dict[str, pd.DataFrame] | None = None
) -> None:
    calendar = calendar_of([]) if calendar is None else calendar
    leaders = empty_leaders() if leaders is None else leaders
    EventEncoder().encode(bars_of(days), "us_equity", calendar, leaders)


def test_each_mistake_is_named() -> None:
    day = ["2024-03-11"]
    short, eur = calendar_of([], reach="2024-03-21"), calendar_of([]).assign(currency="EUR")
    no_vix = {name: frame for name, frame in empty_leaders().items() if name != "VIX"}
    unknown = calendar_of([event("a", "tankan", new_york("2024-03-11 08:30"))])
    cases: list[tuple[type[KronosError], str, dict[str, object]]] = [
        (SessionError, "at least one bar", {"days": []}),
        (SessionError, "2024-03-10", {"days": ["2024-03-10"]}),
        (SessionError, "ascending", {"days": ["2024-03-12", "2024-03-11"]}),
        (SessionError, "ascending", {"days": ["2024-03-11", "2024-03-11"]}),
        (SessionError, "00:00 UTC", {"days": ["2024-03-11 05:00"]}),
        (CalendarError, "until 2024-03-22.*target 2024-03-12.*until 2024-03-21", {"calendar": short}),
        (CalendarError, "events in USD", {"calendar": eur}),
        (UnknownEventType, "tankan", {"calendar": unknown}),
        (LeaderError, "none of VIX", {"leaders": no_vix}),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            encode_with(**{"days": day, **arguments})  # type: ignore[arg-type]


def test_the_calendar_must_reach_ten_days_past_the_last_target() -> None:
    encode_with(["2024-03-11"], calendar_of([], reach="2024-03-22"))
    with pytest.raises(CalendarError, match="until 2024-03-22, 10 days past the last target 2024-03-12"):
        encode_with(["2024-03-11"], calendar_of([], reach="2024-03-21"))


def test_what_comes_after_the_reach_counts_from_the_last_forecast_bar() -> None:
    calendar = calendar_of([], reach="2024-03-22")
    with pytest.raises(CalendarError, match="2024-03-13"):
        EventEncoder().encode(bars_of(["2024-03-11"]), "us_equity", calendar, empty_leaders(), horizon=2)
