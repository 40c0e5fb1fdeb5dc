"""Width factors from validation forecasts: how much wider they should have been to hold what came.

Split conformal prediction (Vovk, Gammerman and Shafer 2005) in the multiplicative form of Romano, Patterson
and Candes 2019, Conformalized quantile regression: the score of a forecast is the factor by which its central
80 % interval would have had to be stretched around its median to reach the outcome, and the factor of n
forecasts is their score of rank ceil(0.8 (n + 1)). Were the forecasts to come exchangeable with these, the
stretched intervals would hold 80 % of them. Days are not: neighbouring ones and the symbols of one day go
together, so a factor counts by its dates, and one of few dates is drawn towards that of all days.
Letters: n forecasts, N sample paths, H horizon in bars.
"""

import math
from typing import Final

import numpy as np

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.origins import draw_origins, possible_origins
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import (
    PathSettings,
    prepare_origins,
    sample_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import find_targets
from kronos_service.finetune.event_conditioned.samples.series import Dates, calendar_covers
from kronos_service.finetune.event_conditioned.samples.splits import SplitError
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_service.model.generation.recalibration import Kinds, day_kinds
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import (
    DAY_KINDS,
    LARGEST_FACTOR,
    SMALLEST_FACTOR,
    DayKind,
    RecalibrationRecord,
)
from kronos_shared.errors import KronosError
from kronos_shared.normalization import Floats
from kronos_shared.progress import follow, say

ORIGINS: Final = 500
"""Validation bars to forecast from, at most."""
PATHS: Final = 64
LEVEL: Final = 0.8
"""The interval that is made to hold its share: wide enough for its factor to be about the tails, and narrow
enough for a hundred forecasts to tell."""
HALF_DATES: Final = 60
"""A factor of as many dates counts as much as that of the larger group it is drawn towards."""


class RecalibrationError(KronosError):
    """Forecasts whose widths no factor can mend."""


def recalibrate(config: EventLoraConfig, setup: TrainingSetup, adapted: Kronos) -> RecalibrationRecord | None:
    """The factors of a trained model from forecasts of the validation split, and of nothing after it.

    None where they cannot be found, with the reason on the terminal: a training is not lost for want of them.
    """
    try:
        return _recalibrate(config, setup, adapted)
    except (SplitError, RecalibrationError) as error:
        say(str(error), style="yellow", label="not recalibrated")
        return None


def _recalibrate(config: EventLoraConfig, setup: TrainingSetup, adapted: Kronos) -> RecalibrationRecord:
    snapshot, series, split = setup.snapshot, setup.splits.series, setup.splits.splits["val"]
    settings = PathSettings(
        horizon=config.forecast_horizon,
        paths=PATHS,
        context=setup.context,
        sampling=Sampling(),
        seed=config.seed,
    )
    possible = possible_origins(
        series,
        first=split.first,
        last=split.last,
        calendar_covers=calendar_covers(snapshot),
        horizon=settings.horizon,
    )
    drawn = draw_origins(series, possible, ORIGINS, settings.seed)
    prepared = prepare_origins(snapshot, series, drawn, settings, setup.bundle.event_encoder)
    with follow("recalibrating", unit="origins", total=len(drawn)) as progress:
        sampled = sample_bars(
            setup.bundle.tokenizer, adapted, prepared, settings, events="known", advance=progress.advance
        )
    last = np.array([one.last_close for one in prepared])
    channels = [one.history.events for one in prepared]
    return find_factors(
        np.log(sampled.closes / last[:, None, None]),
        find_targets(series, drawn, settings.horizon).outcome,
        np.stack(
            [
                day_kinds(rows[-settings.horizon :].numpy(), snapshot.taxonomy)
                for rows in channels
                if rows is not None
            ]
        ),
        np.stack([one.future_dates for one in prepared]),
    )


def find_factors(samples: Floats, outcome: Floats, kinds: Kinds, dates: Dates) -> RecalibrationRecord:
    """The factors that forecasts (n, N, H) of the log return would have needed for the outcomes (n, H).

    Args:
        kinds, dates: (n, H) kind of day and date of each forecast bar.

    Raises:
        RecalibrationError: a factor lies outside what a manifest may hold.
    """
    scores = conformity(samples, outcome)
    overall = _checked(_quantile(scores))
    factors: dict[DayKind, list[float]] = {kind: [] for kind in DAY_KINDS}
    counts: dict[DayKind, list[tuple[int, int]]] = {kind: [] for kind in DAY_KINDS}
    for step_scores, step_kinds, step_dates in zip(scores.T, kinds.T, dates.T, strict=True):
        of_step = _drawn_towards(overall, step_scores, step_dates)
        for number, kind in enumerate(DAY_KINDS):
            cell, days = step_scores[step_kinds == number], step_dates[step_kinds == number]
            factors[kind].append(_checked(_drawn_towards(of_step, cell, days)))
            counts[kind].append((len(cell), len(np.unique(days))))
    return RecalibrationRecord(
        level=LEVEL,
        factors={kind: tuple(row) for kind, row in factors.items()},
        forecasts={kind: tuple(count for count, _ in row) for kind, row in counts.items()},
        dates={kind: tuple(count for _, count in row) for kind, row in counts.items()},
        first=str(dates.min()),
        last=str(dates.max()),
        paths=samples.shape[1],
    )


def conformity(samples: Floats, outcome: Floats) -> Floats:
    """(n, H): by which factor each forecast's interval would have to be stretched to reach its outcome."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(samples, (tail, 1 - tail), axis=1, method="weibull")
    middle = np.median(samples, axis=1)
    away = outcome - middle
    width = np.where(away < 0, middle - low, high - middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: Floats = np.where(away == 0, 0.0, np.abs(away) / width)
    return scores


def _quantile(scores: Floats) -> float:
    """The factor of some forecasts; infinite where they are too few to tell."""
    rank = math.ceil(LEVEL * (scores.size + 1))
    return float(np.sort(scores, axis=None)[rank - 1]) if rank <= scores.size else math.inf


def _drawn_towards(whole: float, scores: Floats, dates: Dates) -> float:
    """The factor of some forecasts, drawn towards that of more of them the fewer dates there are."""
    own, found = _quantile(scores), len(np.unique(dates))
    share = found / (found + HALF_DATES)
    return whole if math.isinf(own) else share * own + (1 - share) * whole


def _checked(factor: float) -> float:
    if not SMALLEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise RecalibrationError(
            f"expected widths that are off by a factor from {SMALLEST_FACTOR:g} to {LARGEST_FACTOR:g}, got "
            f"{factor:.3g}: look at the forecasts with evaluate, or train without recalibration"
        )
    return factor
