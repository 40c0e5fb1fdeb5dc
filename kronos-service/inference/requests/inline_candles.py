"""Candles sent in a request: faults by field, and a frame like the source's own for those without any."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.sessions import FIRST_DAY, sessions, utc
from kronos_service.inference.errors import FieldFault
from kronos_service.inference.schemas import AssetClass, Candle
from kronos_shared.columns import FEATURES
from kronos_shared.normalization import MIN_HISTORY

MOST_FAULTS: Final = 10

Days = npt.NDArray[np.datetime64]


def candle_faults(
    candles: list[Candle], asset_class: AssetClass, where: str, *, now: datetime, max_bars: int
) -> list[FieldFault]:
    """What is wrong with the candles at `where`, such as series.0.candles: the first ten faults.

    There must be `MIN_HISTORY` to `max_bars`, ascending, each of a session that has closed by `now`, without
    a session left out, low <= open, close <= high.
    """
    if not MIN_HISTORY <= len(candles) <= max_bars:
        return [
            FieldFault(field=where, message=f"expected {MIN_HISTORY} to {max_bars} bars, got {len(candles)}")
        ]
    days = np.array([candle.ts for candle in candles], dtype="datetime64[D]")
    date_faults = list(islice(_date_faults(days, asset_class, now), MOST_FAULTS))
    if not date_faults:
        date_faults = list(islice(_gap_faults(days, asset_class), MOST_FAULTS))
    faults = [*date_faults, *islice(_price_faults(candles), MOST_FAULTS)]
    return [
        FieldFault(field=f"{where}.{bar}.{name}", message=message)
        for bar, name, message in sorted(faults)[:MOST_FAULTS]
    ]


def candle_frame(candles: list[Candle]) -> pd.DataFrame:
    """The columns ts and `FEATURES`; a null amount is NaN."""
    frame = pd.DataFrame(
        {name: [getattr(candle, name) for candle in candles] for name in FEATURES}, dtype=float
    )
    return frame.assign(ts=pd.to_datetime([candle.ts for candle in candles], utc=True))


def _date_faults(days: Days, asset_class: AssetClass, now: datetime) -> Iterator[tuple[int, str, str]]:
    tomorrow = np.datetime64(now.date() + timedelta(days=1), "D")
    table = sessions(asset_class, FIRST_DAY, tomorrow.item())
    moment = utc([pd.Timestamp(now)])[0]
    for bar, day in enumerate(days):
        if bar and day <= days[bar - 1]:
            yield bar, "ts", f"expected a date after {days[bar - 1]}, got {day}: sort, drop duplicates"
        elif not table.dates[0] <= day <= tomorrow:
            yield bar, "ts", f"expected a date from {table.dates[0]} to today, got {day}"
        else:
            at = np.searchsorted(table.dates, day)
            if at == len(table.dates) or table.dates[at] != day:
                yield bar, "ts", f"expected a session of {asset_class}, got {day}, which is none"
            elif table.closes[at] > moment:
                yield bar, "ts", f"the session of {day} closes at {_utc(table.closes[at])}: leave the bar out"


def _gap_faults(days: Days, asset_class: AssetClass) -> Iterator[tuple[int, str, str]]:
    expected = sessions(asset_class, days[0].item(), days[-1].item()).dates
    missing = np.setdiff1d(expected, days)
    for bar in np.unique(np.searchsorted(days, missing)):
        before = missing[(missing > days[bar - 1]) & (missing < days[bar])]
        listed = ", ".join(map(str, before[:5])) + (" ..." if len(before) > 5 else "")
        yield int(bar), "ts", f"{len(before)} sessions are missing before {days[bar]}: {listed}"


def _price_faults(candles: list[Candle]) -> Iterator[tuple[int, str, str]]:
    for bar, candle in enumerate(candles):
        if candle.low > min(candle.open, candle.close):
            yield bar, "low", f"expected at most open and close, got {candle.low}"
        if candle.high < max(candle.open, candle.close):
            yield bar, "high", f"expected at least open and close, got {candle.high}"


def _utc(moment: np.datetime64) -> str:
    return f"{np.datetime_as_string(moment, unit='m')}Z"
