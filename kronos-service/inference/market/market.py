"""What the service knows of the markets: symbols, bars, calendar and leaders of one moment, read-only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from kronos_service.data.validation import UNFINISHED, check_calendar, check_symbols, find_bad_bars
from kronos_service.events.encoder import EventTables, prepare
from kronos_service.events.sessions import Times, session_dates, sessions, utc
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.errors import KronosError

KEY = ["symbol", "ts"]


class EmptyMarketError(KronosError):
    """A source without any bar to forecast from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Market:
    """One state of the source; a request keeps the state it began with."""

    name: str
    """Where it came from; never a secret."""
    read_at: datetime
    asset_class: Mapping[str, str]
    """Of every symbol in the table symbols."""
    bars: Mapping[str, pd.DataFrame]
    """Symbol -> its finished bars, ascending."""
    calendar: pd.DataFrame
    """`CALENDAR_COLUMNS`; only what was known at `read_at`."""
    tables: EventTables
    leader_dates: Mapping[str, Times]
    """Leader -> session dates of its bars, ascending; empty where the source has none."""
    dropped: pd.DataFrame
    """Bars left out because they cannot be true: symbol, ts, reason."""

    more_at: pd.Timestamp | None
    """When the first row or figure that was held back for its time may be known; None where none was."""

    @property
    def last_bar(self) -> pd.Timestamp:
        """The latest session date of any bar."""
        return max(pd.Timestamp(frame["ts"].iloc[-1]) for frame in self.bars.values())

    def stale_symbols(self, now: datetime, *, most: int) -> list[str]:
        """The symbols whose last bar lies more than `most` sessions back."""
        return [
            symbol
            for symbol, frame in self.bars.items()
            if sessions_behind(frame["ts"].iloc[-1], self.asset_class[symbol], now) > most
        ]


def sessions_behind(last: pd.Timestamp, asset_class: str, now: datetime) -> int:
    """How many sessions after the bar dated `last` have closed by `now`."""
    day, today = last.date(), now.date() + timedelta(days=1)
    if day >= today:
        return 0
    table = sessions(asset_class, day + timedelta(days=1), today)
    return int(np.searchsorted(table.closes, utc([pd.Timestamp(now)])[0], side="right"))


def build_market(
    name: str,
    symbols: pd.DataFrame,
    bars: pd.DataFrame,
    calendar: pd.DataFrame,
    *,
    now: datetime,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Market:
    """Filter typed tables and read them once, as they may be known at `now`.

    Bars that are not finished are left out; those that cannot be true are left out and listed.

    Raises:
        TableError, CalendarError, LeaderError: tables that cannot be used at all.
    """
    check_symbols(symbols, bars)
    check_calendar(calendar, taxonomy)
    by_symbol, bad = usable_bars(symbols, bars, now=now)
    nothing = bars.iloc[:0]
    leaders = {leader: by_symbol.get(leader, nothing)[["ts", "close"]] for leader in taxonomy.leaders}
    known = known_calendar(calendar, now)
    return Market(
        name=name,
        read_at=now,
        asset_class=dict(zip(symbols["symbol"], symbols["asset_class"], strict=True)),
        bars=by_symbol,
        calendar=known,
        tables=prepare(known, leaders, taxonomy),
        leader_dates={leader: session_dates(frame["ts"]) for leader, frame in leaders.items()},
        dropped=bad[bad["reason"] != UNFINISHED],
        more_at=_more_at(bad, calendar, pd.Timestamp(now).tz_convert("UTC")),
    )


def require_bars(market: Market) -> None:
    """Refuse a market that nothing can be forecast from.

    Raises:
        EmptyMarketError: no bar is left.
    """
    if not market.bars:
        raise EmptyMarketError(
            f"{market.name} has no bar of a session that has closed by {market.read_at:%Y-%m-%d %H:%M} UTC "
            f"and can be true ({len(market.dropped)} cannot): check the clock and the source"
        )


def usable_bars(
    symbols: pd.DataFrame, bars: pd.DataFrame, *, now: datetime
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Each symbol's bars that had finished by `now` and can be true; and the others as symbol, ts, reason."""
    bad = find_bad_bars(bars, symbols, now=now)
    good = bars[~pd.MultiIndex.from_frame(bars[KEY]).isin(pd.MultiIndex.from_frame(bad[KEY]))]
    return {str(name): rows.reset_index(drop=True) for name, rows in good.groupby("symbol")}, bad


def known_calendar(calendar: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """The rows first seen by `now`, without the actuals of what is released later."""
    moment = pd.Timestamp(now).tz_convert("UTC")
    rows = calendar[~(calendar["first_seen_at"] > moment)]
    return rows.assign(actual=rows["actual"].where(rows["release_at"] <= moment, np.nan))


def _more_at(bad: pd.DataFrame, calendar: pd.DataFrame, now: pd.Timestamp) -> pd.Timestamp | None:
    """The earliest moment at which what is held back at `now` may be known; the day of an unfinished bar."""
    released = calendar.loc[calendar["actual"].notna(), "release_at"]
    moments = pd.concat([calendar["first_seen_at"], released])
    first = [moments[moments > now].min(), bad.loc[bad["reason"] == UNFINISHED, "ts"].min()]
    return min((one for one in first if not pd.isna(one)), default=None)


def utc_now() -> datetime:
    """The service's clock, where no other is given."""
    return datetime.now(UTC)
