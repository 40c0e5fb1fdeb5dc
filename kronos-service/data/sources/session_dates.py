"""From the moments of bars' timestamps to session dates, or to an error that names the remedy."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from kronos_service.data.sources.faults import Faults
from kronos_service.data.sources.timestamps import TimestampError
from kronos_service.events.sessions import LONGEST_CLOSURE, sessions, utc
from kronos_shared.columns import ASSET_CLASSES

NEW_YORK: Final = "America/New_York"
ZONES: Final = ("UTC", NEW_YORK, "America/Chicago", "Europe/London", "Europe/Athens", "Asia/Hong_Kong")
"""Zones in which vendors' stamps are midnight, for advice."""
END_OF_DAY: Final = np.timedelta64(23 * 60 + 59, "m")
"""A 24-hour bar stamped from then on is stamped with its end."""
ONE_DAY: Final = np.timedelta64(1, "D")


def session_days(
    moments: pd.Series,
    asset_class: str,
    where: str,
    *,
    day_starts: str | None = None,
    is_moment: pd.Series | None = None,
    faults: Faults | None = None,
) -> pd.Series:
    """Session dates, at 00:00 UTC, of the moments of `read_timestamps`.

    Args:
        day_starts: HH:MM in the moments' clock at which the day of a 24-hour bar begins; a bar is dated by
            the day on which it ends, so that nothing is known of it before.
        is_moment: which stamps are moments even at midnight, because they have their own zone; of the others
            a midnight is a date (default: all are moments).
        faults: takes the error instead of raising it.

    Raises:
        TimestampError: a moment is neither midnight nor within the session of its date, or a day of crypto
            does not begin at 00:00 UTC.
    """
    own = faults or Faults()
    wall = moments.dt.tz_localize(None)
    days = wall.dt.normalize()
    if day_starts is not None and day_starts != "00:00":
        start = pd.Timedelta(f"{day_starts}:00")
        days = (wall - start).dt.normalize() + pd.Timedelta(days=1)
    certain = pd.Series(True, index=moments.index) if is_moment is None else is_moment
    inner = moments[(wall != wall.dt.normalize()) | (certain & (asset_class == "crypto"))].dropna()
    if not inner.empty and asset_class in ASSET_CLASSES:  # `validation` lists the others
        _check(inner, days[inner.index], asset_class, where, day_starts, own)
    if faults is None:
        own.refuse()
    dated: pd.Series = days.dt.tz_localize("UTC")
    return dated


def _check(
    moments: pd.Series, days: pd.Series, asset_class: str, where: str, day_starts: str | None, faults: Faults
) -> None:
    dates = days.to_numpy().astype("datetime64[D]")
    times = utc(moments)
    if asset_class == "crypto":
        at = times - dates.astype("datetime64[ns]")
        # Up to a day before: the bar ends on its date. From 23:59 on: the stamp is the bar's end.
        outside = ((at > np.timedelta64(0)) & (at < END_OF_DAY)) | (at <= -ONE_DAY) | (at >= ONE_DAY)
        if day_starts is None:
            outside |= (at < np.timedelta64(0)) & (moments != moments.dt.normalize()).to_numpy()
    else:
        table = sessions(asset_class, dates.min().item(), dates.max().item() + LONGEST_CLOSURE)
        index = np.searchsorted(table.dates, dates)
        # Dates without a session are left to `validation`, which lists every such bar.
        is_session = table.dates[index] == dates
        outside = is_session & ((times < table.opens[index]) | (times >= table.as_of[index]))
    if outside.any():
        wrong = moments[outside]
        faults.add(
            TimestampError(
                f"{where}: {int(outside.sum())} stamps are neither midnight nor within the {asset_class} "
                f"session of their date, the first {wrong.iloc[0].isoformat()}: "
                f"{_advice(wrong, asset_class, day_starts)}"
            )
        )


def _advice(wrong: pd.Series, asset_class: str, day_starts: str | None) -> str:
    """What to set in the map, never what is set already."""
    zone = str(wrong.dt.tz)
    if asset_class == "fx" and day_starts is None and not _is_midnight(wrong.dt.tz_convert("UTC")):
        hours = wrong.dt.tz_convert(NEW_YORK).dt.hour
        if hours.between(17, 20).all():
            zone_too = "" if zone == NEW_YORK else f' and ohlcv.time_zone = {{ fx = "{NEW_YORK}" }}'
            return (
                "these begin on the evening before their session (17:00 New York): set ohlcv.day_starts = "
                f'{{ fx = "17:00" }}{zone_too}, which dates each by the day on which it ends'
            )
    if asset_class == "crypto":
        begins = _common(wrong.dt.tz_convert("UTC").dt.strftime("%H:%M").tolist())
        if begins == "00:00":
            return 'these days begin at 00:00 UTC: set ohlcv.time_zone = { crypto = "UTC" }'
        utc_first = "" if zone == "UTC" else 'set ohlcv.time_zone = { crypto = "UTC" } and '
        return (
            f"dated as a UTC day, a bar that begins at {begins} UTC would be known hours before it ends: "
            f'{utc_first or "set "}ohlcv.day_starts = {{ crypto = "{begins}" }}, which dates each bar by the '
            "day on which it ends"
        )
    midnight = [one for one in ZONES if one != zone and _is_midnight(wrong.dt.tz_convert(one))]
    if midnight:
        return (
            "set ohlcv.time_zone to the zone in which they are midnight, for this asset class alone as in "
            f'time_zone = {{ {asset_class} = "{midnight[0]}" }}'
        )
    return (
        f"in {zone} they are {_common(wrong.dt.strftime('%H:%M').tolist())}: set ohlcv.time_zone to the zone "
        "of the exchange's clock, or give the bars' dates without a time"
    )


def _is_midnight(moments: pd.Series) -> bool:
    return bool((moments == moments.dt.normalize()).all())


def _common(words: Sequence[str]) -> str:
    return max(sorted(set(words)), key=list(words).count)
