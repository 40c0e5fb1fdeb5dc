"""What a snapshot holds and lacks, in figures: printed after every export and import."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kronos_service.data.plausibility import release_hours
from kronos_service.data.snapshot.manifest import read_manifest, taxonomy_in
from kronos_service.data.tables import bars_of, some
from kronos_service.events.calendar import counted, read_calendar
from kronos_service.events.encoder import REACH_DAYS
from kronos_service.events.sessions import DAILY, Interval, Times, session_dates, sessions
from kronos_service.events.surprises import MIN_EARLIER, find_surprises
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.progress import say

LONG_AFTER: Final = pd.Timedelta(days=7)
"""A row first seen this long after its release was backfilled: the model may not use it earlier."""
QUIET: Final = timedelta(days=31)
"""Bars this long before the first release are not its first month."""
_SHOWN: Final = 12


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """A snapshot in figures; dates are session dates, and sessions are those of the exchange calendars."""

    bars: int
    calendar_rows: int
    first: date
    last: date
    """Of the bars, as is `first`."""
    reach: date | None
    """UTC date of the last release in the channels' currency; None without any."""
    begins: date | None
    """UTC date of the first."""
    symbols: pd.DataFrame
    """One row each: symbol, asset_class, bars, first, last, missing and longest (sessions without a bar
    between first and last: how many, and the longest run), behind (sessions after its last bar that had
    closed when the snapshot's last bar did). Without bars: 0 and NaT."""
    missing_leaders: tuple[str, ...]
    """Leaders without a bar: the event encoder raises without them."""
    event_types: pd.DataFrame
    """One row per type of the taxonomy: event_type, events, first, last, surprises (events with an actual and
    a forecast), scored (those with enough earlier ones to give a scale), backfilled (rows), per_year (its
    events in each year), hours (of New York, with how often), forecast and actual (shares of its events)."""

    taxonomy: Taxonomy
    """What the snapshot's event types and leaders are."""

    @property
    def stale_leaders(self) -> pd.DataFrame:
        """The leaders whose last bar is `behind`."""
        return self.symbols[self.symbols["symbol"].isin(self.taxonomy.leaders) & (self.symbols["behind"] > 0)]


def read_coverage(directory: str | Path) -> Coverage:
    """`coverage` of a snapshot just written; of the bars, which may be many, only the keys are read."""
    manifest = read_manifest(Path(directory))
    files = {name: Path(directory) / str(entry["file"]) for name, entry in manifest["tables"].items()}
    interval = manifest.get("interval", DAILY)
    return coverage(
        pd.read_parquet(files["symbols"]),
        _keys(files[bars_of(interval)]),
        pd.read_parquet(files["economic_calendar"]),
        interval=interval,
        leaders=None if interval == DAILY else _keys(files[bars_of(DAILY)]),
        taxonomy=taxonomy_in(manifest, str(directory)),
    )


def _keys(file: Path) -> pd.DataFrame:
    keys = pq.read_table(file, columns=["symbol", "ts"], read_dictionary=["symbol"], pre_buffer=False)
    rows: pd.DataFrame = keys.to_pandas()
    return rows


