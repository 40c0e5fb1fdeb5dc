"""Forecasts of one split by base, adapter and baselines, scored: what evaluate and event-lora report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.event_day import event_day
from kronos_service.finetune.event_conditioned.evaluation.event_study import event_study
from kronos_service.finetune.event_conditioned.evaluation.next_bar import (
    score_next_bars,
    summarize_next_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.origins import draw_origins, possible_origins
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import (
    PathSettings,
    prepare_origins,
    sample_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import (
    find_targets,
    score_forecasts,
)
from kronos_service.finetune.event_conditioned.evaluation.summary import summarize_forecasts
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import fit_yardsticks
from kronos_service.finetune.event_conditioned.samples.series import calendar_covers
from kronos_service.finetune.event_conditioned.samples.splits import Span, Splits
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.inputs import Shown
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import RecalibrationRecord

SHOWN: tuple[tuple[str, Shown], ...] = (("base", "none"), ("zeroed", "zeroed"), ("adapter", "known"))


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """The scores of one set of forecasts."""

    records: pd.DataFrame
    """One row per model, origin and forecast bar, as `score_forecasts` gives them."""
    next_bar: pd.DataFrame
    """One row per model or yardstick and origin, as `score_next_bars` gives them."""
    figures: dict[str, Any]
    """Their summary, ready for JSON: `summarize_forecasts`, `event_study`, `event_day`,
    `summarize_next_bars`, and how they were made.
    """


def forecast_split(
    snapshot: Snapshot,
    splits: Splits,
    name: str,
    training: Span,
    bundle: Bundle,
    adapted: Kronos,
    *,
    origins: int,
    settings: PathSettings,
    recalibration: RecalibrationRecord | None = None,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> Forecasts:
    """Forecast from at most `origins` drawn bars of a split with the base, and with the adapted model shown
    the events and shown none; score them with the baselines, and the next bar with the yardsticks, which are
    fitted on the target dates `training`. With a `recalibration`, the adapted model is scored with those
    width factors too. `advance` is told of origins done, each three or four times, of how many.

    Raises:
        SplitError: the split has no bar to forecast from.
    """
    split = splits.splits[name]
    possible = possible_origins(
        splits.series,
        first=split.first,
        last=split.last,
        calendar_covers=calendar_covers(snapshot),
        horizon=settings.horizon,
    )
    drawn = draw_origins(splits.series, possible, origins, settings.seed)
    prepared = prepare_origins(
        snapshot, splits.series, drawn, settings, bundle.event_encoder, recalibration=recalibration
    )
    raw = [replace(one, factors=None) for one in prepared]
    models = [(name, shown, raw) for name, shown in SHOWN]
    if recalibration is not None:
        models.append(("recalibrated", "known", prepared))
    done = 0

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        advance(done, len(models) * len(drawn))

    sampled = {
        model: sample_bars(
            bundle.tokenizer,
            bundle.model if events == "none" else adapted,
            histories,
            settings,
            events=events,
            advance=count,
        )
        for model, events, histories in models
    }
    targets = find_targets(splits.series, drawn, settings.horizon)
    closes = {model: bars.closes for model, bars in sampled.items()}
    records = score_forecasts(splits.series, targets, closes, settings.seed)
    yardsticks = fit_yardsticks(snapshot, splits.series, first=training[0], last=training[1])
    next_bar = score_next_bars(yardsticks, splits.series, drawn, sampled)
    figures = {
        "split": name,
        "first": str(split.first),
        "last": str(split.last),
        "origins": len(drawn),
        "possible_origins": len(possible),
        "settings": asdict(settings),
        **summarize_forecasts(records, snapshot.taxonomy, seed=settings.seed),
        "event_study": event_study(records, splits.series),
        "event_day": event_day(records, splits.series),
        "next_bar": {
            **summarize_next_bars(next_bar, seed=settings.seed),
            "fitted_on": [str(day) for day in training],
            "not_measured": dict(yardsticks.not_measured),
        },
    }
    return Forecasts(records=records, next_bar=next_bar, figures=figures)
