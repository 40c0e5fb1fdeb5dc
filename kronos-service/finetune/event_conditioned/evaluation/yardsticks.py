"""Yardsticks of the next bar's return and range: what simple models say that learn from prices alone.

    fitted = fit_yardsticks(snapshot, series, first=first, last=last)
    scores = score_yardsticks(fitted, series, first=first, last=last)

They are fitted on the targets of a training window and then held: nothing dated later moves a coefficient.
The targets are those on which the model is trained and scored (`plan_windows`).
Letters: n bars of a series, m targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation import garch
from kronos_service.finetune.event_conditioned.evaluation.densities import (
    NORMAL,
    NextBar,
    score_next_bar,
)
from kronos_service.finetune.event_conditioned.evaluation.har import (
    Market,
    Panel,
    PanelRows,
    fit_panel,
    log_true_range,
    read_market,
    regressors,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import VOLATILITY_RETURNS
from kronos_service.finetune.event_conditioned.samples.series import Series, calendar_covers
from kronos_service.finetune.event_conditioned.samples.windows import plan_windows
from kronos_shared.columns import CLOSE
from kronos_shared.normalization import Floats

YARDSTICKS: Final = ("persistence", "random_walk", "har", "har_events", "garch")
SCORES: Final = (
    "return_crps",
    "return_log_score",
    "return_qlike",
    "range_crps",
    "range_log_score",
    "range_qlike",
)
NORMAL_RANGE: Final = (0.43, 0.29)
"""Mean and deviation of the log range of Brownian motion over its deviation: nearly normal (Alizadeh, Brandt
and Diebold 2002, table I).
"""
Bars = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardsticks:
    """What the yardsticks learned from one training window."""

    first: np.datetime64
    last: np.datetime64
    """The training window's target dates, both inclusive."""
    covers: np.datetime64
    """The last target date about which the calendar can say everything."""
    market: Market
    panels: Mapping[str, Mapping[str, Panel]]
    """Yardstick -> asset class -> regression."""
    garch: Mapping[str, garch.Garch]
    """By symbol, where the fit converged."""
    not_measured: Mapping[str, str]
    """Yardstick -> why it is missing, or misses some symbols."""


def fit_yardsticks(
    snapshot: Snapshot, series: Sequence[Series], *, first: np.datetime64, last: np.datetime64
) -> Yardsticks:
    """Fit every yardstick on the targets dated `first`..`last` (both inclusive).

    `series` are those of `build_series`, with the real events: `har_events` reads its dummy from them.
    """
    covers, market = calendar_covers(snapshot), read_market(snapshot)
    bars = target_bars(series, first=first, last=last, covers=covers)
    panels: dict[str, dict[str, Panel]] = {"har": {}, "har_events": {}}
    for asset_class in sorted({series[number].asset_class for number in bars}):
        rows = _panel_rows(series, bars, market, asset_class)
        if len(rows.rows):
            panels["har"][asset_class] = fit_panel(rows, events=False)
            panels["har_events"][asset_class] = fit_panel(rows, events=True)
    fitted = _fit_garch(series, bars) if garch.is_installed() else {}
    return Yardsticks(
        first=first,
        last=last,
        covers=covers,
        market=market,
        panels=panels,
        garch=fitted,
        not_measured=_not_measured(series, bars, fitted, panels["har"]),
    )


def target_bars(
    series: Sequence[Series], *, first: np.datetime64, last: np.datetime64, covers: np.datetime64
) -> dict[int, Bars]:
    """The targets dated `first`..`last` of each series that has any: its number, and their bars (m,)."""
    longest = max(len(one.dates) for one in series)
    windows, _ = plan_windows(
        series, first=first, last=last, calendar_covers=covers, context=1, scored=longest
    )
    bars = {one.series: np.arange(one.first_target, one.stop) for one in windows}
    return {number: some[series[number].follows[some]] for number, some in bars.items()}


def forecast_bars(yardsticks: Yardsticks, one: Series, bars: Bars) -> dict[str, NextBar]:
    """What each yardstick that was fitted for this series says of its `bars` (m,), from the bars before."""
    log_return, log_range = outcomes(one)
    found = {
        "persistence": _persistence(log_range, bars),
        "random_walk": _random_walk(log_return, bars),
    }
    rows = regressors(one, yardsticks.market)[bars - 1]
    for name, panels in yardsticks.panels.items():
        if one.asset_class in panels:
            found[name] = panels[one.asset_class].forecast(one.symbol, rows)
    if one.symbol in yardsticks.garch:
        found["garch"] = yardsticks.garch[one.symbol].forecast(log_return, bars)
    return found


