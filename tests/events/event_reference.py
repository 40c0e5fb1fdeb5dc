"""The event tensor written a second time, slowly: one value after another, straight from its definition."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from event_samples import World

from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

WEIGHTS = {"high": 1.0, "medium": 0.5, "low": 0.25}


def reference_tensor(world: World, horizon: int) -> npt.NDArray[np.float64]:
    """(T + max(H - 1, 0), 20), as `encode_rows` should give it."""
    days = [ts.date() for ts in world.bars["ts"]]
    table = sessions(world.asset_class, days[0] - timedelta(days=20), days[-1] + timedelta(days=60))
    every = [_session(table, k) for k in range(len(table.dates))]
    bars = [next(k for k, session in enumerate(every) if session["date"] == day) for day in days]
    events = [row for row in world.calendar.to_dict("records") if row["currency"] == "USD"]
    found = _surprises(events)
    rows = []
    for i, k in enumerate(bars):
        as_of, before = every[k]["as_of"], every[bars[i - 1] if i else k - 1]["as_of"]
        sitting = [z for usable, z in found if usable < as_of and not usable < before]
        surprise = max(sitting, key=lambda z: (abs(z), z), default=0.0)
        leaders = [_leader(name, world.leaders[name], as_of, before) for name in DEFAULT_TAXONOMY.leaders]
        families, nearness = _schedule(events, every, k + 1, as_of)
        rows.append([*families, surprise, nearness, *leaders])
    for step in range(1, horizon):
        families, nearness = _schedule(events, every, bars[-1] + 1 + step, every[bars[-1]]["as_of"])
        rows.append([*families, 0.0, nearness, 0.0, 0.0, 0.0, 0.0])
    return np.array(rows)


def _session(table: Any, k: int) -> dict[str, Any]:
    moment = {name: pd.Timestamp(getattr(table, name)[k], tz="UTC") for name in ("closes", "as_of")}
    return {"date": table.dates[k].item(), **moment}


def _schedule(events: list[Any], every: list[Any], target: int, as_of: pd.Timestamp) -> tuple[Any, float]:
    standing: dict[str, Any] = {}
    for row in sorted(events, key=lambda row: _seen(row)):
        if _seen(row) <= as_of:
            standing[row["event_id"]] = row
    families, next_days = np.zeros(len(DEFAULT_TAXONOMY.families)), 10
    for row in standing.values():
        for later in range(target, min(target + 11, len(every))):
            if not every[later - 1]["closes"] <= row["release_at"] < every[later]["closes"]:
                continue
            if later == target:
                family = DEFAULT_TAXONOMY.families.index(DEFAULT_TAXONOMY.event_types[row["event_type"]])
                families[family] = max(families[family], WEIGHTS[row["impact"]])
            if row["impact"] == "high":
                next_days = min(next_days, (every[later]["date"] - every[target]["date"]).days)
    return families, 1 - min(next_days, 10) / 10


def _seen(row: Any) -> pd.Timestamp:
    return pd.Timestamp("1900-01-01", tz="UTC") if pd.isna(row["first_seen_at"]) else row["first_seen_at"]


def _surprises(events: list[Any]) -> list[tuple[pd.Timestamp, float]]:
    first: dict[str, Any] = {}
    for row in events:
        usable = max(row["release_at"], _seen(row))
        versions = [other for other in events if other["event_id"] == row["event_id"]]
        replaced = any(_seen(row) < _seen(other) <= usable for other in versions)
        if replaced or np.isnan(row["actual"]) or np.isnan(row["forecast"]):
            continue
        if row["event_id"] not in first or usable < first[row["event_id"]][0]:
            first[row["event_id"]] = (usable, row["event_type"], row["actual"] - row["forecast"])
    result = []
    for usable, event_type, value in first.values():
        earlier = [v for moment, kind, v in first.values() if kind == event_type and moment < usable]
        sigma = np.std(earlier, ddof=1) if len(earlier) >= 8 else 0.0
        result.append((usable, float(np.clip(value / sigma, -5, 5)) if sigma > 0 else 0.0))
    return result


def _leader(name: str, bars: pd.DataFrame, as_of: pd.Timestamp, before: pd.Timestamp) -> float:
    ordered = bars.sort_values("ts")
    days = [ts.date() for ts in ordered["ts"]]
    table = sessions(DEFAULT_TAXONOMY.leader_asset_class[name], days[0], days[-1])
    closes = {
        day.item(): pd.Timestamp(close, tz="UTC")
        for day, close in zip(table.dates, table.closes, strict=True)
    }
    now = [c for day, c in zip(days, ordered["close"], strict=True) if closes[day] <= as_of]
    then = [c for day, c in zip(days, ordered["close"], strict=True) if closes[day] <= before]
    if len(now) == len(then) or len(then) < 61:
        return 0.0
    sigma = np.diff(np.log(then))[-60:].std(ddof=1)
    return float(np.clip(np.log(now[-1] / then[-1]) / sigma, -5, 5))
