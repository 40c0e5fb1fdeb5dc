"""Cross-asset leaders: their moves since the bar before, in standard deviations of their daily returns.

A leader's bar counts from its own close on, in its own session: at 16:00 New York SPY's bar of the day has
closed, that of a 24-hour market has not.
"""

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
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_shared.errors import KronosError

RETURNS: Final = 60
"""Daily log returns in a leader's standard deviation."""


class LeaderError(KronosError):
    """A leader is missing, or its bars cannot be used."""


@dataclass(frozen=True, eq=False)
class Leader:
    """L bars, ascending: when each closed, its log close, and `sigma` (L + 1,) of the first n bars."""

    name: str
    asset_class: str
    closed_at: Times
    log_close: Floats
    sigma: Floats


def read_leader(name: str, bars: pd.DataFrame, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> Leader:
    """A leader's bars (columns ts and close, any order) with their closing times.

    A frame without rows is a leader of which nothing is known: its channel is 0.

    Raises:
        LeaderError: a close is not positive, a date is no session, or a date repeats.
    """
    asset_class = taxonomy.leader_asset_class[name]
    close = bars["close"].to_numpy(dtype=np.float64)
    if not (np.isfinite(close) & (close > 0)).all():
        raise LeaderError(f"expected positive closes of leader {name}, got others: fix its bars")
    try:
        closed_at = _closing_times(asset_class, bars["ts"])
    except SessionError as error:
        raise LeaderError(f"leader {name}: {error}") from error
    order = np.argsort(closed_at)
    closed_at, log_close = closed_at[order], np.log(close[order])
    if (closed_at[1:] == closed_at[:-1]).any():
        raise LeaderError(f"expected one bar per date of leader {name}, got several: drop the duplicates")
    return Leader(
        name=name,
        asset_class=asset_class,
        closed_at=closed_at,
        log_close=log_close,
        sigma=_sigma(log_close),
    )


def leader_channel(leader: Leader, as_of: Times, previous: Times) -> Floats:
    """For T bars: the leader's move (T,) from its last close known at `previous` to its last at `as_of`.

    Log ratio of the closes over sigma at `previous`, clipped to +-5; 0 without a new bar. The sigma excludes
    the move itself, which would shrink its own score.
    """
    now, then = usable_bars(leader, as_of), usable_bars(leader, previous)
    # The value before a leader's first bar is arbitrary: sigma is 0 there, and so is the channel.
    log_close = np.concatenate([[0.0], leader.log_close])
    return standardize(log_close[now] - log_close[then], leader.sigma[then])


def usable_bars(leader: Leader, as_of: Times) -> Indices:
    """How many of the leader's bars had closed by each `as_of` (inclusive)."""
    return np.searchsorted(leader.closed_at, as_of, side="right")


def missing_leaders(leaders: Sequence[Leader], as_of: np.datetime64) -> tuple[str, ...]:
    """Which leaders, in their order, lack the bar of their last session closed by `as_of`."""
    moment = np.array([as_of])
    return tuple(
        leader.name
        for leader in leaders
        if not (leader.closed_at == _last_close(leader.asset_class, moment)).any()
    )


def _last_close(asset_class: str, moment: Times) -> np.datetime64:
    day = moment.astype("datetime64[D]")[0].item()
    table = sessions(asset_class, day - LONGEST_CLOSURE, day)
    closed: np.datetime64 = table.closes[np.searchsorted(table.closes, moment, side="right")[0] - 1]
    return closed


def _closing_times(asset_class: str, ts: pd.Series) -> Times:
    days = session_dates(ts)
    if len(days) == 0:
        return np.zeros(0, dtype="datetime64[ns]")
    table = sessions(asset_class, days.min().item(), days.max().item())
    return table.closes[locate(table, days)]


def _sigma(log_close: Floats) -> Floats:
    """Standard deviation (ddof 1) of the last 60 returns of the first n bars, n = 0 .. L; 0 if fewer."""
    sigma = np.zeros(len(log_close) + 1)
    if len(log_close) > RETURNS:
        windows = np.lib.stride_tricks.sliding_window_view(np.diff(log_close), RETURNS)
        # A contiguous copy: numpy then sums each row alone, so later bars change no bit of earlier sums.
        sigma[RETURNS + 1 :] = np.ascontiguousarray(windows).std(axis=1, ddof=1)
    return sigma