def score_yardsticks(
    yardsticks: Yardsticks, series: Sequence[Series], *, first: np.datetime64, last: np.datetime64
) -> pd.DataFrame:
    """One row per yardstick and target dated `first`..`last` (both inclusive).

    Columns: model (the yardstick), symbol, asset_class, date, is_event, tier1, one per family, log_return and
    log_range (what came), and `SCORES`.
    """
    bars = target_bars(series, first=first, last=last, covers=yardsticks.covers)
    frames = []
    for number, some in bars.items():
        one = series[number]
        about = describe_bars(one, some)
        came = about["log_return"].to_numpy(), about["log_range"].to_numpy()
        frames += [
            about.assign(model=name, **score_next_bar(forecast, *came))
            for name, forecast in forecast_bars(yardsticks, one, some).items()
        ]
    return pd.concat(frames, ignore_index=True)


def describe_bars(one: Series, bars: Bars) -> pd.DataFrame:
    """Keys, labels and outcomes of the `bars` (m,): the columns of `score_yardsticks` that no model moves."""
    log_return, log_range = outcomes(one)
    families = one.families[bars]
    return pd.DataFrame(
        {
            "symbol": one.symbol,
            "asset_class": one.asset_class,
            "date": one.dates[bars],
            "is_event": one.is_event[bars],
            "tier1": families[:, one.taxonomy.tier1_channels].any(axis=1),
            **{name: families[:, number] for number, name in enumerate(one.taxonomy.families)},
            "log_return": log_return[bars],
            "log_range": log_range[bars],
        }
    )


def outcomes(one: Series) -> tuple[Floats, Floats]:
    """Log return from close to close, and log true range, of the series' bars (n,)."""
    close = np.log(one.features[:, CLOSE])
    return np.diff(close, prepend=close[0]), log_true_range(one.features)


def _persistence(log_range: Floats, bars: Bars) -> NextBar:
    """The close and the range stay as they are: points, without a density."""
    nothing, before = np.zeros(len(bars)), log_range[bars - 1]
    return NextBar(
        return_center=nothing,
        return_scale=nothing,
        return_shape=NORMAL,
        return_square=nothing,
        range_center=before,
        range_scale=0.0,
        range_quantiles=NORMAL.quantiles,
        range_square=np.exp(2 * before),
    )


def _random_walk(log_return: Floats, bars: Bars) -> NextBar:
    """A normal return with the deviation of the last 20, and the range of Brownian motion with the same."""
    deviation = np.array([log_return[bar - VOLATILITY_RETURNS : bar].std(ddof=1) for bar in bars.tolist()])
    center, scale = np.log(deviation) + NORMAL_RANGE[0], NORMAL_RANGE[1]
    return NextBar(
        return_center=np.zeros(len(bars)),
        return_scale=deviation,
        return_shape=NORMAL,
        return_square=deviation**2,
        range_center=center,
        range_scale=scale,
        range_quantiles=NORMAL.quantiles,
        range_square=np.exp(2 * center + 2 * scale**2),
    )


def _panel_rows(
    series: Sequence[Series], bars: Mapping[int, Bars], market: Market, asset_class: str
) -> PanelRows:
    """The training targets of one asset class whose regressors are all known."""
    members = [number for number in bars if series[number].asset_class == asset_class]
    parts = []
    for place, number in enumerate(members):
        one, some = series[number], bars[number]
        rows = regressors(one, market)[some - 1]
        known = np.isfinite(rows).all(axis=1)
        targets = some[known]
        log_return, log_range = outcomes(one)
        parts.append((np.full(len(targets), place), rows[known], log_range[targets], log_return[targets]))
    symbol, all_rows, ranges, returns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return PanelRows(
        symbols=[series[number].symbol for number in members],
        symbol=symbol,
        rows=all_rows,
        log_range=ranges,
        log_return=returns,
    )


def _fit_garch(series: Sequence[Series], bars: Mapping[int, Bars]) -> dict[str, garch.Garch]:
    fits = {
        series[number].symbol: garch.fit_garch(*outcomes(series[number]), training=some)
        for number, some in bars.items()
    }
    return {symbol: fit for symbol, fit in fits.items() if fit is not None}


def _not_measured(
    series: Sequence[Series],
    bars: Mapping[int, Bars],
    fitted: Mapping[str, garch.Garch],
    har: Mapping[str, Panel],
) -> dict[str, str]:
    unfit = (
        {} if har else dict.fromkeys(("har", "har_events"), "no training targets with bars of VIX and SPY")
    )
    if not garch.is_installed():
        return unfit | {"garch": "arch is not installed: pip install 'kronos-events[yardsticks]'"}
    missing = [symbol for number in bars if (symbol := series[number].symbol) not in fitted]
    if not missing:
        return unfit
    return unfit | {
        "garch": f"no fit for {', '.join(missing)}: fewer than {garch.FEWEST_RETURNS} training bars, or no "
        "convergence"
    }
