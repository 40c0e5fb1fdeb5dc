"""The audit's own arithmetic, against values worked out by hand, and its independence of the encoder."""

import ast
import math
import statistics
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned import audit
from kronos_service.finetune.event_conditioned.audit.recompute import (
    Value,
    leader_move,
    moment,
    recompute_row,
    recompute_window,
)
from kronos_service.finetune.event_conditioned.audit.rows import ALWAYS, Bar, PlainRows, Release
from kronos_service.finetune.event_conditioned.audit.sessions import SessionTable, session_table
from kronos_service.finetune.event_conditioned.audit.tables import check_sessions
from kronos_shared.columns import ASSET_CLASSES

FIRST, LAST = date(2021, 1, 1), date(2022, 3, 31)
SESSIONS = {name: session_table(name, FIRST, LAST) for name in ASSET_CLASSES}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bars(table: SessionTable, first: date, last: date, price: float = 100.0) -> list[Bar]:
    """One a session; the n-th closes n % higher or lower than the first, in turn."""
    chosen = [session for session in table.sessions if first <= session.day <= last]
    made = []
    for number, session in enumerate(chosen):
        close = price * (1 + 0.01 * (number % 7) * (-1) ** number)
        made.append(Bar(session.day, session.closes, (close, close, close, close, 1.0, close)))
    return made


def released(
    event_id: str, at: str, seen: str = "", actual: float | None = None, forecast: float = 2.0
) -> Release:
    seen_at = utc(seen) if seen else ALWAYS
    return Release(event_id, event_id.split(":")[0], "high", utc(at), seen_at, actual, forecast, None)


def rows(*releases: Release) -> PlainRows:
    leaders = {
        name: bars(SESSIONS[kind], date(2021, 6, 1), LAST)
        for name, kind in DEFAULT_TAXONOMY.leader_asset_class.items()
    }
    return PlainRows(
        asset_class={**DEFAULT_TAXONOMY.leader_asset_class, "ABC": "us_equity"},
        sessions=SESSIONS,
        bars={**leaders, "ABC": bars(SESSIONS["us_equity"], date(2021, 6, 1), date(2022, 2, 28))},
        leaders=leaders,
        releases=sorted(releases, key=lambda one: (one.event_id, one.seen_at)),
        taxonomy=DEFAULT_TAXONOMY,
    )


def bar_number(world: PlainRows, symbol: str, day: str) -> int:
    return [bar.day.isoformat() for bar in world.bars[symbol]].index(day)


def row_at(world: PlainRows, day: str, symbol: str = "ABC") -> dict[str, float]:
    """What is known on the evening of the day, by channel."""
    values = recompute_row(world, symbol, bar_number(world, symbol, day))
    return {name: value.value for name, value in zip(DEFAULT_TAXONOMY.channels, values, strict=True)}


@pytest.mark.parametrize(
    ("asset_class", "day", "opens", "closes", "as_of"),
    [
        ("us_equity", "2021-03-12", "2021-03-12 14:30", "2021-03-12 21:00", "2021-03-12 22:00"),
        ("us_equity", "2021-03-15", "2021-03-15 13:30", "2021-03-15 20:00", "2021-03-15 21:00"),
        ("us_equity", "2021-11-26", "2021-11-26 14:30", "2021-11-26 18:00", "2021-11-26 19:00"),
        ("index", "2021-07-01", "2021-07-01 13:30", "2021-07-01 20:15", "2021-07-01 21:15"),
        ("index", "2021-11-26", "2021-11-26 14:30", "2021-11-26 18:15", "2021-11-26 19:15"),
        ("fx", "2021-07-01", "2021-06-30 21:00", "2021-07-01 21:00", "2021-07-01 21:00"),
        ("fx", "2021-07-02", "2021-07-01 21:00", "2021-07-02 21:00", "2021-07-02 22:00"),
        ("crypto", "2021-07-03", "2021-07-03 00:00", "2021-07-04 00:00", "2021-07-04 00:00"),
    ],
)
def test_sessions_run_on_the_wall_clock(
    asset_class: str, day: str, opens: str, closes: str, as_of: str
) -> None:
    table = SESSIONS[asset_class]
    number = table.number[date.fromisoformat(day)]
    assert table.sessions[number][1:] == (utc(opens), utc(closes))
    assert table.as_of(number) == utc(as_of)


def test_both_derivations_of_the_sessions_agree_for_twenty_years() -> None:
    tables = {name: session_table(name, date(2007, 12, 1), date(2028, 1, 31)) for name in ASSET_CLASSES}
    world = PlainRows(
        asset_class={}, sessions=tables, bars={}, leaders={}, releases=[], taxonomy=DEFAULT_TAXONOMY
    )
    check = check_sessions(world, date(2008, 1, 1), date(2027, 12, 31))
    assert check.findings == []
    assert check.looked_at > 20_000


def test_minutes_after_a_half_day_belong_to_monday() -> None:
    world = rows(released("fomc_minutes:1", "2021-11-26 19:00"))
    assert row_at(world, "2021-11-24")["fomc_minutes"] == 0.0
    assert row_at(world, "2021-11-26")["fomc_minutes"] == 1.0
    assert row_at(world, "2021-11-26")["days_until"] == 1.0
    assert row_at(world, "2021-11-24")["days_until"] == pytest.approx(0.7)


