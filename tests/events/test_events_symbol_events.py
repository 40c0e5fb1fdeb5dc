"""Events of single symbols: they fall on that symbol's bars alone, and say nothing before their time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from event_samples import (
    ANCHORS,
    SPAN,
    World,
    bars_of,
    calendar_of,
    empty_leaders,
    event,
    new_york,
    random_moments,
    random_world,
    session_days,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_events_leakage import (
    PHASES,
    assert_same_bits,
    at_the_release_itself,
    known_until_the_next_close,
    one_day_before_the_release,
    scale_from_all_surprises,
    scramble,
    seeds,
    whenever_first_seen,
)

from kronos_service.events import encoder, surprises
from kronos_service.events.calendar import (
    ALWAYS,
    EVERYBODY,
    NEVER,
    CalendarError,
    CalendarRows,
    read_calendar,
)
from kronos_service.events.encoder import EventEncoder, EventTables, encode_rows, prepare
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import locate, sessions
from kronos_service.events.surprises import Surprises, find_surprises
from kronos_service.events.taxonomy import Taxonomy, taxonomy_of

OWN = taxonomy_of(
    {
        "version": 3,
        "currency": "USD",
        "families": {
            "cpi": ["cpi"],
            "earnings": ["earnings_before_open", "earnings_after_close"],
            "dividend": ["dividend"],
            "claims": ["jobless_claims"],
        },
        "symbol_types": ["earnings_before_open", "earnings_after_close", "dividend"],
        "leaders": {"BTCUSDT": "crypto", "SPY": "us_equity", "DXY": "fx", "VIX": "index"},
    },
    "the test",
)
EARNINGS, CLAIMS = OWN.families.index("earnings"), OWN.families.index("claims")
SYMBOLS = ("ABC", "ABCD", "XYZ")
"""One is the beginning of another."""
WEEK = session_days("us_equity", "2024-05-01", "2024-05-10")


def own_tables(*rows: dict[str, Any]) -> EventTables:
    calendar = calendar_of(rows)
    calendar["symbol"] = [*(row.get("symbol") for row in rows), None]
    return prepare(calendar, empty_leaders(), OWN)


def earnings(kind: str, at: str, symbol: str = "ABC", **values: Any) -> dict[str, Any]:
    release_at = new_york(at)
    return event(f"{symbol}:{kind}:{release_at.date()}", kind, release_at, symbol=symbol, **values)


def targets(tables: EventTables, symbol: str | None, family: int = EARNINGS) -> list[str]:
    """The session dates on which an event of the family is expected, one bar ahead."""
    encoded = encode_rows(tables, WEEK[:-1], "us_equity", symbol=symbol)
    return [str(day) for day, row in zip(WEEK[1:], encoded, strict=True) if row[family]]


@pytest.mark.parametrize(
    ("kind", "at", "target"),
    [
        ("earnings_before_open", "2024-05-07 07:00", "2024-05-07"),
        ("earnings_before_open", "2024-05-07 09:29", "2024-05-07"),
        ("earnings_after_close", "2024-05-07 15:59", "2024-05-07"),
        ("earnings_after_close", "2024-05-07 16:00", "2024-05-08"),  # at the very close: the next session
        ("earnings_after_close", "2024-05-07 16:05", "2024-05-08"),
        ("earnings_after_close", "2024-05-03 16:30", "2024-05-06"),  # a Friday's fall on Monday
        ("dividend", "2024-05-09 09:30", "2024-05-09"),
    ],
)
def test_a_symbol_event_falls_on_the_session_that_closes_first_after_it(
    kind: str, at: str, target: str
) -> None:
    tables = own_tables(earnings(kind, at))
    family = OWN.families.index(OWN.event_types[kind])
    assert targets(tables, "ABC", family) == [target]
    labels = label_targets(tables.rows, "us_equity", WEEK, symbol="ABC")
    assert [str(day) for day in WEEK[labels.families[:, family]]] == [target]


@pytest.mark.parametrize("symbol", ["ABCD", "AB", "abc", "XYZ", None])
def test_no_other_symbol_sees_it(symbol: str | None) -> None:
    tables = own_tables(
        earnings("earnings_before_open", "2024-05-07 07:00", actual=2.0, forecast=1.0),
        event("all", "jobless_claims", new_york("2024-05-08 08:30"), impact="low"),
    )
    encoded = encode_rows(tables, WEEK[:-1], "us_equity", symbol=symbol)
    claims = encoded[:, CLAIMS].copy()
    encoded[:, CLAIMS] = 0
    assert not encoded.any()
    assert claims.tolist() == [0.0, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0]
    assert not label_targets(tables.rows, "us_equity", WEEK, symbol=symbol).is_event.any()


def test_the_countdown_of_a_symbol_counts_to_its_own_events() -> None:
    tables = own_tables(earnings("earnings_before_open", "2024-05-09 07:00"))
    own, other = (encode_rows(tables, WEEK[:-1], "us_equity", symbol=one) for one in ("ABC", "XYZ"))
    assert np.allclose(own[:, OWN.days_until], [0.3, 0.4, 0.7, 0.8, 0.9, 1.0, 0.0])
    assert not other[:, OWN.days_until].any()


def quarters(symbol: str, scale: float, count: int = 9) -> list[dict[str, Any]]:
    """Past earnings whose surprises have alternating signs and one size."""
    days = pd.bdate_range("2022-01-10", periods=count, freq="61D")
    return [
        earnings(
            "earnings_after_close",
            f"{day:%Y-%m-%d} 16:30",
            symbol,
            actual=scale * (-1) ** i,
            forecast=0.0,
        )
        for i, day in enumerate(days)
    ]


def test_a_surprise_is_scaled_by_those_of_its_own_symbol() -> None:
    news = earnings("earnings_after_close", "2024-05-07 16:30", actual=0.2, forecast=0.0)
    alone = own_tables(*quarters("ABC", 0.1), news)
    among = own_tables(*quarters("ABC", 0.1), *quarters("XYZ", 50.0), news)
    z = [encode_rows(one, WEEK[:-1], "us_equity", symbol="ABC")[:, OWN.surprise] for one in (alone, among)]
    assert z[0].max() == pytest.approx(0.2 / np.std([0.1, -0.1] * 4 + [0.1], ddof=1), rel=1e-6)
    assert_same_bits(*z)
    # known within the hour after the close, so it conditions the next session, on which the event falls
    assert WEEK[1:][int(z[0].argmax())] == np.datetime64("2024-05-08")


def test_another_symbols_earnings_give_no_scale() -> None:
    news = earnings("earnings_after_close", "2024-05-07 16:30", actual=0.2, forecast=0.0)
    tables = own_tables(*quarters("XYZ", 0.1), news)
    assert not encode_rows(tables, WEEK[:-1], "us_equity", symbol="ABC")[:, OWN.surprise].any()


def test_a_far_date_of_a_company_does_not_lengthen_the_calendar() -> None:
    """Earnings announced months ahead say nothing of what offices will publish until then."""
    rows = [event("a", "cpi", new_york("2024-05-20 08:30")), earnings("dividend", "2024-11-01 09:30")]
    calendar = pd.DataFrame(rows)
    assert prepare(calendar, empty_leaders(), OWN).reach == np.datetime64("2024-05-20")
    assert prepare(calendar[1:], empty_leaders(), OWN).reach == np.datetime64("2024-11-01")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            earnings("dividend", "2024-05-09 09:30") | {"symbol": None},
            "expected a symbol in every row of dividend",
        ),
        (event("a", "cpi", new_york("2024-05-09 08:30"), symbol="ABC"), "expected no symbol in rows of cpi"),
    ],
)
def test_a_symbol_that_is_missing_or_one_too_many_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(CalendarError, match=message):
        read_calendar(pd.DataFrame([row]), OWN)


def test_the_encoder_takes_the_symbol_with_the_bars() -> None:
    tables = own_tables(earnings("earnings_before_open", "2024-05-07 07:00"))
    encoded = EventEncoder(OWN).encode(bars_of(WEEK[:-1]), "us_equity", tables, symbol="ABC")
    assert encoded.shape == (len(WEEK) - 1, len(OWN.channels))
    assert encoded[:, EARNINGS].sum() == 1


# The leak property: as in test_events_leakage, with events of three symbols and all else of the other two
# scrambled too, whenever it became known.

KINDS = {"nfp": "earnings_after_close", "fomc_rate_decision": "earnings_before_open"}


def with_symbols(calendar: pd.DataFrame) -> pd.DataFrame:
    """The same rows with some types as symbol events; each event's symbol follows from its id."""
    calendar = calendar.reset_index(drop=True)
    kind = calendar["event_type"].map(KINDS)
    shared = calendar[kind.isna()].assign(symbol=None)
    own = calendar[kind.notna()].assign(event_type=kind)
    past = own["event_id"].str.startswith("past")
    number = own["event_id"].map(lambda name: sum(name.encode()) % len(SYMBOLS))
    drawn = own[~past].assign(symbol=[SYMBOLS[one] for one in number[~past]])
    drawn["event_id"] = drawn["symbol"] + ":" + drawn["event_id"].astype(str)
    history = [
        own[past].assign(symbol=one, event_id=one + ":" + own["event_id"][past].astype(str))
        for one in SYMBOLS
    ]
    return pd.concat([shared, drawn, *history], ignore_index=True)


