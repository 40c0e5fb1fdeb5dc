"""From a source to a snapshot: read everything, check every row, and only then write, in one step.

- Nothing is dropped silently: bad bars stop the export, or are dropped and listed; bars of sessions still
  open are left out and counted.
- Bars are written as they are read and checked symbol by symbol, so memory does not grow with the table.
- An incremental export reads the last days of bars if the past is unchanged: as many bars before them, and
  the same bars in the overlap. Otherwise it reads everything.
- The calendar is always read whole, because the scale of a surprise comes from all earlier ones of its type;
  an incremental export keeps what the snapshot knew before (see `revisions`).
"""

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
from rich.console import Console

from kronos_service.data.bar_filter import BarFilter, OnBadRow
from kronos_service.data.incremental import (
    calendar_read_at,
    earlier_snapshot,
    extend_bars,
    first_day,
)
from kronos_service.data.plausibility import (
    Departure,
    calendar_departures,
    describe,
    refuse,
)
from kronos_service.data.public_facts import AcceptedName
from kronos_service.data.snapshot.manifest import NOT_APPLICABLE, Origin, is_sample
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.snapshot.revisions import Revised, revise
from kronos_service.data.snapshot.staging import open_staging
from kronos_service.data.snapshot.write import STAGING, commit, exclusive
from kronos_service.data.sources import Source
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.data.tables import TableError, bar_table, bars_of, calendar_table, symbol_table
from kronos_service.data.validation import check_calendar, without_copies
from kronos_service.events.sessions import DAILY, Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, require_same
from kronos_shared.progress import follow


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote and what it left out."""

    directory: Path
    sha256: str
    """Content hash of the snapshot."""
    symbols: int
    bars: int
    events: int
    """Calendar rows, revisions included."""
    window: tuple[date, date]
    """First and last date that the source was asked for."""
    unfinished: int
    """Bars left out because their session is still open."""
    dropped: pd.DataFrame
    """Bad bars that were dropped: symbol, ts, reason."""
    splits: pd.DataFrame
    """Overnight jumps, such as a split makes: symbol, ts, ratio."""
    departures: tuple[Departure, ...]
    """What differs from what is public about releases and markets."""
    accepted: tuple[str, ...]
    """The departures that the user expects."""
    notes: tuple[str, ...]
    """What an incremental or resumed export found, one line each."""
    seconds: float

    def lines(self) -> list[str]:
        """The summary as text, one line for each dropped bar and each warning."""
        counts = f"{self.bars:,} bars of {self.symbols} symbols, {self.events:,} calendar rows"
        lines = [f"{self.directory}: {counts}, in {self.seconds:.1f} s (sha256 {self.sha256[:12]})"]
        lines += self.notes
        if self.unfinished:
            lines.append(f"{self.unfinished} unfinished bars left out: their session is still open")
        lines += [f"dropped {row.symbol} {row.ts}: {row.reason}" for row in self.dropped.itertuples()]
        lines += [
            f"warning: {row.symbol} {row.ts:%Y-%m-%d} opens {row.ratio} to the last close: a split?"
            for row in self.splits.itertuples()
        ]
        lines += describe(self.departures, self.accepted)
        return lines


def export(
    source: Source,
    directory: str | Path,
    *,
    since: date | None = None,
    on_bad_row: OnBadRow = "fail",
    incremental: bool = False,
    resume: bool = False,
    accept: Sequence[AcceptedName] = (),
    taxonomy: Taxonomy | None = None,
    now: datetime | None = None,
    console: Console | None = None,
    interval: Interval = DAILY,
) -> ExportSummary:
    """Make the rows of a source the snapshot in `directory`; an older snapshot there is valid until the end.

    Args:
        directory: new, empty, or an older snapshot.
        since: first session date of the bars (default: all there are; when incremental: as before).
        on_bad_row: whether a bar that cannot be true fails the export, or is dropped and listed.
        incremental: extend the older snapshot by what is new, and keep what its calendar knew before.
        resume: skip the symbols that an interrupted export of the same rows had read; not with incremental.
        accept: departures from what is public (see `plausibility`) that are meant, and no reason to refuse.
        taxonomy: what the calendar's types and the leaders are (default: as before when incremental, or as
            the source has it).
        now: the time up to which sessions have closed (default: the present).
        console: where the progress bar goes (default: standard error).
        interval: how long the bars are. Of shorter ones than a day the symbols that have some are exported,
            and the leaders with their daily bars; not incrementally.

    Raises:
        ValueError: both incremental and resume, or incremental with bars shorter than a day.
        KronosError: the source cannot be read or its tables are invalid; the older snapshot stays.
    """
    if incremental and resume:
        raise ValueError(
            "expected incremental or resume, got both: an incremental export keeps nothing to resume"
        )
    if incremental and interval != DAILY:
        raise ValueError(f"expected {DAILY} bars of an incremental export, got {interval}: export them whole")
    started, now = time.perf_counter(), now or datetime.now(UTC)
    directory, notes = Path(directory), list[str]()
    console = console or Console(stderr=True, markup=False)
    with exclusive(directory):
        earlier = earlier_snapshot(directory, source, since) if incremental else None
        taxonomy = _taxonomy(taxonomy, earlier, source)
        if earlier and since is None:
            notes += _left_out(source, first_day(earlier))
        since = first_day(earlier) if earlier else since
        symbols = symbol_table(source.symbols())
        calendar = calendar_table(source.calendar())
        bars = None
        if earlier:
            revised = revise(earlier.calendar, calendar, read_at=calendar_read_at(earlier), now=now)
            calendar = revised.calendar
            bars = extend_bars(earlier, source, symbols, now)
            notes += _changes(revised, is_past_same=bars is not None)
        calendar, same = without_copies(calendar)
        notes += [f"{same} identical copies of calendar rows are left out"] * bool(same)
        check_calendar(calendar, taxonomy)
        is_market = not is_sample(source.name)
        if is_market:
            refuse(calendar_departures(calendar, now=now, taxonomy=taxonomy), accept)
        else:
            notes.append(NOT_APPLICABLE)
        request = {"source": source.name, "since": since and since.isoformat()}
        request |= {"interval": interval} if interval != DAILY else {}
        with open_staging(directory / STAGING, request, resume=resume, now=now, interval=interval) as staging:
            last = next(reversed(staging.names()), None)
            if last:
                notes.append(f"resumed after {last}: read since {staging.read_at:%Y-%m-%d %H:%M} UTC")
            with closing(_shown(bars or source.bars(since, last, interval), symbols, console)) as chunks:
                staging.fill(chunks)
            if not staging.names():
                raise TableError(
                    f"table {bars_of(interval)} of {source.name} has no {interval} bars"
                    + (f" since {since}" if since else "")
                )
            if not set(staging.names()) <= set(symbols["symbol"]):  # added to the source while it was read
                symbols = symbol_table(source.symbols())
            bar_filter = BarFilter(
                symbols=symbols, on_bad_row=on_bad_row, now=staging.read_at, interval=interval
            )
            leaders = None
            if interval != DAILY:
                leaders = _leaders(source, symbols, taxonomy.leaders, on_bad_row, staging.read_at)
                symbols = _with_bars(symbols, taxonomy.leaders, staging.names())
            reach = staging.days()
            window = (since or reach[0], now.date())
            origin = Origin(
                source=source.name,
                window=window,
                read_at=staging.read_at,
                calendar_read_at=now,
                accepted=tuple(accept),
                interval=interval,
                taxonomy=taxonomy,
            )
            manifest = commit(
                directory,
                symbols=symbols,
                bars=bar_filter.filter(staging.bars()),
                calendar=calendar,
                origin=origin,
                leaders=leaders,
            )
    departures = calendar_departures(calendar, now=now, bars=reach, taxonomy=taxonomy)
    departures += bar_filter.departures
    if bar_filter.copies:
        notes.append(f"{bar_filter.copies} identical copies of bars are left out")
    return ExportSummary(
        directory=directory,
        sha256=manifest["sha256"],
        symbols=len(symbols),
        bars=manifest["tables"][bars_of(interval)]["rows"],
        events=len(calendar),
        window=window,
        unfinished=bar_filter.unfinished,
        dropped=bar_filter.bad,
        splits=bar_filter.splits,
        departures=tuple(departures) if is_market else (),
        accepted=tuple(accept),
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _leaders(
    source: Source,
    symbols: pd.DataFrame,
    leaders: Sequence[str],
    on_bad_row: OnBadRow,
    now: datetime,
) -> pd.DataFrame:
    """The leaders' daily bars, checked: a leader's move is one of days, whatever bars are trained on."""
    names = symbols[symbols["symbol"].isin(leaders)]
    chunks = [one[one["symbol"].isin(leaders)] for one in source.bars() if "symbol" in one.columns]
    found = [one for one in chunks if len(one)]
    if not found:
        raise TableError(
            f"table {bars_of(DAILY)} of {source.name} has no bars of the leaders {', '.join(leaders)}, whose "
            "daily moves the model is shown: add them"
        )
    bar_filter = BarFilter(symbols=names, on_bad_row=on_bad_row, now=now)
    return pd.concat(list(bar_filter.filter([bar_table(pd.concat(found))])), ignore_index=True)


def _with_bars(symbols: pd.DataFrame, leaders: Sequence[str], names: Iterable[str]) -> pd.DataFrame:
    """The symbols that have bars of the length asked for, and the leaders, which are only looked at."""
    has_bars = symbols["symbol"].isin(list(names))
    table = symbols.assign(tradable=symbols["tradable"] & has_bars)
    return table[has_bars | table["symbol"].isin(leaders)].reset_index(drop=True)


def _taxonomy(given: Taxonomy | None, earlier: Snapshot | None, source: Source) -> Taxonomy:
    """The taxonomy of the new snapshot; one that is extended keeps its own."""
    if earlier is not None:
        if given is not None:
            require_same(earlier.taxonomy, given, "the snapshot in --out")
        return earlier.taxonomy
    of_source = source.taxonomy if isinstance(source, TableSource) else DEFAULT_TAXONOMY
    return of_source if given is None else given


def _shown(
    chunks: Iterable[pd.DataFrame], symbols: pd.DataFrame, console: Console
) -> Generator[pd.DataFrame, None, None]:
    """The chunks as they come, with progress; they come by symbol, so symbols measure it.

    Close it where something else may fail meanwhile, so that the bar ends before the error is shown.
    """
    rows, seen = 0, set[str]()
    with follow("export", unit="symbols", total=len(symbols), on=console) as progress:
        for chunk in chunks:
            rows += len(chunk)
            new = set(chunk["symbol"].unique()) - seen
            seen |= new
            progress.advance(len(new), f"{rows:,} bars")
            yield chunk


def _left_out(source: Source, first: date) -> list[str]:
    count = source.count_bars(None, first)
    line = (
        f"{count:,} bars before {first} in the source are left out: export without --incremental to include "
        f"them, or give --since {first}"
    )
    return [line] * bool(count)


def _changes(revised: Revised, *, is_past_same: bool) -> list[str]:
    calendar = (
        f"calendar: {revised.added} rows added, {revised.released} released since, "
        f"{revised.overwritten} overwritten in the source and kept as revisions first seen now"
    )
    gone = f"warning: {revised.gone} events are gone from the source; they stay as they were known"
    changed = "earlier bars have changed in the source: all of them were read again"
    return [calendar] + [gone] * bool(revised.gone) + [changed] * (not is_past_same)