def coverage(
    symbol_rows: pd.DataFrame,
    bars: pd.DataFrame,
    calendar_rows: pd.DataFrame,
    *,
    interval: Interval = DAILY,
    leaders: pd.DataFrame | None = None,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Coverage:
    """Count what the typed tables of a snapshot hold (see `tables`); bars need only symbol and ts.

    Where bars are shorter than a day, `leaders` holds the daily ones, by which a leader counts that has no
    others.
    """
    calendar = counted(calendar_rows, taxonomy)
    symbols = _symbols(symbol_rows, bars, interval)
    if leaders is not None:
        symbols = _with_leaders(symbols, symbol_rows, leaders)
    present = set(symbols.loc[symbols["bars"] > 0, "symbol"])
    return Coverage(
        bars=len(bars),
        calendar_rows=len(calendar_rows),
        first=bars["ts"].min().date(),
        last=bars["ts"].max().date(),
        begins=None if calendar.empty else calendar["release_at"].min().date(),
        reach=None if calendar.empty else calendar["release_at"].max().date(),
        symbols=symbols,
        missing_leaders=tuple(name for name in taxonomy.leaders if name not in present),
        event_types=_event_types(calendar[calendar["event_type"].isin(taxonomy.event_types)], taxonomy),
        taxonomy=taxonomy,
    )


def find_backfilled(calendar: pd.DataFrame) -> pd.DataFrame:
    """The rows first seen more than a week after their release that are not mere revisions.

    Such a row is the first of its event, or its first with an actual.
    """
    rows = calendar.sort_values(["event_id", "first_seen_at"], na_position="first", kind="stable")
    is_first = ~rows["event_id"].duplicated()
    is_first_actual = rows["actual"].notna() & ~rows["event_id"].where(rows["actual"].notna()).duplicated()
    late = rows["first_seen_at"] - rows["release_at"] > LONG_AFTER
    return rows[late & (is_first | is_first_actual)].sort_index()


def print_coverage(found: Coverage, console: Console | None = None) -> None:
    """Print the figures as tables, and a line per warning (default: to standard output)."""
    console = console or Console(markup=False)
    show = console.print
    show(_class_table(found))
    gaps = found.symbols[found.symbols["missing"] > 0].sort_values("missing", ascending=False, kind="stable")
    if gaps.empty:
        show("no gaps: every symbol has a bar for each session between its first and its last")
    else:
        show(_gap_table(gaps))
    show(_event_table(found))
    if found.event_types["events"].any():
        show(_release_table(found))
    for line in findings(found):
        say(line, style="yellow", label="warning", on=console)


def findings(found: Coverage) -> list[str]:
    """What training would lack, one line each; docs/data.md says what to do about it."""
    lines = [
        f"leader {name} has no bars; event-lora needs all of {', '.join(found.taxonomy.leaders)}"
        for name in found.missing_leaders
    ]
    lines += [
        f"leader {row.symbol} is stale: its last bar is {row.last:%Y-%m-%d}, sessions behind: {row.behind}"
        for row in found.stale_leaders.itertuples()
    ]
    empty = found.symbols.loc[found.symbols["bars"] == 0, "symbol"].tolist()
    if empty:
        plural = "s" if len(empty) > 1 else ""
        lines.append(f"{len(empty)} symbol{plural} without bars: {some(empty)}")
    behind = found.symbols[
        (found.symbols["behind"] > 0) & ~found.symbols["symbol"].isin(found.taxonomy.leaders)
    ]
    if not behind.empty:
        stale = [
            f"{row.symbol} ({row.last:%Y-%m-%d}, {row.behind})"
            for row in behind.sort_values("behind", ascending=False, kind="stable").itertuples()
        ]
        lines.append(
            f"{len(stale)} symbols end before the others (last bar, sessions behind): {some(stale)}: a "
            "forecast of them would be one of the past"
        )
    if found.begins and found.begins > found.first + QUIET:
        lines.append(
            f"the calendar begins on {found.begins}, the bars on {found.first}: targets before it look like "
            "days without events; load earlier releases, or train from then on (event-lora --train-start)"
        )
    if found.reach is None:
        lines.append(f"the calendar has no {', '.join(found.taxonomy.all_currencies)} releases")
    elif found.reach < found.last + timedelta(days=REACH_DAYS):
        lines.append(
            f"the calendar ends on {found.reach}, the bars on {found.last}: targets within "
            f"{REACH_DAYS} days of its end cannot be trained on"
        )
    backfilled = int(found.event_types["backfilled"].sum())
    if backfilled:
        lines.append(
            f"{backfilled} calendar rows were first seen more than {LONG_AFTER.days} days after their "
            "release (backfilled): the model is not shown them at that time"
        )
    return lines


def _with_leaders(symbols: pd.DataFrame, symbol_rows: pd.DataFrame, leaders: pd.DataFrame) -> pd.DataFrame:
    """The table of symbols, with the daily bars of those leaders that have no shorter ones."""
    without = set(symbols.loc[symbols["bars"] == 0, "symbol"]) & set(leaders["symbol"].unique())
    daily = _symbols(
        symbol_rows[symbol_rows["symbol"].isin(without)], leaders[leaders["symbol"].isin(without)], DAILY
    )
    return pd.concat([symbols[~symbols["symbol"].isin(without)], daily], ignore_index=True)


def _symbols(symbol_rows: pd.DataFrame, bars: pd.DataFrame, interval: Interval) -> pd.DataFrame:
    dates = {str(name): session_dates(rows, interval) for name, rows in bars.groupby("symbol")["ts"]}
    asset_class = dict(zip(symbol_rows["symbol"], symbol_rows["asset_class"], strict=True))
    first, last = bars["ts"].min().date(), bars["ts"].max().date()
    # of bars shorter than a day only the classes of those that are there have a table
    kinds = {asset_class[name] for name in (asset_class if interval == DAILY else dates)}
    tables = {name: sessions(name, first, last, interval) for name in kinds}
    # The last close in the snapshot counts as its present, so a session that closes later is not missing.
    present = max(
        tables[asset_class[name]].closes[np.searchsorted(tables[asset_class[name]].dates, days[-1])]
        for name, days in dates.items()
    )
    rows = []
    for name, kind in asset_class.items():
        table = tables.get(kind)
        closed = None if table is None else table.dates[table.closes <= present]
        rows.append({"symbol": name, "asset_class": kind} | _span(dates.get(name), closed))
    return pd.DataFrame(rows)


def _span(days: Times | None, closed: Times | None) -> dict[str, object]:
    """One symbol's ascending bars compared with the closed sessions of its asset class."""
    if days is None or closed is None:
        return {"bars": 0, "first": pd.NaT, "last": pd.NaT, "missing": 0, "longest": 0, "behind": 0}
    expected = closed[(closed >= days[0]) & (closed <= days[-1])]
    absent = ~np.isin(expected, days)
    # Alternately the first absent session of a run and the first present one after it.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(np.int64), [0]])))
    return {
        "bars": len(days),
        "first": pd.Timestamp(days[0]),
        "last": pd.Timestamp(days[-1]),
        "missing": int(absent.sum()),
        "longest": int(np.max(edges[1::2] - edges[::2], initial=0)),
        "behind": int((closed > days[-1]).sum()),
    }


def _event_types(calendar: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """A row per event type of the taxonomy, which every row of the calendar must be of."""
    read = read_calendar(calendar, taxonomy)
    surprises = find_surprises(read)
    types = read.event_type[surprises.row]
    backfilled = find_backfilled(calendar)["event_type"]
    return pd.DataFrame(
        [
            _event_type(
                name,
                calendar[calendar["event_type"] == name],
                surprises=surprises.usable_at[types == name],
                backfilled=int((backfilled == name).sum()),
            )
            for name in taxonomy.event_types
        ]
    )


def _event_type(name: str, rows: pd.DataFrame, *, surprises: Times, backfilled: int) -> dict[str, object]:
    events = rows.groupby("event_id", sort=False)[["release_at", "forecast", "actual"]].last()
    years = events["release_at"].dt.year.value_counts().sort_index()
    earlier = np.searchsorted(surprises, surprises, side="left")
    return {
        "event_type": name,
        "events": rows["event_id"].nunique(),
        "first": rows["release_at"].min(),
        "last": rows["release_at"].max(),
        "surprises": len(surprises),
        "scored": int((earlier >= MIN_EARLIER).sum()),
        "backfilled": backfilled,
        "per_year": " ".join(str(count) for _, count in years.items()),
        "hours": release_hours(events["release_at"].dt.tz_convert("America/New_York")),
        "forecast": events["forecast"].notna().mean(),
        "actual": events["actual"].notna().mean(),
    }


def _class_table(found: Coverage) -> Table:
    table = _table("Bars", "asset class", "symbols", "bars", "first", "last", "missing")
    for name, rows in [*found.symbols.groupby("asset_class"), ("all", found.symbols)]:
        if name == "all":
            table.add_section()
        span = (_day(rows["first"].min()), _day(rows["last"].max()))
        counts = (f"{len(rows)}", f"{rows['bars'].sum():,}")
        table.add_row(str(name), *counts, *span, f"{rows['missing'].sum():,}")
    return table


def _gap_table(gaps: pd.DataFrame) -> Table:
    table = _table("Gaps", "symbol", "missing sessions", "longest run", "first", "last")
    for row in gaps.head(_SHOWN).itertuples():
        table.add_row(str(row.symbol), f"{row.missing}", f"{row.longest}", _day(row.first), _day(row.last))
    if len(gaps) > _SHOWN:
        rest = gaps.iloc[_SHOWN:]
        table.add_row(f"{len(rest)} more", f"{rest['missing'].sum()}", f"{rest['longest'].max()}", "", "")
    return table


def _event_table(found: Coverage) -> Table:
    names = ("event type", "events", "first", "last", "surprises", "scored", "backfilled")
    table = _table(f"Calendar ({', '.join(found.taxonomy.all_currencies)})", *names)
    is_seen = found.event_types["events"] > 0
    for row in found.event_types[is_seen].itertuples():
        span = (f"{row.first:%Y-%m}", f"{row.last:%Y-%m}")
        counts = (f"{row.surprises}", f"{row.scored}", f"{row.backfilled}")
        table.add_row(str(row.event_type), f"{row.events}", *span, *counts)
    absent = found.event_types.loc[~is_seen, "event_type"]
    never = f"; never seen: {', '.join(absent)}" if len(absent) else ""
    table.caption = f"{found.calendar_rows:,} rows, {is_seen.sum()} event types{never}"
    return table


def _release_table(found: Coverage) -> Table:
    """When releases come, to compare with the usual hours, and which of them have figures."""
    names = ("event type", "by year", "New York", "forecast", "actual")
    table = _table("Releases", *names)
    for row in found.event_types[found.event_types["events"] > 0].itertuples():
        shares = (f"{row.forecast:.0%}", f"{row.actual:.0%}")
        table.add_row(str(row.event_type), str(row.per_year), str(row.hours), *shares)
    return table


def _table(title: str, name: str, *figures: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(name, no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


def _day(moment: Any) -> str:
    return "" if pd.isna(moment) else f"{moment:%Y-%m-%d}"
