"""The audit passes on honest inputs, and each planted leak makes it fail with rows that name it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.tables import calendar_table
from kronos_service.events import encoder, leaders, schedule, sessions, surprises
from kronos_service.events.calendar import CalendarRows
from kronos_service.events.leaders import Leader
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.audit.audit import AuditSize, run_checks
from kronos_service.finetune.event_conditioned.audit.findings import Audit
from kronos_service.finetune.event_conditioned.samples import dataset, splits, tokens
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.splits import Span, Splits, build_splits
from kronos_service.finetune.event_conditioned.samples.windows import Window
from kronos_service.model.factory import Bundle
from kronos_shared.normalization import normalize, statistics

# Around both changes of the clock, Independence Day, Thanksgiving and its half day, and Christmas.
SPANS: dict[str, Span] = {
    "train": (np.datetime64("2021-10-25"), np.datetime64("2022-01-10")),
    "val": (np.datetime64("2022-03-07"), np.datetime64("2022-04-01")),
    "test": (np.datetime64("2022-06-27"), np.datetime64("2022-07-20")),
}
SIZE = AuditSize(symbols=5, rows=160, windows=4, futures=3)
ENOUGH = AuditSize(symbols=5, rows=60, windows=2, futures=1)
"""Of a planted leak, which few rows already show."""
ONE_DAY = np.timedelta64(1, "D")


def release(event_id: str, at: str, seen: str | None, actual: float | None = None) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": event_id.split(":")[0],
        "event_name": event_id,
        "currency": "USD",
        "impact": "high",
        "release_at": pd.Timestamp(at, tz="UTC"),
        "actual": np.nan if actual is None else actual,
        "forecast": 2.0,
        "previous": np.nan,
        "first_seen_at": pd.NaT if seen is None else pd.Timestamp(seen, tz="UTC"),
    }


BY_HAND = [
    # Minutes at 14:00 in New York, after the 13:00 close of the day after Thanksgiving.
    release("fomc_minutes:late", "2021-11-26 19:00", None),
    # Postponed by a week, ninety minutes before it was due.
    release("ppi:moved", "2021-12-08 13:30", None),
    release("ppi:moved", "2021-12-15 13:30", "2021-12-08 12:00", 2.5),
]


@pytest.fixture(scope="module")
def revised(market: Snapshot) -> Snapshot:
    """Symbols of every asset class, all tradable, and a calendar with postponed and revised releases."""
    chosen = market.symbols["symbol"].isin(["SYN01", "SPY", "BTCUSDT", "DXY", "VIX"])
    symbols = market.symbols[chosen].assign(tradable=True).reset_index(drop=True)
    bars = market.bars[market.bars["symbol"].isin(symbols["symbol"])].reset_index(drop=True)
    released = market.calendar["release_at"].dt.tz_localize(None)
    spans = [released.between(*span) for span in SPANS.values()]
    published = market.calendar[np.any(spans, axis=0) & market.calendar["actual"].notna()].iloc[5::12]
    revisions = published.assign(
        first_seen_at=published["release_at"] + pd.Timedelta("20D"),
        actual=2 * published["forecast"] - published["actual"],
    )
    by_hand = calendar_table(pd.DataFrame(BY_HAND))
    calendar = pd.concat([market.calendar, revisions, by_hand], ignore_index=True)
    return replace(market, symbols=symbols, bars=bars, calendar=calendar)


def audited(snapshot: Snapshot, bundle: Bundle, cache: Path, size: AuditSize = ENOUGH) -> Audit:
    built: Splits = build_splits(snapshot, bundle, dates=SPANS, context=72, scored=8, cache=cache)
    return run_checks(snapshot, built, bundle, size=size, quick=False, seed=1)


def test_honest_inputs_pass_with_revisions_postponements_half_days_and_both_changes_of_the_clock(
    revised: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    result = audited(revised, bundle, tmp_path, SIZE)
    assert result.leaks == []
    idle = {check.name for check in result.checks if check.looked_at == 0}
    assert idle == {"UTC days"}  # which compares other crypto symbols with the only one of this market


# The planted leaks: each takes the real function and returns the one that leaks.

Seam = Callable[..., Any]


def vix_one_bar_early(real: Seam) -> Seam:
    def read_leader(name: str, bars: pd.DataFrame, taxonomy: Taxonomy) -> Leader:
        leader: Leader = real(name, bars, taxonomy)
        early = np.concatenate([leader.closed_at[:1], leader.closed_at[:-1]])
        return replace(leader, closed_at=early) if name == "VIX" else leader

    return read_leader


def last_actual_of_each_event(real: Seam) -> Seam:
    def read_calendar(calendar: pd.DataFrame, taxonomy: Taxonomy) -> CalendarRows:
        rows: CalendarRows = real(calendar, taxonomy)
        last = dict(zip(rows.event_id, rows.actual, strict=True))
        return replace(rows, actual=np.array([last[event] for event in rows.event_id]))

    return read_calendar


def the_new_date_from_the_start(real: Seam) -> Seam:
    def read_calendar(calendar: pd.DataFrame, taxonomy: Taxonomy) -> CalendarRows:
        moved = calendar["event_id"] == "ppi:moved"
        newest = calendar.index == calendar.loc[moved, "first_seen_at"].idxmax()
        always = calendar["first_seen_at"].mask(newest)
        rows: CalendarRows = real(calendar.assign(first_seen_at=always)[~moved | newest], taxonomy)
        return rows

    return read_calendar


def standard_time_all_year(real: Seam) -> Seam:
    def _table(asset_class: str, last_year: int, interval: sessions.Interval) -> sessions.Sessions:
        table: sessions.Sessions = real(asset_class, last_year, interval)
        if asset_class != "us_equity":
            return table
        opens = pd.DatetimeIndex(table.opens).tz_localize("UTC").tz_convert("America/New_York")
        summer = np.array([moment.hour * 60 + moment.minute for moment in opens.tz_convert("UTC")]) < 14 * 60
        hour = np.where(summer, 60, 0).astype("timedelta64[m]")
        return replace(table, opens=table.opens + hour, closes=table.closes + hour, as_of=table.as_of + hour)

    return _table


def statistics_of_the_whole_window(real: Seam) -> Seam:  # noqa: ARG001
    def normalized_window(series: list[Series], window: Window) -> Any:
        features = series[window.series].features[window.start : window.stop]
        return normalize(features, *statistics(features))

    return normalized_window


def filled_over_the_targets_day(real: Seam) -> Seam:
    return lambda leader, as_of, previous: real(leader, as_of + ONE_DAY, previous + ONE_DAY)


def known_from_its_open(real: Seam) -> Seam:
    return lambda kind, ts: real(kind, ts) - (ONE_DAY if kind == "crypto" else 0 * ONE_DAY)


def every_close_at_four(real: Seam) -> Seam:
    def target_index(table: sessions.Sessions, release_at: Any) -> Any:
        short = table.closes - table.opens < np.timedelta64(5, "h")
        late = np.where(short, 3, 0).astype("timedelta64[h]")
        return real(replace(table, closes=table.closes + late), release_at)

    return target_index


def a_day_before_its_release(real: Seam) -> Seam:
    return lambda release_at, first_seen_at: real(release_at, first_seen_at) - ONE_DAY


def ninety_days_too_many(real: Seam) -> Seam:
    return lambda series, *, last, **rest: real(series, last=last + 90 * ONE_DAY, **rest)


def spread_of_all_surprises(real: Seam) -> Seam:
    def _sigma(usable_at: Any, value: Any) -> Any:
        return np.where(real(usable_at, value) > 0, value.std(ddof=1), 0.0)

    return _sigma


@dataclass(frozen=True)
class Leak:
    """Where it is planted, and the check and the words of a row that must name it."""

    seams: list[tuple[Any, str]]
    plant: Callable[[Seam], Seam]
    check: str
    row: str


LEAKS = {
    "VIX's bar i+1 at position i": Leak(
        [(encoder, "read_leader")], vix_one_bar_early, "leaders before targets", "VIX's bar"
    ),
    "a revised actual before the revision was seen": Leak(
        [(encoder, "read_calendar")], last_actual_of_each_event, "event channels", "surprise_z"
    ),
    "a postponed release at its new date too early": Leak(
        [(encoder, "read_calendar")],
        the_new_date_from_the_start,
        "event channels",
        "2021-12-0[1-8].* (?:ppi|days_until)",
    ),
    "daylight saving off by one hour": Leak(
        [(sessions, "_table")], standard_time_all_year, "session times", "us_equity 2021-.*20:00.*21:00"
    ),
    "statistics over the window": Leak(
        [(dataset, "normalized_window"), (tokens, "normalized_window")],
        statistics_of_the_whole_window,
        "normalised bars",
        "close",
    ),
    "statistics over the window, in the tokens alone": Leak(
        [(tokens, "normalized_window")], statistics_of_the_whole_window, "tokens", "s1_ids"
    ),
    "a leader forward-filled from the target's own day": Leak(
        [(encoder, "leader_channel")], filled_over_the_targets_day, "leaders before targets", "SPY's bar"
    ),
    "today's unfinished bar of a leader": Leak(
        [(leaders, "_closing_times")], known_from_its_open, "leaders before targets", "BTCUSDT's bar"
    ),
    "the minutes after a half-day close on the closed bar": Leak(
        [(schedule, "target_index")], every_close_at_four, "event channels", "2021-11-2[69].* fomc_minutes"
    ),
    "the surprise of the target's own release": Leak(
        [(surprises, "usable_from")], a_day_before_its_release, "event channels", "surprise_z"
    ),
    "a sigma from later surprises": Leak(
        [(surprises, "_sigma")], spread_of_all_surprises, "event channels", "surprise_z"
    ),
    "a split that overlaps the next": Leak(
        [(splits, "plan_windows")], ninety_days_too_many, "splits", "2022-03-.* in val and in train"
    ),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_fails_the_audit_with_rows_that_name_it(
    revised: Snapshot, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak: Leak
) -> None:
    for module, name in leak.seams:
        monkeypatch.setattr(module, name, leak.plant(getattr(module, name)))
    result = audited(revised, bundle, tmp_path)
    found = {check.name: check.findings for check in result.checks if check.findings}
    assert not result.passed
    rows = [" ".join(finding) for finding in found[leak.check]]
    assert pd.Series(rows).str.contains(leak.row).any(), rows[:5]


def test_an_unfinished_bar_of_today_in_the_snapshot_is_named(
    revised: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    today = pd.Timestamp(datetime.now(UTC).date(), tz="UTC").as_unit("ns")
    bar = revised.bars[revised.bars["symbol"] == "BTCUSDT"].tail(1).assign(ts=today)
    bars = pd.concat([revised.bars, bar]).sort_values(["symbol", "ts"], ignore_index=True)
    result = audited(replace(revised, bars=bars), bundle, tmp_path)
    (found,) = (check for check in result.checks if check.findings)
    assert found.name == "finished bars"
    assert [finding.where for finding in found.findings] == [f"BTCUSDT {today.date()}"]


def test_a_bar_that_closed_after_the_snapshot_was_read_is_named(
    revised: Snapshot, bundle: Bundle, tmp_path: Path
) -> None:
    """BTCUSDT's day was not over then, nor were the sessions of the 29th and the 30th in New York."""
    read_early = replace(
        revised, manifest={**(revised.manifest or {}), "read_at": "2022-12-29T20:00:00+00:00"}
    )
    result = audited(read_early, bundle, tmp_path)
    (found,) = (check for check in result.checks if check.findings)
    named = {finding.where for finding in found.findings}
    assert found.name == "finished bars"
    assert {"BTCUSDT 2022-12-29", "SPY 2022-12-29", "SPY 2022-12-30"} <= named
    assert not any("2022-12-28" in where for where in named)
