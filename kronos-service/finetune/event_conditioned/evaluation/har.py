"""The HAR yardsticks: a regression of the next bar's range, shown the days of tier-1 events or not.

`har` is the heterogeneous autoregression of Corsi (2009) on log true ranges, with market controls;
`har_events` has one dummy more, pooled over the families of tier 1 and known from the schedule. Both are
fitted by least squares over the bars of one training window, one panel per asset class, with a level per
symbol. A forecast takes its scale from the regression and its shape from the residuals of training.

Row i of the regressors is about bar i + 1 and uses what was known at as_of(i), as the event rows do.
Letters: n bars, R regressors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kronos_service.data.snapshot.read import Snapshot, daily
from kronos_service.events.leaders import Leader, read_leader, usable_bars
from kronos_service.events.sessions import LONGEST_CLOSURE, days_of, locate, sessions
from kronos_service.events.taxonomy import IMPACT_WEIGHTS
from kronos_service.finetune.event_conditioned.evaluation.densities import (
    NextBar,
    Shape,
    fit_shape,
    grid_quantiles,
)
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.columns import CLOSE, HIGH, LOW
from kronos_shared.normalization import Floats, feature_matrix

LAGS: Final = (1, 5, 22, 66)
"""Bars over which log true ranges are averaged: a day, a week, a month, a quarter."""
WEEKDAYS: Final = 7
SMALLEST_RANGE: Final = 1e-4
"""A bar that never moved has no logarithm; a range counts as one basis point at least."""
EVENT: Final = -1
"""The column of the tier-1 dummy."""


def log_range(high: Floats, low: Floats, before: Floats) -> Floats:
    """Log true range log(log(max(high, before) / min(low, before))), elementwise; `before` is the previous
    close, or NaN where there is none.
    """
    spread = np.log(np.fmax(high, before) / np.fmin(low, before))
    found: Floats = np.log(np.maximum(spread, SMALLEST_RANGE))
    return found


def log_true_range(features: Floats) -> Floats:
    """(n,) of a series' bars (n, 6)."""
    before = np.concatenate([[np.nan], features[:-1, CLOSE]])
    return log_range(features[:, HIGH], features[:, LOW], before)


@dataclass(frozen=True, eq=False)
class Market:
    """What the regressors take from the leaders: VIX and SPY, with the moment each bar closed."""

    vix: Leader
    spy: Leader
    spy_range: Floats
    """Log true range of each SPY bar."""


def read_market(snapshot: Snapshot) -> Market:
    """VIX and SPY of a snapshot; without bars where it has none."""
    # without their bars every row has an unknown regressor, and no regression is fitted
    bars = daily(snapshot).bars
    vix, spy = (bars[bars["symbol"] == name] for name in ("VIX", "SPY"))
    return Market(
        vix=read_leader("VIX", vix[["ts", "close"]]),
        spy=read_leader("SPY", spy[["ts", "close"]]),
        spy_range=log_true_range(feature_matrix(spy)),
    )


def regressors(one: Series, market: Market) -> Floats:
    """The (n, R) regressors of the bars after each of the series' n bars, the tier-1 dummy last.

    NaN in a row where a leader has not two closed bars yet.
    """
    table = sessions(one.asset_class, one.dates[0].item(), one.dates[-1].item(), one.interval)
    as_of = table.as_of[locate(table, one.dates)]
    own = log_true_range(one.features)
    vix, vix_change = _last_and_change(market.vix.log_close, usable_bars(market.vix, as_of))
    spy_bars = usable_bars(market.spy, as_of)
    _, spy_return = _last_and_change(market.spy.log_close, spy_bars)
    spy_range, _ = _last_and_change(market.spy_range, spy_bars)
    weekday = (days_of(_next_sessions(one)).astype(np.int64) + 3) % WEEKDAYS  # 1970-01-01 was a Thursday
    known = one.events[:, one.taxonomy.tier1_channels].max(axis=1, initial=0) >= IMPACT_WEIGHTS["high"]
    columns = [_trailing_mean(own, lag) for lag in LAGS]
    columns += [vix, vix_change, spy_return, spy_range]
    return np.column_stack([*columns, np.eye(WEEKDAYS)[weekday], known.astype(np.float64)])


