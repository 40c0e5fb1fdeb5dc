"""A snapshot as plain rows, and those of them that were usable at a moment."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import pandas as pd

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.audit.sessions import SessionTable, session_table
from kronos_shared.columns import FEATURES

ALWAYS: Final = datetime(1900, 1, 1, tzinfo=UTC)
"""When a row without `first_seen_at` was first seen."""
HOURS: Final = {"4h": 4, "1h": 1}
"""Of the bars shorter than a day."""
MARGIN: Final = timedelta(days=60)
"""How far the sessions reach beyond the bars, to hold the targets and the events ahead of them."""


class Bar(NamedTuple):
    """One bar: its session date, when it closed, and open, high, low, close, volume, amount."""

    day: date
    closes: datetime
    values: tuple[float, ...]


class Release(NamedTuple):
    """One row of the calendar; a figure that is null, or not usable yet, is None."""

    event_id: str
    event_type: str
    impact: str
    release_at: datetime
    seen_at: datetime
    actual: float | None
    forecast: float | None
    symbol: str | None
    """On whose bars alone it falls; None: on everybody's."""

    def usable_at(self) -> datetime:
        """From when on the actual may be used (strictly later)."""
        return max(self.release_at, self.seen_at)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainRows:
    """What the audit works from: sessions per asset class, bars per symbol in order, and the calendar."""

    asset_class: dict[str, str]
    sessions: dict[str, SessionTable]
    bars: dict[str, list[Bar]]
    leaders: dict[str, list[Bar]]
    """Daily bars of the leaders."""
    releases: list[Release]
    taxonomy: Taxonomy
    """Of which only the names are used."""

    def of(self, symbol: str) -> list[Release]:
        """The releases that fall on a symbol's bars."""
        return [release for release in self.releases if release.symbol in (None, symbol)]

    def sessions_of(self, symbol: str) -> SessionTable:
        """The sessions of a symbol."""
        return self.sessions[self.asset_class[symbol]]


def read_rows(snapshot: Snapshot, symbols: Iterable[str]) -> PlainRows:
    """The bars of the symbols and of the leaders, and the calendar, as plain rows."""
    days = snapshot.bars["ts"]
    first, last = days.min().date() - MARGIN, days.max().date() + MARGIN
    asset_class = dict(zip(snapshot.symbols["symbol"], snapshot.symbols["asset_class"], strict=True))
    hours, leaders = HOURS.get(snapshot.interval), snapshot.taxonomy.leaders
    classes = sorted({asset_class[name] for name in symbols} if hours else set(asset_class.values()))
    tables = {name: session_table(name, first, last, hours) for name in classes}
    names = set(symbols) if hours else {*symbols, *leaders}
    bars = {symbol: _bars_of(snapshot.bars, symbol, tables[asset_class[symbol]]) for symbol in sorted(names)}
    return PlainRows(
        asset_class=asset_class,
        sessions=tables,
        bars=bars,
        leaders=bars if snapshot.leaders is None else _leaders(snapshot.leaders, leaders, asset_class),
        releases=_releases(snapshot.calendar, snapshot.taxonomy),
        taxonomy=snapshot.taxonomy,
    )


def _leaders(bars: pd.DataFrame, leaders: Iterable[str], asset_class: dict[str, str]) -> dict[str, list[Bar]]:
    """The leaders' daily bars, which shorter ones are conditioned on."""
    first, last = bars["ts"].min().date() - MARGIN, bars["ts"].max().date() + MARGIN
    return {name: _bars_of(bars, name, session_table(asset_class[name], first, last)) for name in leaders}


def _bars_of(bars: pd.DataFrame, symbol: str, table: SessionTable) -> list[Bar]:
    return _bars(bars[bars["symbol"] == symbol], table)


def closed_bars(bars: Sequence[Bar], as_of: datetime) -> list[Bar]:
    """The bars that had closed by `as_of`."""
    return [bar for bar in bars if bar.closes <= as_of]


def known_releases(releases: Sequence[Release], as_of: datetime) -> list[Release]:
    """The rows seen by `as_of`; an actual is usable only strictly after it is known, and else left out."""
    known = []
    for release in releases:
        if release.seen_at <= as_of:
            usable = release.usable_at() < as_of
            known.append(release if usable else release._replace(actual=None))
    return known


def _bars(rows: pd.DataFrame, table: SessionTable) -> list[Bar]:
    bars = []
    columns = [rows[name].tolist() for name in FEATURES]
    for stamp, *values in zip(rows["ts"], *columns, strict=True):
        if math.isnan(values[5]):
            values[5] = values[4] * (values[0] + values[1] + values[2] + values[3]) / 4
        day = table.date_of(stamp)
        if day in table.number:  # `check_bars` lists the others
            bars.append(Bar(day, table.sessions[table.number[day]].closes, tuple(values)))
    return sorted(bars)


def _releases(rows: pd.DataFrame, taxonomy: Taxonomy) -> list[Release]:
    """The rows whose currency is that of their family, in the order in which each event's were seen."""
    releases = []
    for row in rows.to_dict("records"):
        family = taxonomy.event_types.get(row["event_type"])
        if family is None or row["currency"] != taxonomy.currencies.get(family, taxonomy.currency):
            continue
        is_own = row["event_type"] in taxonomy.symbol_types
        seen_at = ALWAYS if pd.isna(row["first_seen_at"]) else row["first_seen_at"].to_pydatetime()
        releases.append(
            Release(
                event_id=row["event_id"],
                event_type=row["event_type"],
                impact=row["impact"],
                release_at=row["release_at"].to_pydatetime(),
                seen_at=seen_at,
                actual=None if pd.isna(row["actual"]) else row["actual"],
                forecast=None if pd.isna(row["forecast"]) else row["forecast"],
                symbol=str(row["symbol"]) if is_own else None,
            )
        )
    return sorted(releases, key=lambda release: (release.event_id, release.seen_at))
