"""Forecasts of the next bar in closed form: a centre, a scale and a shape, and how they are scored.

A shape is what standardised residuals of training look like: their quantiles, and a density fitted to them,
because a log score needs one beyond the last residual too.
Letters: n forecasts, K quantiles.
"""

from dataclasses import dataclass
from math import lgamma, log, pi
from statistics import NormalDist
from typing import Final, Protocol

import numpy as np

from kronos_service.finetune.event_conditioned.evaluation.metrics import (
    Columns,
    crps_quantiles,
    qlike,
)
from kronos_shared.normalization import Floats

GRID: Final = np.arange(1, 200) / 200
"""The levels of the 199 quantiles that stand for a distribution: 0.005, 0.01 .. 0.995."""
DEGREES: Final = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0, 100.0)
"""Degrees of freedom that are tried; at 2 and below there is no variance."""
STEPS: Final = 60
"""Enough for location and scale to settle in the fourth digit."""


class Density(Protocol):
    """A density of standardised residuals."""

    def log_density(self, values: Floats) -> Floats:
        """Its natural logarithm, elementwise."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """The standard normal density."""

    def log_density(self, values: Floats) -> Floats:
        """Its natural logarithm, elementwise."""
        density: Floats = -(values**2) / 2 - log(2 * pi) / 2
        return density


@dataclass(frozen=True, kw_only=True)
class Student:
    """Student's t with a location and a scale."""

    location: float
    scale: float
    degrees: float

    def log_density(self, values: Floats) -> Floats:
        """Its natural logarithm, elementwise."""
        v = self.degrees
        constant = lgamma((v + 1) / 2) - lgamma(v / 2) - log(v * pi) / 2 - log(self.scale)
        z = (values - self.location) / self.scale
        density: Floats = constant - (v + 1) / 2 * np.log1p(z**2 / v)
        return density


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """What standardised residuals look like."""

    quantiles: Floats
    """(K,) at the levels of `GRID`."""
    density: Density


NORMAL: Final = Shape(
    quantiles=np.array([NormalDist().inv_cdf(level) for level in GRID.tolist()]), density=Normal()
)


@dataclass(frozen=True, kw_only=True, eq=False)
class NextBar:
    """n forecasts of the next bar's log return from close to close, and of its log true range."""

    return_center: Floats
    return_scale: Floats
    """(n,) what the shape of returns is multiplied by; 0 for a point forecast."""
    return_shape: Shape
    return_square: Floats
    """(n,) expected square of the return."""
    range_center: Floats
    range_scale: float
    """Deviation of the log true range; 0 for a point forecast."""
    range_quantiles: Floats
    """(K,) of the standardised residuals of the log true range."""
    range_square: Floats
    """(n,) expected square of the true range itself."""


def score_next_bar(forecast: NextBar, log_return: Floats, log_range: Floats) -> Columns:
    """Scores (n,) of the next bar: `return_` and `range_` with `crps`, `log_score` and `qlike`.

    The log score is the log density of what came (higher is better), the range's a normal one; a point
    forecast has none (NaN). CRPS is that of the shape's quantiles. QLIKE takes the squared return, and the
    squared range, as proxies of the bar's variance.
    """
    scale, width = forecast.return_scale, forecast.range_scale
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (log_return - forecast.return_center) / scale
        density = np.where(scale > 0, forecast.return_shape.density.log_density(z) - np.log(scale), np.nan)
    u = (log_range - forecast.range_center) / width if width else np.full_like(log_range, np.nan)
    return {
        "return_crps": _crps(forecast.return_center, scale, forecast.return_shape.quantiles, log_return),
        "return_log_score": density,
        "return_qlike": qlike(forecast.return_square, log_return**2),
        "range_crps": _crps(
            forecast.range_center, np.full_like(log_range, width), forecast.range_quantiles, log_range
        ),
        "range_log_score": Normal().log_density(u) - (log(width) if width else 0.0),
        "range_qlike": qlike(forecast.range_square, np.exp(2 * log_range)),
    }


def _crps(center: Floats, scale: Floats, quantiles: Floats, outcome: Floats) -> Floats:
    """Of a point forecast, the absolute error."""
    placed = center[:, None] + scale[:, None] * quantiles
    return np.where(scale > 0, crps_quantiles(placed, outcome, GRID), np.abs(outcome - center))


def fit_shape(residuals: Floats) -> Shape:
    """The quantiles of the residuals and the likeliest Student's t."""
    return Shape(quantiles=grid_quantiles(residuals), density=fit_student(residuals))


def grid_quantiles(residuals: Floats) -> Floats:
    """Their quantiles (K,) at the levels of `GRID` (Hyndman and Fan 1996, type 6)."""
    quantiles: Floats = np.quantile(residuals, GRID, method="weibull")
    return quantiles


def fit_student(values: Floats) -> Student:
    """The likeliest location, scale and degrees of freedom, the last one from `DEGREES`."""
    fits = [_fit_location_and_scale(values, degrees) for degrees in DEGREES]
    return max(fits, key=lambda fit: float(fit.log_density(values).sum()))


def _fit_location_and_scale(values: Floats, degrees: float) -> Student:
    """By expectation maximisation (Lange, Little and Taylor 1989): far values weigh less."""
    location, variance = float(np.median(values)), float(values.var())
    for _ in range(STEPS):
        weight = (degrees + 1) / (degrees + (values - location) ** 2 / variance)
        location = float((weight * values).sum() / weight.sum())
        variance = float((weight * (values - location) ** 2).mean())
    return Student(location=location, scale=variance**0.5, degrees=degrees)
