"""A predictor for the benchmark library fev (https://github.com/autogluon/fev), extra `[fev]`."""

from typing import Any, Final

import fev
import numpy as np
import pandas as pd

from kronos_service.forecaster import KronosEvents
from kronos_service.inference.forecast.rows import TARGETS
from kronos_shared.errors import KronosError

MODEL_NAME: Final = "kronos-events"


class FevError(KronosError):
    """A task that this model cannot answer."""


class KronosEventsModel(fev.ForecastingModel):  # type: ignore[misc]
    """Answers tasks on daily bars: every series must have the columns open, high, low, close and volume.

    Those that are not targets belong in the task's `past_dynamic_columns`. fev wants a regular frequency:
    give dates without a session rows of nulls. The calendar is a table beside the task, because a covariate
    per bar could not say when a release was first scheduled.

    Args:
        model: a loaded front door.
        events, leaders, paths, seed: as in `KronosEvents.predict_df`.
        base_only: forecast without the adapter; then no events are needed.
    """

    model_name = MODEL_NAME

    def __init__(
        self,
        model: KronosEvents,
        *,
        events: pd.DataFrame | None = None,
        leaders: pd.DataFrame | None = None,
        paths: int = 100,
        seed: int = 0,
        base_only: bool = False,
    ) -> None:
        super().__init__()
        self._model = model
        self._asked: dict[str, Any] = {
            "events": events,
            "leaders": leaders,
            "paths": paths,
            "seed": seed,
            "base_only": base_only,
        }

    def _fit_predict(self, task: fev.Task) -> list[dict[str, list[dict[str, Any]]]]:
        """Per window, per target, one dict of predictions and quantiles for each series, in its order.

        Raises:
            FevError: a target that is none of a bar's columns.
            KronosError: as `predict_df`.
        """
        unknown = [name for name in task.target_columns if name not in TARGETS]
        if unknown:
            raise FevError(f"expected targets of {', '.join(TARGETS)}, got {', '.join(unknown)}")
        return [self._predict(task, window) for window in task.iter_windows()]

    def _predict(self, task: fev.Task, window: Any) -> dict[str, list[dict[str, Any]]]:
        names = {task.id_column: "symbol", task.timestamp_column: "ts"}
        past, future = (part.to_pandas().rename(columns=names) for part in window.get_input_data())
        given = [name for name in past.columns if name in ("ts", *TARGETS)]
        rows = past[["symbol", *given]].explode(given, ignore_index=True).infer_objects()
        with self._record_inference_time():
            out = self._model.predict_df(
                rows.dropna(subset=[name for name in given if name != "ts"], how="all"),
                horizon=task.horizon,
                quantile_levels=task.quantile_levels,
                **self._asked,
            )
        by_series = dict(iter(out.groupby(["symbol", "target_name"])))
        columns = ["predictions", *map(str, task.quantile_levels)]
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in task.target_columns}
        for series, dates in zip(future["symbol"], future["ts"], strict=True):
            for name, answer in answers.items():
                forecast = by_series[series, name].set_index("ts")
                answer.append({column: _on_dates(forecast[column], dates) for column in columns})
        return answers


def _on_dates(forecast: pd.Series, dates: Any) -> list[float]:
    """A forecast by session on the task's dates; on one without a session, the one before it (or after it, at
    the start): fev wants a figure there, and scores none where there is no actual.
    """
    on = pd.DatetimeIndex(np.asarray(dates)).as_unit("ns")
    filled: list[float] = forecast.reindex(forecast.index.union(on)).ffill().bfill()[on].tolist()
    return filled
