"""Timestamps of users' files: text, dates or numbers, with or without a zone.

A bar's timestamp decides its session date, and a wrong date leaks the future: 24-hour bars dated 00:00 UTC
but read in New York would each move to the day before. So a timestamp must be midnight in its zone, which
means a date, or lie within the session of its date; anything else is an error, unless the map says when the
day of a 24-hour bar begins (`day_starts`). `session_days` makes the dates.
"""

import re
from typing import Final

import pandas as pd

from kronos_service.data.sources.column_map import FileMap
from kronos_service.data.sources.faults import Faults, listed
from kronos_service.data.sources.figures import without_missing
from kronos_service.data.tables import ReleaseTimeError, TableError, some

PLAIN: Final = FileMap()
_ZONE: Final = r"(?:[Zz]|[+-]\d\d:?(?:\d\d)?)$"
_TIME_OF_DAY: Final = r"\d[T ]\d"
_UTC_LITERAL: Final = re.compile(r"(?<!%)Z$|\b(UTC|GMT)$|\+00:?00$")
"""The end of a time_format whose times are in UTC whatever the zone of the map."""
_DIGITS: Final = {"s": (9, 10), "ms": (12, 13), "us": (15, 16), "ns": (18, 19)}
"""Digits before the point of a time since 1970 in each unit, from 1973 to 2286."""
UNITS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class TimestampError(TableError):
    """Times that do not parse, that a clock change makes ambiguous, or that fit no session."""


def read_timestamps(
    raw: pd.Series, where: str, zone: str, written: FileMap = PLAIN, faults: Faults | None = None
) -> pd.Series:
    """Moments in the clock of `zone`; a null stays null.

    Args:
        raw: text, dates, datetimes, or numbers; the index is the row.
        where: file and column, for messages.
        zone: of timestamps without their own.
        written: the strptime format of text (default: ISO 8601), or the unit of numbers.
        faults: takes the faults, whose values become null; without it they are raised.

    Raises:
        TimestampError: values do not parse, or are in an hour that a clock change skips or repeats.
    """
    raw, own = without_missing(raw), faults or Faults()
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        converted: pd.Series = raw.dt.tz_convert(zone)
        return converted
    if raw.dtype.kind == "M":
        moments, local = _localized(raw, zone), raw
    else:
        moments, local = _parsed(raw, zone, written)
    unread = raw[raw.notna() & local.isna()]
    skipped = raw[local.notna() & moments.isna()]
    if not unread.empty:
        what = "numbers (epoch)" if written.epoch else written.time_format or "ISO 8601 times"
        own.add(
            TimestampError(
                f"{where}: expected {what}, got {listed(unread)}; set time_format or epoch in the map to "
                "how they are written (docs/files.md)"
            )
        )
    if not skipped.empty:
        own.add(
            TimestampError(
                f"{where}: expected {written.time_format or 'ISO 8601 times'}, got a time in an hour that "
                f"a clock change of {zone} skips or repeats ({listed(skipped.astype('str'))}); give the "
                "times with their offset, or in UTC"
            )
        )
    if faults is None:
        own.refuse()
    return moments


def without_zone(raw: pd.Series, written: FileMap = PLAIN) -> pd.Series:
    """Which values have a time of day but no zone of their own, so that the map's zone decides."""
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        return pd.Series(False, index=raw.index)
    if raw.dtype.kind == "M":
        return raw.notna()
    text = _text(without_missing(raw))
    is_epoch = _epoch_units(raw, written) != ""
    return text.notna() & ~is_epoch & ~_has_own_zone(text, written.time_format) & ~_are_dates(text)


def epoch_units(raw: pd.Series, written: FileMap = PLAIN) -> pd.Series:
    """The unit of each value that is a number since 1970, such as "ms"; empty for the others."""
    return _epoch_units(without_missing(raw), written)


