"""From a source to a snapshot: read everything, judge every row, and only then write, in one step.

Nothing is dropped silently: bad bars stop the export, or are dropped and listed; the unfinished bar of a
session still open is left out and counted. The calendar is always read whole, because what a surprise is
worth depends on the earlier surprises of its type.
"""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kronos_service.data.snapshot import write_snapshot
from kronos_service.data.source import Source
from kronos_service.data.tables import TableError, bar_table, calendar_table, symbol_table
from kronos_service.data.validation import (
    UNFINISHED,
    check_calendar,
    check_symbols,
    find_bad_bars,
    find_split_ratios,
    refuse_bad_bars,
    session_faults,
)

OnBadRow = Literal["fail", "drop"]


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
    """Overnight moves near a split ratio: symbol, ts, ratio."""
    seconds: float

    def lines(self) -> list[str]:
        """The summary in words, every dropped bar and every warning on a line of its own."""
        counts = f"{self.bars:,} bars of {self.symbols} symbols, {self.events:,} calendar rows"
        lines = [f"{self.directory}: {counts}, in {self.seconds:.1f} s (sha256 {self.sha256[:12]})"]
        if self.unfinished:
            lines.append(f"{self.unfinished} unfinished bars left out: their session is still open")
        lines += [f"dropped {row.symbol} {row.ts}: {row.reason}" for row in self.dropped.itertuples()]
        lines += [
            f"warning: {row.symbol} {row.ts:%Y-%m-%d} opens {row.ratio} to the last close: a split?"
            for row in self.splits.itertuples()
        ]
        return lines


def export(
    source: Source,
    directory: str | Path,
    *,
    since: date | None = None,
    on_bad_row: OnBadRow = "fail",
    now: datetime | None = None,
    console: Console | None = None,
) -> ExportSummary:
    """Make the rows of a source the snapshot in `directory`; an older snapshot there stays until the end.

    Args:
        source: where to read.
        directory: new, empty, or an older snapshot.
        since: first session date of the bars (default: all there are).
        on_bad_row: "fail" refuses the export if a bar cannot be true, "drop" leaves such bars out.
        now: the time up to which sessions have closed (default: the present).
        console: where the progress bar goes (default: standard error).

    Raises:
        KronosError: the source cannot be read, or its tables are not in order; nothing is written then.
    """
    started, now = time.perf_counter(), now or datetime.now(UTC)
    symbols = symbol_table(source.symbols())
    calendar = calendar_table(source.calendar())
    check_calendar(calendar)
    raw = _read_bars(source, since, symbols, console or Console(stderr=True))
    check_symbols(symbols, raw)
    bars = raw[~_still_open(raw, symbols, now)]
    bad = find_bad_bars(bars, symbols, now=now)
    if on_bad_row == "fail":
        refuse_bad_bars(bad)
    kept = _without(bars, bad)
    window = (since or bars["ts"].min().date(), now.date())
    manifest = write_snapshot(
        directory, symbols=symbols, bars=kept, calendar=calendar, window=window, source=source.name, now=now
    )
    return ExportSummary(
        directory=Path(directory),
        sha256=manifest["sha256"],
        symbols=len(symbols),
        bars=len(kept),
        events=len(calendar),
        window=window,
        unfinished=len(raw) - len(bars),
        dropped=bad,
        splits=find_split_ratios(kept, symbols),
        seconds=time.perf_counter() - started,
    )


def _read_bars(source: Source, since: date | None, symbols: pd.DataFrame, console: Console) -> pd.DataFrame:
    columns = (
        TextColumn("export"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} bars"),
        TimeRemainingColumn(),
    )
    chunks = []
    with Progress(*columns, console=console) as progress:
        # Chunks come in symbol order, so the symbol reached is the progress made.
        task = progress.add_task("export", total=len(symbols), rows=0)
        for chunk in source.bars(since):
            chunks.append(chunk)
            reached = int((symbols["symbol"] <= chunk["symbol"].iloc[-1]).sum())
            progress.update(task, completed=reached, rows=sum(map(len, chunks)))
    if not chunks:
        raise TableError(
            f"table ohlcv_1d of {source.name} has no bars" + (f" since {since}" if since else "")
        )
    return bar_table(pd.concat(chunks, ignore_index=True))


def _still_open(bars: pd.DataFrame, symbols: pd.DataFrame, now: datetime) -> pd.Series:
    """Bars of the session under way; a bar dated further ahead is a mistake, not an unfinished bar."""
    faults = session_faults(bars, symbols, now=now)
    return (faults == UNFINISHED) & (bars["ts"] <= pd.Timestamp(now + timedelta(days=1)))


def _without(bars: pd.DataFrame, bad: pd.DataFrame) -> pd.DataFrame:
    keys = ["symbol", "ts"]
    if bad.empty:
        return bars
    return bars[~pd.MultiIndex.from_frame(bars[keys]).isin(pd.MultiIndex.from_frame(bad[keys]))]
