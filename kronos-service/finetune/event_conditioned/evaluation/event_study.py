"""How wide forecasts are around an event: mean dispersion of a bar by its distance from the event's bar."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from kronos_service.finetune.event_conditioned.samples.series import Series

OFFSETS: Final = range(-3, 4)
"""Bars from the event's bar: -1 is the bar before it."""


def event_study(records: pd.DataFrame, series: Sequence[Series]) -> dict[str, Any]:
    """Per family and offset: each model's mean `bar_spread`, what came, and the number of forecast bars.

    Spreads are deviations of a bar's own log return, in units of the symbol's 20-day volatility at the
    origin (so a random walk has 1 throughout); `realised` is the root mean square of what came, in the same
    unit. Every step of the forecasts counts: the schedule ahead is known to each.
    """
    frames = {str(name): frame.reset_index(drop=True) for name, frame in records.groupby("model")}
    about = next(iter(frames.values()))
    study = {}
    for number, family in enumerate(series[0].taxonomy.families):
        distances = _has_event(about, series, number)
        if distances[0].any():
            study[family] = {
                str(offset): _figures(frames, members)
                for offset, members in distances.items()
                if members.any()
            }
    return study


def _has_event(
    about: pd.DataFrame, series: Sequence[Series], family: int
) -> Mapping[int, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Per offset, which rows lie that many bars after a bar with the family's event."""
    number, bar = about["series"].to_numpy(), about["bar"].to_numpy()
    found = {offset: np.zeros(len(about), dtype=np.bool_) for offset in OFFSETS}
    for one in np.unique(number):
        (rows,) = np.nonzero(number == one)
        marks = series[one].families[:, family]
        for offset, members in found.items():
            at = bar[rows] - offset
            inside = (at >= 0) & (at < len(marks))
            members[rows[inside]] = marks[at[inside]]
    return found


def _figures(
    frames: Mapping[str, pd.DataFrame], members: np.ndarray[Any, np.dtype[np.bool_]]
) -> dict[str, Any]:
    moves = next(iter(frames.values())).loc[members, "bar_move"]
    spreads = {
        name: float(frame.loc[members, "bar_spread"].mean())
        for name, frame in frames.items()
        if name != "persistence"
    }
    return {
        "targets": int(members.sum()),
        "realised": float(np.sqrt((moves**2).mean())),
        "models": spreads,
    }
