"""Releases from files: rows that do not count are left out first, then the others are parsed."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from kronos_service.data.sources.column_map import CalendarMap
from kronos_service.data.sources.faults import Faults
from kronos_service.data.sources.figures import read_figures, without_missing
from kronos_service.data.sources.timestamps import (
    bare_dates,
    read_timestamps,
    refuse_bare_dates,
    without_zone,
)
from kronos_service.data.tables import TableError, some
from kronos_service.events.taxonomy import Taxonomy
from kronos_shared.columns import IMPACTS

FIGURES: Final = ("actual", "forecast", "previous")
_PERIOD: Final = re.compile(r"\s*\((?:[A-Z][a-z]{2}|Q[1-4]|\d{4}|[A-Z][a-z]{2}[ /]\d{2,4})\)\s*$")
"""The period that some vendors put behind a release's name: (Aug), (Q2)."""

Rows = tuple[Path, pd.DataFrame, pd.DataFrame, CalendarMap]
"""A file, its rows with our values, the same with theirs, and its section of the map."""


def read_events(files: Sequence[Rows], faults: Faults, notes: list[str], taxonomy: Taxonomy) -> pd.DataFrame:
    """The releases of all files in their type's currency and of known types, with moments and numbers."""
    currencies, listed = ", ".join(taxonomy.all_currencies), "event_types.toml"
    if not taxonomy.is_default:
        listed = "the taxonomy"
    kept, foreign, dropped, hints = [], list[str](), list[str](), list[str]()
    for path, rows, theirs, section in files:
        is_ours = taxonomy.counts(rows["event_type"], rows["currency"])
        foreign += rows.loc[~is_ours, "currency"].fillna("none").astype("str").tolist()
        is_known = rows["event_type"].isin(list(taxonomy.event_types))
        unknown = is_ours & ~is_known
        names = rows.loc[unknown, "event_type"].fillna("none").astype("str")
        hints += _near_misses(names, section, taxonomy)
        if section.unknown_event_types == "drop":
            dropped += names.tolist()
        elif unknown.any():
            faults.add(_unknown_types(path, names, listed))
        counting = _own_symbols(path, rows[is_ours & is_known], taxonomy, notes)
        kept.append(_parsed(path, counting, theirs, section, faults, notes))
    notes += _left_out(f"rows of other currencies than {currencies}", foreign)
    notes += _left_out(f"{currencies} rows of other event types", dropped) + hints
    events = pd.concat(kept, ignore_index=True)
    if events.empty and not faults.found:
        why = "; ".join(notes[-2:])
        faults.add(
            TableError(
                f"the calendar has no {currencies} rows of the event types in {listed} ({why}): map "
                f"its names to ours under [calendar.values.event_type], and its currency to {currencies}"
            )
        )
    return events


def _own_symbols(path: Path, rows: pd.DataFrame, taxonomy: Taxonomy, notes: list[str]) -> pd.DataFrame:
    """Symbols of symbol events alone: vendors give other releases codes of their own in such a column."""
    if "symbol" not in rows.columns:
        return rows
    is_own = rows["event_type"].isin(taxonomy.symbol_types)
    others = int((~is_own & without_missing(rows["symbol"]).notna()).sum())
    if others:
        notes.append(f"{path.name}: {others} symbols of events that fall on every symbol's bars are left out")
    return rows.assign(symbol=without_missing(rows["symbol"]).where(is_own))


