"""How good a forecast of one number is: scores of sample paths, and of normal distributions in closed form.

Every forecast ends as the same columns, so that models and baselines are scored by one rule.
Letters: n forecasts, m sample paths, H horizon in bars.
"""

from collections.abc import Mapping
from math import pi
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch

from kronos_shared.quantiles import INTERVALS, LEVELS, quantile_name

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]


def score_samples(samples: Floats, outcome: Floats, rng: np.random.Generator) -> Columns:
    """Columns of forecasts (n, m, H) against what came (n, H): crps, pit, spread and the quantiles.

    Quantile p is the order statistic at p (m + 1) (Hyndman and Fan 1996, type 6): of a calibrated forecast
    a share of exactly p lies below it, however few the paths. `pit` is (rank + u) / (m + 1), u uniform: of a
    calibrated forecast it is uniform too (Czado, Gneiting and Held 2009).
    """
    ordered = np.sort(samples, axis=1)
    m = samples.shape[1]
    below = (ordered < outcome[:, None]).sum(axis=1)
    ties = (ordered == outcome[:, None]).sum(axis=1)
    quantiles = np.quantile(ordered, LEVELS, axis=1, method="weibull")
    return {
        "crps": crps_samples(ordered, outcome),
        "pit": (below + rng.random(outcome.shape) * (ties + 1)) / (m + 1),
        "spread": samples.std(axis=1, ddof=1),
    } | _named(quantiles)


def crps_samples(samples: Floats, outcome: Floats) -> Floats:
    """Fair CRPS (n, H) of samples (n, m, H): mean |x - y| - sum_ij |x_i - x_j| / (2 m (m - 1)).

    Its expectation is the CRPS of the distribution that the samples are drawn from, whatever their number
    (Ferro 2014, Fair scores for ensemble forecasts, equation 7; the double sum by order statistics as in
    Zamo and Naveau 2018).
    """
    m = samples.shape[1]
    rank = np.arange(1, m + 1)[:, None]
    ordered = np.sort(samples, axis=1)
    apart = ((2 * rank - m - 1) * ordered).sum(axis=1) / (m * (m - 1))
    closeness: Floats = np.abs(ordered - outcome[:, None]).mean(axis=1) - apart
    return closeness


def score_normal(sigma: Floats, outcome: Floats, mean: float = 0.0) -> Columns:
    """The same columns of normal forecasts with deviations (n, H); a deviation of 0 is a point forecast.

    CRPS = sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mean) / sigma (Gneiting and Raftery
    2007, equation 21); of a point forecast the absolute error, and its pit says nothing (NaN).
    """
    point = sigma == 0
    z = (outcome - mean) / np.where(point, 1.0, sigma)
    below = torch.special.ndtr(torch.from_numpy(z)).numpy()
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * pi)
    crps = sigma * (z * (2 * below - 1) + 2 * density - 1 / np.sqrt(pi))
    quantiles = np.stack([mean + sigma * NormalDist().inv_cdf(level) for level in LEVELS])
    return {
        "crps": np.where(point, np.abs(outcome - mean), crps),
        "pit": np.where(point, np.nan, below),
        "spread": sigma,
    } | _named(quantiles)


def crps_quantiles(quantiles: Floats, outcome: Floats, levels: Floats) -> Floats:
    """CRPS (n,) of forecasts given as quantiles (n, K) at the levels 1 / (K + 1) .. K / (K + 1).

    Twice the pinball loss, integrated over all levels by the trapezoid rule (Gneiting and Ranjan 2011,
    equation 11). These are no random draws, so nothing corrects for their number.
    """
    error = outcome[:, None] - quantiles
    loss: Floats = 2 * np.maximum(levels * error, (levels - 1) * error).sum(axis=1) / (len(levels) + 1)
    return loss


def qlike(forecast: Floats, realized: Floats) -> Floats:
    """QLIKE loss x - log x - 1, x = realized / forecast variance (Patton 2011): 0 for a perfect forecast, and
    robust to a noisy proxy of the variance. NaN where the forecast is 0 or the proxy is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = realized / forecast
        loss: Floats = ratio - np.log(ratio) - 1
    return np.where((forecast > 0) & (realized > 0), loss, np.nan)


def judge_quantiles(columns: Mapping[str, Floats], outcome: Floats) -> Columns:
    """Pinball losses `pinball_05` .., `inside_50` .. and `hit` of a forecast's quantile columns.

    Pinball (Koenker and Bassett 1978): p (y - q) where y >= q, else (1 - p) (q - y). `inside` is 1 where the
    outcome lies in the central interval; NaN where it is a point. `hit` is 1 where the median has the
    outcome's sign; NaN where either is 0, which says nothing about direction.
    """
    judged: Columns = {}
    for level in LEVELS:
        error = outcome - columns[quantile_name(level)]
        judged[f"pinball_{round(100 * level):02d}"] = np.maximum(level * error, (level - 1) * error)
    for name, (low, high) in INTERVALS.items():
        lower, upper = columns[quantile_name(low)], columns[quantile_name(high)]
        inside = ((lower <= outcome) & (outcome <= upper)).astype(np.float64)
        judged[f"inside_{name}"] = np.where(lower == upper, np.nan, inside)
    median = columns[quantile_name(0.5)]
    hit = (np.sign(median) == np.sign(outcome)).astype(np.float64)
    judged["hit"] = np.where((median == 0) | (outcome == 0), np.nan, hit)
    return judged


def _named(quantiles: Floats) -> Columns:
    return {quantile_name(level): row for level, row in zip(LEVELS, quantiles, strict=True)}
