"""GARCH(1,1) with Student's t (Bollerslev 1987), fitted per symbol by the `arch` library.

`arch` and the libraries it needs are the extra `[yardsticks]`. Parameters are fitted on the returns of the
training window and then held: the variance of a later bar is filtered from the returns before it.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from kronos_service.finetune.event_conditioned.evaluation.densities import (
    GRID,
    NextBar,
    Shape,
    Student,
    grid_quantiles,
)
from kronos_shared.normalization import Floats

FEWEST_RETURNS: Final = 250
"""A year: with fewer, persistence and tail of a GARCH are guesses."""
PERCENT: Final = 100
"""The library's optimiser wants returns of about 1."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The recursion of one symbol's variance, for log returns in percent."""

    mean: float
    omega: float
    alpha: float
    beta: float
    start: float
    """Variance before the first bar of the series: the training window's."""

    def deviations(self, log_returns: Floats) -> Floats:
        """The deviation (n,) of each log return (n,) of a series, foreseen from those before it."""
        squares = (PERCENT * log_returns - self.mean) ** 2
        variance = np.empty(len(squares))
        variance[0] = self.start
        for bar in range(1, len(squares)):
            variance[bar] = self.omega + self.alpha * squares[bar - 1] + self.beta * variance[bar - 1]
        return np.sqrt(variance) / PERCENT


@dataclass(frozen=True, kw_only=True, eq=False)
class Garch:
    """The model of one symbol."""

    parameters: Parameters
    return_shape: Shape
    range_center: float
    range_scale: float
    """Mean and deviation, over training, of the log true range less the log of the deviation foreseen."""
    range_quantiles: Floats
    """(K,) of the same differences, standardised."""
    range_moment: float
    """Mean of exp(2 x) over the same differences x less their mean."""

    def forecast(self, log_returns: Floats, bars: npt.NDArray[np.int64]) -> NextBar:
        """Forecasts of the `bars` (m,) of a series of log returns (n,)."""
        deviations = self.parameters.deviations(log_returns)[bars]
        mean = self.parameters.mean / PERCENT
        center = np.log(deviations) + self.range_center
        return NextBar(
            return_center=np.full_like(deviations, mean),
            return_scale=deviations,
            return_shape=self.return_shape,
            return_square=deviations**2 + mean**2,
            range_center=center,
            range_scale=self.range_scale,
            range_quantiles=self.range_quantiles,
            range_square=np.exp(2 * center) * self.range_moment,
        )


def is_installed() -> bool:
    """Whether the extra `[yardsticks]` is."""
    return find_spec("arch") is not None


def fit_garch(log_returns: Floats, log_ranges: Floats, training: npt.NDArray[np.int64]) -> Garch | None:
    """Fit the model to the bars `training` of one series of log returns and log true ranges (n,).

    None where there are too few, or the fit does not converge.
    """
    if len(training) < FEWEST_RETURNS:
        return None
    from arch.univariate import StudentsT, arch_model  # an extra

    returns = PERCENT * log_returns[training]
    model = arch_model(returns, mean="Constant", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    fitted = model.fit(disp="off", show_warning=False)
    if fitted.convergence_flag:
        return None
    mean, omega, alpha, beta, degrees = (float(value) for value in fitted.params)
    parameters = Parameters(mean=mean, omega=omega, alpha=alpha, beta=beta, start=float(returns.var()))
    apart = log_ranges[training] - np.log(parameters.deviations(log_returns)[training])
    center, scale = float(apart.mean()), float(apart.std())
    return Garch(
        parameters=parameters,
        return_shape=Shape(
            quantiles=StudentsT().ppf(GRID, np.array([degrees])),
            density=Student(location=0.0, scale=sqrt((degrees - 2) / degrees), degrees=degrees),
        ),
        range_center=center,
        range_scale=scale,
        range_quantiles=grid_quantiles((apart - center) / scale),
        range_moment=float(np.exp(2 * (apart - center)).mean()),
    )