def scramble_others(
    calendar: pd.DataFrame, asset_class: str, anchor: date, rng: np.random.Generator
) -> pd.DataFrame:
    """Other dates, figures and first sights of every event of the symbols but ABC; one of them is new."""
    calendar, other = calendar.copy(), calendar["symbol"].isin(["ABCD", "XYZ"]).to_numpy()
    count = int(other.sum())
    calendar.loc[other, "release_at"] = random_moments(asset_class, anchor, rng, count).as_unit("ns")
    calendar.loc[other, ["actual", "forecast"]] = rng.normal(0, 100, (count, 2))
    calendar.loc[other, "impact"] = rng.choice(["high", "low"], count)
    return calendar.drop(index=calendar.index[other][: count // 3])


def own_world(world: World, calendar: pd.DataFrame) -> EventTables:
    return prepare(calendar, world.leaders, OWN)


def assert_no_symbol_leak(asset_class: str, anchor: date, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = random_world(asset_class, anchor, seed)
    table = sessions(asset_class, anchor - SPAN, anchor + SPAN)
    i = int(rng.integers(len(world.bars)))
    as_of = pd.Timestamp(table.as_of[locate(table, world.bars["ts"])[i]], tz="UTC")
    other = scramble(world, anchor, i, as_of, rng)
    changed = scramble_others(with_symbols(other.calendar), asset_class, anchor, rng)
    both = [
        (own_world(world, with_symbols(world.calendar)), world.bars["ts"]),
        (own_world(other, changed), other.bars["ts"]),
    ]
    assert_same_bits(*(encode_rows(t, ts, asset_class, symbol="ABC")[: i + 1] for t, ts in both))
    assert_same_bits(*(encode_rows(t, ts[: i + 1], asset_class, symbol="ABC", horizon=6) for t, ts in both))


@given(anchor=st.sampled_from(ANCHORS), seed=seeds)
@settings(max_examples=6, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_unknown_and_nothing_of_another_symbol_reaches_a_row(anchor: date, seed: int) -> None:
    assert_no_symbol_leak("us_equity", anchor, seed)


# Planted leaks: each patches one seam, and the property must catch it. The audit's tests hold more.


def everybodys(rows: CalendarRows, symbol: str | None) -> Any:  # noqa: ARG001
    return np.ones(len(rows.symbol), dtype=np.bool_)


def by_the_first_letters(rows: CalendarRows, symbol: str | None) -> Any:
    return (rows.symbol == EVERYBODY) | np.char.startswith(rows.symbol, symbol or "-")


def surprises_of_every_symbol(found: Surprises, kept: Any) -> Surprises:  # noqa: ARG001
    return found


def scaled_by_all_symbols(rows: CalendarRows) -> Surprises:
    return find_surprises(replace(rows, symbol=np.full(len(rows.symbol), EVERYBODY)))


def dates_known_before_they_were_announced(calendar: pd.DataFrame, taxonomy: Taxonomy) -> CalendarRows:
    rows = read_calendar(calendar, taxonomy)
    own = rows.symbol != EVERYBODY
    return replace(rows, first_seen_at=np.where(own, ALWAYS, rows.first_seen_at))


def the_newest_date_from_the_start(calendar: pd.DataFrame, taxonomy: Taxonomy) -> CalendarRows:
    """A company moves its date: the old one is dropped, the new one was always known."""
    rows = read_calendar(calendar, taxonomy)
    own = rows.symbol != EVERYBODY
    kept = rows.only(~own | (rows.superseded_at == NEVER))
    return replace(kept, first_seen_at=np.where(kept.symbol != EVERYBODY, ALWAYS, kept.first_seen_at))


LEAKS: list[tuple[Any, str, Callable[..., Any]]] = [
    (CalendarRows, "falls_on", everybodys),
    (CalendarRows, "falls_on", by_the_first_letters),
    (Surprises, "only", surprises_of_every_symbol),
    (encoder, "find_surprises", scaled_by_all_symbols),
    (encoder, "read_calendar", dates_known_before_they_were_announced),
    (encoder, "read_calendar", the_newest_date_from_the_start),
    (surprises, "usable_from", one_day_before_the_release),
    (surprises, "usable_from", at_the_release_itself),
    (surprises, "usable_from", whenever_first_seen),
    (surprises, "_sigma", scale_from_all_surprises),
    (encoder, "sessions", known_until_the_next_close),
]


@pytest.mark.parametrize(("module", "name", "leak"), LEAKS, ids=[leak.__name__ for _, _, leak in LEAKS])
def test_a_planted_leak_of_symbol_events_is_caught(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, leak: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, name, leak)
    assert leaks()


def test_the_worlds_that_catch_them_find_none_without() -> None:
    assert not leaks()


def leaks() -> bool:
    """Whether the property fails in one of a few fixed worlds."""
    for seed in range(12):
        try:
            assert_no_symbol_leak("us_equity", ANCHORS[seed % len(ANCHORS)], seed)
        except AssertionError:
            return True
    return False
