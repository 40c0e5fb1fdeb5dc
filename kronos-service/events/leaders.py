"""Leaders: how far BTCUSDT, SPY, DXY and VIX moved since the bar before, in units of their usual day."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from kronos_service.events.scaling import Floats, standardize
from kronos_service.events.sessions import (
    LONGEST_CLOSURE,
    Indices,
    SessionError,
    Times,
    locate,
    session_dates,
    sessions,
)
from kronos_service.events.taxonomy import LEADER_ASSET_CLASS, LEADERS
from kronos_shared.errors import KronosError

RETURNS: Final = 60
"""Daily log returns that make a leader's standard deviation."""


class LeaderError(KronosError):
    """A leader that is missing, or whose bars cannot be used."""


@dataclass(frozen=True, eq=False)
class Leader:
    """L bars, ascending: when each closed, its log close, and `sigma` (L + 1,) after the first n bars."""

    closed_at: Times
    log_close: Floats
    sigma: Floats


def read_leader(name: str, bars: pd.DataFrame) -> Leader:
    """A leader's bars (columns ts and close, any order) with their closing times; LeaderError if unusable.

    A frame without rows is a leader of which nothing is known: its channel is 0.
    """
    close = bars["close"].to_numpy(dtype=np.float64)
    if not (np.isfinite(close) & (close > 0)).all():
        raise LeaderError(f"expected positive closes of leader {name}, got others: mend its bars")
    try:
        closed_at = _closing_times(name, bars["ts"])
    except SessionError as error:
        raise LeaderError(f"leader {name}: {error}") from error
    order = np.argsort(closed_at)
    closed_at, log_close = closed_at[order], np.log(close[order])
    if (closed_at[1:] == closed_at[:-1]).any():
        raise LeaderError(f"expected one bar per date of leader {name}, got several: drop the duplicates")
    return Leader(closed_at=closed_at, log_close=log_close, sigma=_sigma(log_close))


def leader_channel(leader: Leader, as_of: Times, previous: Times) -> Floats:
    """For T bars: the leader's move (T,) from what was known at `previous` to what is known at `as_of`.

    Log ratio of the last closes over sigma as it was at `previous`, clipped to +-5; 0 without a new bar.
    """
    now, then = usable_bars(leader, as_of), usable_bars(leader, previous)
    # Before its first bar a leader's close does not matter: there is no sigma either, and the channel is 0.
    log_close = np.concatenate([[0.0], leader.log_close])
    return standardize(log_close[now] - log_close[then], leader.sigma[then])


def usable_bars(leader: Leader, as_of: Times) -> Indices:
    """How many of the leader's bars had closed by each `as_of`, that moment included."""
    return np.searchsorted(leader.closed_at, as_of, side="right")


def missing_leaders(leaders: Sequence[Leader], as_of: np.datetime64) -> tuple[str, ...]:
    """Which leaders (in the order of `LEADERS`) lack the bar of their last session closed by `as_of`."""
    moment = np.array([as_of])
    return tuple(
        name
        for name, leader in zip(LEADERS, leaders, strict=True)
        if not (leader.closed_at == _last_close(name, moment)).any()
    )


def _last_close(name: str, moment: Times) -> np.datetime64:
    day = moment.astype("datetime64[D]")[0].item()
    table = sessions(LEADER_ASSET_CLASS[name], day - LONGEST_CLOSURE, day)
    closed: np.datetime64 = table.closes[np.searchsorted(table.closes, moment, side="right")[0] - 1]
    return closed


def _closing_times(name: str, ts: pd.Series) -> Times:
    days = session_dates(ts)
    if len(days) == 0:
        return np.zeros(0, dtype="datetime64[ns]")
    table = sessions(LEADER_ASSET_CLASS[name], days.min().item(), days.max().item())
    return table.closes[locate(table, days)]


def _sigma(log_close: Floats) -> Floats:
    """Spread (ddof 1) of the last 60 returns of the first n bars, for n = 0 .. L; 0 where they are fewer."""
    sigma = np.zeros(len(log_close) + 1)
    if len(log_close) > RETURNS:
        windows = np.lib.stride_tricks.sliding_window_view(np.diff(log_close), RETURNS)
        # A contiguous copy: each row is then summed alone, so later bars cannot change earlier sums by a bit.
        sigma[RETURNS + 1 :] = np.ascontiguousarray(windows).std(axis=1, ddof=1)
    return sigma