def test_a_postponement_counts_from_when_it_was_seen() -> None:
    world = rows(
        released("ppi:1", "2021-12-08 13:30"), released("ppi:1", "2021-12-15 13:30", "2021-12-08 12:00")
    )
    assert row_at(world, "2021-12-07")["ppi"] == 1.0
    assert row_at(world, "2021-12-08")["ppi"] == 0.0
    assert row_at(world, "2021-12-08")["days_until"] == pytest.approx(0.4)
    assert row_at(world, "2021-12-14")["ppi"] == 1.0


def test_a_surprise_is_the_first_actual_over_the_spread_of_earlier_ones() -> None:
    earlier = [released(f"cpi:{n}", f"2021-07-{n + 1:02d} 12:30", actual=2.0 + 0.1 * n) for n in range(9)]
    world = rows(
        *earlier,
        released("cpi:x", "2021-12-10 13:30", actual=2.5),
        released("cpi:x", "2021-12-10 13:30", "2021-12-16 13:30", actual=-2.5),
        released("cpi:y", "2022-01-12 13:30", actual=9.0),
    )
    sigma = statistics.stdev(0.1 * n for n in range(9))
    assert row_at(world, "2021-12-09")["surprise_z"] == 0.0
    assert row_at(world, "2021-12-10")["surprise_z"] == pytest.approx(0.5 / sigma)
    assert row_at(world, "2021-12-16")["surprise_z"] == 0.0
    assert row_at(world, "2022-01-12")["surprise_z"] == 5.0
    few = rows(*earlier[:7], released("cpi:x", "2021-12-10 13:30", actual=2.5))
    assert row_at(few, "2021-12-10")["surprise_z"] == 0.0


def test_a_leader_moves_by_the_bars_that_closed_in_between() -> None:
    """On Friday the 10th, BTCUSDT's bar of that day closes after the equity's as_of."""
    world = rows()
    closed = [bar for bar in world.bars["BTCUSDT"] if bar.day <= date(2021, 12, 9)]
    before = [bar for bar in closed if bar.day <= date(2021, 12, 8)]
    logs = [math.log(bar.values[3]) for bar in before[-61:]]
    sigma = statistics.stdev(b - a for a, b in pairwise(logs))
    expected = (math.log(closed[-1].values[3]) - logs[-1]) / sigma
    assert row_at(world, "2021-12-10")["leader_btcusdt"] == pytest.approx(expected)
    evening = moment(world, "ABC", bar_number(world, "ABC", "2021-12-10"))
    assert evening.as_of == utc("2021-12-10 22:00")
    assert evening.before == utc("2021-12-09 22:00")
    assert evening.target.day == date(2021, 12, 13)
    assert leader_move(world, "BTCUSDT", evening).value == pytest.approx(expected)
    assert leader_move(world, "BTCUSDT", evening, shift=1).value != pytest.approx(expected)


def test_a_leader_with_too_little_history_or_no_new_bar_is_zero() -> None:
    world = rows()
    assert row_at(world, "2021-07-01")["leader_spy"] == 0.0
    assert row_at(world, "2021-12-25", symbol="BTCUSDT")["leader_spy"] == 0.0
    assert row_at(world, "2021-12-10", symbol="BTCUSDT")["leader_spy"] != 0.0


def test_windows_are_scored_by_their_history_alone() -> None:
    start = utc("2021-01-01 00:00")
    made = [Bar(start.date() + timedelta(n), start, (float(n),) * 6) for n in (1, 3, 8)]
    z = [[value.value for value in row] for row in recompute_window(made, made[:2])]
    assert z[0] == pytest.approx([-1 / (1 + 1e-7 * 2)] * 6, rel=1e-12)
    assert z[2] == [5.0] * 6
    flat = [Bar(start.date(), start, (value,) * 6) for value in (0.0, 0.0, 1e-9)]
    assert [row[0].value for row in recompute_window(flat, flat[:2])] == [0.0, 0.0, 5.0]


def test_a_value_agrees_with_its_own_float32_and_with_no_other() -> None:
    exact = Value(0.1)
    assert exact.agrees(float(np.float32(0.1)))
    assert not exact.agrees(float(np.nextafter(np.float32(0.1), np.float32(1))))
    midway = (float(np.float32(0.1)) + float(np.nextafter(np.float32(0.1), np.float32(1)))) / 2
    assert Value(midway, slack=1e-14).agrees(float(np.nextafter(np.float32(0.1), np.float32(1))))
    assert not Value(0.0).agrees(1e-30)


@pytest.mark.parametrize("module", [audit.sessions, audit.rows, audit.recompute])
def test_the_rebuilding_modules_share_no_code_with_the_encoder(module: ModuleType) -> None:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {name for name in imported if name.startswith("kronos_service.")}
    own = {name for name in ours if name.startswith(audit.__name__)}
    assert ours - own <= {"kronos_service.events.taxonomy", "kronos_service.data.snapshot.read"}
