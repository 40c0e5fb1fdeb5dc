"""Timestamps of users' files: text, dates or numbers, with or without a zone.

A bar's timestamp decides its session date, and a wrong date leaks the future: 24-hour bars dated 00:00 UTC
but read in New York would each move to the day before. So a timestamp must be midnight in its zone, which
means a date, or lie within the session of its date; anything else is an error.
"""

from typing import Final

import numpy as np
import pandas as pd

from kronos_service.data.sources.column_map import TimedColumnMap
from kronos_service.data.tables import ReleaseTimeError, TableError, some
from kronos_service.events.sessions import LONGEST_CLOSURE, sessions, utc
from kronos_shared.columns import ASSET_CLASSES
from kronos_shared.errors import first_line

PLAIN: Final = TimedColumnMap()
_ZONE: Final = r"(?:[Zz]|[+-]\d\d:?(?:\d\d)?)$"
_TIME_OF_DAY: Final = r"\d[T ]\d"


class TimestampError(TableError):
    """Times that do not parse, that a clock change makes ambiguous, or that fit no session."""


def read_timestamps(raw: pd.Series, where: str, zone: str, written: TimedColumnMap = PLAIN) -> pd.Series:
    """Moments in the clock of `zone`; a null stays null.

    Args:
        raw: text, dates, datetimes, or numbers.
        where: file and column, for messages.
        zone: of timestamps without their own.
        written: the strptime format of text (default: ISO 8601), or the unit of numbers.

    Raises:
        TimestampError: a value does not parse, or is in an hour that a clock change skips or repeats.
    """
    try:
        if written.epoch is not None:
            moments = pd.to_datetime(pd.to_numeric(raw), unit=written.epoch, utc=True).dt.tz_convert(zone)
        elif isinstance(raw.dtype, pd.DatetimeTZDtype):
            moments = raw.dt.tz_convert(zone)
        elif raw.dtype.kind == "M":
            moments = raw.dt.tz_localize(zone)
        else:
            moments = _parsed(_text(raw), zone, written.time_format)
    except (ValueError, TypeError, OverflowError) as error:
        what = "numbers (epoch)" if written.epoch else written.time_format or "ISO 8601 times"
        got = first_line(error)
        if "dst" in got or "daylight" in got:
            got = (
                f"a time in an hour that a clock change of {zone} skips or repeats ({got.partition(',')[0]})"
            )
        raise TimestampError(f"{where}: expected {what}, got {got}; see docs/files.md") from None
    return moments


def session_days(moments: pd.Series, asset_class: str, where: str) -> pd.Series:
    """Session dates, at 00:00 UTC, of the moments of `read_timestamps`.

    Raises:
        TimestampError: a moment is neither midnight nor within the session of its date.
    """
    wall = moments.dt.tz_localize(None)
    days = wall.dt.normalize()
    inner = moments[wall != days].dropna()
    if not inner.empty and asset_class in ASSET_CLASSES:  # `validation` lists the others
        _refuse_outside(inner, days[inner.index], asset_class, where)
    dated: pd.Series = days.dt.tz_localize("UTC")
    return dated


def refuse_bare_dates(raw: pd.Series, moments: pd.Series, at_midnight: pd.Series, where: str) -> None:
    """Raise `ReleaseTimeError` for values without a time of day.

    Args:
        raw: the values of the file.
        moments: the same, from `read_timestamps`.
        at_midnight: rows whose midnight can only be a bare date, whatever `raw` says.
        where: file and column, for messages.
    """
    dates = pd.Series(raw.dtype.kind not in "Miuf", index=raw.index) & ~_text(raw).str.contains(
        _TIME_OF_DAY, na=False
    )
    bare = (moments == moments.dt.normalize()) & (dates | at_midnight)
    if bare.any():
        rows = [f"row {row + 1}: {raw.iloc[row]}" for row in np.flatnonzero(bare)[:6]]
        raise ReleaseTimeError(
            f"{where}: {int(bare.sum())} values have no time of day ({some(rows, total=int(bare.sum()))}); "
            "give the time, or leave those rows out"
        )


def _parsed(text: pd.Series, zone: str, time_format: str | None) -> pd.Series:
    if time_format is None:
        own_zone = text.str.contains(_TIME_OF_DAY, na=False) & text.str.contains(_ZONE, na=False)
    else:
        own_zone = text.notna() & ("%z" in time_format)
    local, form = text.notna() & ~own_zone, time_format or "ISO8601"
    nothing = pd.Series(pd.NaT, index=text.index, dtype="datetime64[ns, UTC]")
    moments: pd.Series = nothing.dt.tz_convert(zone)
    if own_zone.any():
        moments[own_zone] = pd.to_datetime(text[own_zone], format=form, utc=True).dt.tz_convert(zone)
    if local.any():
        moments[local] = pd.to_datetime(text[local], format=form).dt.tz_localize(zone)
    return moments


def _refuse_outside(moments: pd.Series, days: pd.Series, asset_class: str, where: str) -> None:
    dates = days.to_numpy().astype("datetime64[D]")
    table = sessions(asset_class, dates.min().item(), dates.max().item() + LONGEST_CLOSURE)
    at = np.searchsorted(table.dates, dates)
    times = utc(moments)
    # Dates without a session are left to `validation`, which lists every such bar.
    outside = (table.dates[at] == dates) & ((times < table.opens[at]) | (times >= table.as_of[at]))
    if outside.any():
        first = moments[outside].iloc[0]
        raise TimestampError(
            f"{where}: {int(outside.sum())} stamps are neither midnight nor within the {asset_class} session "
            f"of their date, the first {first.isoformat()}: set ohlcv.time_zone to the zone in which they "
            f'are midnight, for this asset class alone as in time_zone = {{ {asset_class} = "UTC" }}'
        )


def _text(raw: pd.Series) -> pd.Series:
    text: pd.Series = raw.astype("str").str.strip().where(raw.notna())
    return text