def _next_sessions(one: Series) -> npt.NDArray[np.datetime64]:
    """The date of the session after each bar: the calendar's, not that of the data's next row."""
    last = one.dates[-1].item() + LONGEST_CLOSURE
    table = sessions(one.asset_class, one.dates[0].item(), last, one.interval)
    following: npt.NDArray[np.datetime64] = table.dates[locate(table, one.dates) + 1]
    return following


def _trailing_mean(values: Floats, length: int) -> Floats:
    """The mean of each value and those before it, `length` in all or as many as there are."""
    # One sum per row, not a difference of running sums: later values then change no bit of earlier means.
    padded = np.concatenate([np.zeros(length - 1), values])
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, length))
    means: Floats = windows.sum(axis=1) / np.minimum(np.arange(1, len(values) + 1), length)
    return means


def _last_and_change(values: Floats, closed: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The last of the first `closed` values, and its difference to the one before; NaN without two."""
    whole = np.concatenate([[np.nan, np.nan], values])
    return np.where(closed > 1, whole[closed + 1], np.nan), whole[closed + 1] - whole[closed]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """The regression of one asset class."""

    coefficients: Floats
    """(R,); the tier-1 dummy's is 0 in `har`."""
    level: Mapping[str, float]
    """Each symbol's own level."""
    other_level: float
    """The level of a symbol that the training window does not have."""
    deviation: float
    """Of the training residuals, in log true range."""
    range_quantiles: Floats
    """(K,) of the residuals over `deviation`."""
    range_moment: float
    """Mean of exp(2 residual)."""
    return_shape: Shape
    """Of the close's log return over the expected range."""
    return_moment: float
    """Mean of its square."""

    def expected(self, symbol: str, rows: Floats) -> Floats:
        """The expected log true range (m,) of the bars that regressors (m, R) are about."""
        log_range: Floats = rows @ self.coefficients + self.level.get(symbol, self.other_level)
        return log_range

    def forecast(self, symbol: str, rows: Floats) -> NextBar:
        """Forecasts (m,) of the bars that regressors (m, R) are about."""
        center = self.expected(symbol, rows)
        scale = np.exp(center)
        return NextBar(
            return_center=np.zeros_like(center),
            return_scale=scale,
            return_shape=self.return_shape,
            return_square=scale**2 * self.return_moment,
            range_center=center,
            range_scale=self.deviation,
            range_quantiles=self.range_quantiles,
            range_square=scale**2 * self.range_moment,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelRows:
    """What a panel is fitted to: m targets of several series."""

    symbols: Sequence[str]
    symbol: npt.NDArray[np.int64]
    """(m,) position in `symbols`."""
    rows: Floats
    """(m, R) regressors."""
    log_range: Floats
    log_return: Floats


def fit_panel(panel: PanelRows, *, events: bool) -> Panel:
    """Least squares with a level per symbol; without `events` the tier-1 dummy stays 0."""
    used = np.ones(panel.rows.shape[1], dtype=np.bool_)
    used[EVENT] = events
    row_means = np.column_stack([_mean_by_symbol(panel, column) for column in panel.rows.T])
    range_means = _mean_by_symbol(panel, panel.log_range)
    coefficients = np.zeros(panel.rows.shape[1])
    # Each symbol's own means are taken out: the same coefficients as with a dummy per symbol.
    within = (panel.rows - row_means[panel.symbol])[:, used]
    coefficients[used], *_ = np.linalg.lstsq(within, panel.log_range - range_means[panel.symbol], rcond=None)
    levels = range_means - row_means @ coefficients
    present = set(panel.symbol.tolist())
    expected = panel.rows @ coefficients + levels[panel.symbol]
    residuals = panel.log_range - expected
    relative = panel.log_return / np.exp(expected)
    deviation = float(residuals.std())
    return Panel(
        coefficients=coefficients,
        level={panel.symbols[number]: float(levels[number]) for number in present},
        other_level=float((panel.log_range - panel.rows @ coefficients).mean()),
        deviation=deviation,
        range_quantiles=grid_quantiles(residuals / deviation),
        range_moment=float(np.exp(2 * residuals).mean()),
        return_shape=fit_shape(relative),
        return_moment=float((relative**2).mean()),
    )


def _mean_by_symbol(panel: PanelRows, values: Floats) -> Floats:
    number = len(panel.symbols)
    sums = np.bincount(panel.symbol, weights=values, minlength=number)
    # A symbol without a row gets 0, and then the level of an unknown one: see `fit_panel`.
    return sums / np.maximum(np.bincount(panel.symbol, minlength=number), 1)