def _parsed(
    path: Path,
    rows: pd.DataFrame,
    theirs: pd.DataFrame,
    section: CalendarMap,
    faults: Faults,
    notes: list[str],
) -> pd.DataFrame:
    """Rows that count, with our values, moments and numbers."""
    if "event_name" not in rows.columns:
        rows = rows.assign(event_name=theirs.loc[rows.index, "event_type"])
    for name in ("actual", "forecast"):
        if name not in rows.columns:
            rows = rows.assign(**{name: float("nan")})
            notes.append(f"{path.name} has no column {name}: its rows are a schedule without it")
    rows, wrong = read_figures(rows, FIGURES, path.name, section.decimal)
    faults.add(*wrong)
    wrong_impact = sorted(set(rows["impact"].fillna("none").astype("str")) - set(IMPACTS))
    if wrong_impact:
        faults.add(
            TableError(f"{path.name}: unknown impact {some(wrong_impact)}; one of {', '.join(IMPACTS)}")
        )
    rows = rows.assign(release_at=_timed(rows, section))
    return _moments(path, rows, section, faults, notes)


def _timed(rows: pd.DataFrame, section: CalendarMap) -> pd.Series:
    """Release times; where the file has a date only, with the time that the map gives the type."""
    raw = rows["release_at"]
    times = rows["event_type"].map(dict(section.times))
    lacking = bare_dates(raw) & raw.notna() & times.notna()
    if not lacking.any():
        return raw
    return raw.where(~lacking, raw.astype("str").str[:10] + " " + times)


def _moments(
    path: Path, rows: pd.DataFrame, section: CalendarMap, faults: Faults, notes: list[str]
) -> pd.DataFrame:
    for column in ("release_at", "first_seen_at"):
        if column not in rows.columns:
            continue
        raw, where = rows[column], f"{path.name}, {column}"
        moments = read_timestamps(raw, where, section.time_zone, section, faults)
        midnight = pd.Series(column == "release_at", index=rows.index)
        refuse_bare_dates(without_missing(raw), moments, midnight, where, faults)
        if column == "release_at":
            empty = without_missing(raw).isna()
            if empty.any():
                numbers = [f"row {row + 1}" for row in rows.index[empty]]
                faults.add(
                    TableError(f"{where}: {len(numbers)} rows have no time ({some(numbers)}); fill it in")
                )
            naive = int(without_zone(raw, section).sum())
            if naive and "time_zone" not in section.model_fields_set:
                notes.append(
                    f"{path.name}: {naive} release times name no zone, nor does the map: they are read as "
                    "UTC; compare the hours below with the usual ones, or set calendar.time_zone"
                )
        rows = rows.assign(**{column: moments.dt.tz_convert("UTC")})
    return rows


def _unknown_types(path: Path, names: pd.Series, where: str) -> TableError:
    counts = names.value_counts()
    listed = some([f"{name} ({count})" if count > 1 else str(name) for name, count in counts.items()])
    return TableError(
        f"{path.name}: expected event types of {where}, got {listed}: map them under "
        '[calendar.values.event_type], or leave them out with unknown_event_types = "drop"'
    )


def _left_out(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    counts = pd.Series(list(names)).value_counts()
    return [f"left out {len(names)} {what}: {some([f'{name} ({count})' for name, count in counts.items()])}"]


def _near_misses(names: pd.Series, section: CalendarMap, taxonomy: Taxonomy) -> list[str]:
    """Hints on rows whose name is nearly one that the map has: a period behind it, or another spelling."""
    known = {**section.values.get("event_type", {}), **{name: name for name in taxonomy.event_types}}
    stems = {_PERIOD.sub("", name): name for name in known if "*" not in name}
    lines: dict[str, tuple[str, int]] = {}
    for name, count in names.value_counts().items():
        stem = _PERIOD.sub("", str(name))
        near = [stem] if stem in stems else difflib.get_close_matches(stem, stems, n=1, cutoff=0.85)
        if near:
            pattern = f"{stem}*" if stem in stems else str(name)
            before = lines.get(pattern, (stems[near[0]], 0))
            lines[pattern] = (before[0], before[1] + int(count))
    return [
        f'warning: {count} rows of "{pattern}" are near "{like}" of the map, but not it: to count them, add '
        f'"{pattern}" = "{known[like]}" under [calendar.values.event_type]'
        for pattern, (like, count) in lines.items()
    ]