def refuse_bare_dates(
    raw: pd.Series, moments: pd.Series, at_midnight: pd.Series, where: str, faults: Faults | None = None
) -> None:
    """Raise `ReleaseTimeError` for values without a time of day.

    Args:
        raw: the values of the file; the index is the row.
        moments: the same, from `read_timestamps`.
        at_midnight: rows whose midnight can only be a bare date, whatever `raw` says.
        where: file and column, for messages.
        faults: takes the error instead.
    """
    own = faults or Faults()
    bare = (moments == moments.dt.normalize()) & (bare_dates(raw) | at_midnight)
    if bare.any():
        rows = [f"row {row + 1}: {value}" for row, value in raw[bare].head(6).items()]
        own.add(
            ReleaseTimeError(
                f"{where}: {int(bare.sum())} values have no time of day "
                f"({some(rows, total=int(bare.sum()))}); give the time, or leave those rows out"
            )
        )
    if faults is None:
        own.refuse()


def bare_dates(raw: pd.Series) -> pd.Series:
    """Which values are dates without a time of day."""
    if raw.dtype.kind in "Miuf" or isinstance(raw.dtype, pd.DatetimeTZDtype):
        return pd.Series(False, index=raw.index)
    return _are_dates(_text(raw)) & (_epoch_units(raw, PLAIN) == "")


def _are_dates(text: pd.Series) -> pd.Series:
    return ~text.str.contains(_TIME_OF_DAY, na=False)


def _epoch_units(raw: pd.Series, written: FileMap) -> pd.Series:
    """By size, which no date between 1973 and 2286 leaves open; the unit of the map decides the rest."""
    units = pd.Series("", index=raw.index, dtype=object)
    if written.time_format is not None:
        return units
    text = _text(raw)
    whole = text.str.extract(r"^(\d+)(?:\.\d*)?$")[0].str.len()
    is_calendar = text.str.contains(r"^(?:19|20)\d{10}$", na=False)  # 202406121230
    for unit, (fewest, most) in _DIGITS.items():
        units[(whole >= fewest) & (whole <= most) & ~is_calendar] = unit
    if written.epoch is not None:
        is_number = pd.to_numeric(text, errors="coerce").notna()
        units[is_number & (units == "")] = written.epoch
    return units


def _has_own_zone(text: pd.Series, time_format: str | None) -> pd.Series:
    if time_format is None:
        return text.str.contains(_TIME_OF_DAY, na=False) & text.str.contains(_ZONE, na=False)
    is_own = "%z" in time_format or bool(_UTC_LITERAL.search(time_format))
    return text.notna() & is_own


def _parsed(raw: pd.Series, zone: str, written: FileMap) -> tuple[pd.Series, pd.Series]:
    """Moments in the zone, and what the clock shows; the latter is null only where nothing parses."""
    text, form = _text(raw), written.time_format or "ISO8601"
    units = _epoch_units(raw, written)
    own_zone = _has_own_zone(text, written.time_format) & (units == "")
    moments = pd.Series(pd.NaT, index=raw.index, dtype="datetime64[ns, UTC]").dt.tz_convert(zone)
    local = pd.Series(pd.NaT, index=raw.index, dtype="datetime64[ns]")
    for unit in sorted(set(units) - {""}):
        chosen = units == unit
        numbers = pd.to_numeric(text[chosen])
        moments[chosen] = pd.to_datetime(numbers, unit=unit, utc=True, errors="coerce").dt.tz_convert(zone)
    if own_zone.any():
        found = pd.to_datetime(text[own_zone], format=form, utc=True, errors="coerce")
        moments[own_zone] = found.dt.tz_convert(zone)
    local[moments.notna()] = moments[moments.notna()].dt.tz_localize(None)
    naive = text.notna() & ~own_zone & (units == "")
    if written.epoch is not None:
        naive &= False
    if naive.any():
        local[naive] = pd.to_datetime(text[naive], format=form, errors="coerce").astype("datetime64[ns]")
        moments[naive] = _localized(local[naive], zone)
    return moments, local


def _localized(local: pd.Series, zone: str) -> pd.Series:
    """The moments of clock times; null in an hour that a clock change skips or repeats."""
    moments: pd.Series = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    return moments


def _text(raw: pd.Series) -> pd.Series:
    text: pd.Series = raw.astype("str").str.strip().where(raw.notna())
    return text
