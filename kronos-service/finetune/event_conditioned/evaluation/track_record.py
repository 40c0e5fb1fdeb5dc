"""Forecasts that were made, against what came: rows as `score_forecasts` gives them, of files on disk.

Files are read some rows at a time and only scores are kept, so memory does not grow with the sample paths.
Letters: n forecasts, N sample paths.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kronos_service.data.forecasts import ForecastFileError, read_batches
from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import prepare
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import session_dates
from kronos_service.finetune.event_conditioned.evaluation.metrics import (
    Columns,
    judge_quantiles,
    score_normal,
    score_samples,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import VOLATILITY_RETURNS
from kronos_shared.normalization import Floats

BASE: Final = "base"
"""Name of the base alone, whose rows have no version."""
KEY: Final = ["version", "symbol", "origin", "step"]
_READ: Final = [
    *("symbol", "asset_class", "last_bar", "last_close", "date", "step", "target_name", "samples"),
    *("version", "digest", "base_digest"),
]


@dataclass(frozen=True, kw_only=True)
class TrackRecord:
    """Every forecast of a close whose bar has come."""

    scores: pd.DataFrame
    """One row per version, symbol, origin and step: is_event, outcome, crps, pit, quantiles, inside_50 ..;
    and of a random walk from the same origin rw_crps and rw_width. `width` is q95 - q05. Log returns."""
    pending: int
    """Forecasts whose bar the snapshot does not have yet."""
    unknown: int
    """Forecasts of symbols, or from bars, that the snapshot does not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Truth:
    """One symbol's bars."""

    dates: npt.NDArray[np.datetime64]
    log_close: Floats
    is_event: npt.NDArray[np.bool_]


def find_files(directories: Sequence[Path]) -> list[Path]:
    """The forecast files below these directories, by name; unfinished ones, whose path has a dot, are not.

    Raises:
        ForecastFileError: there is none.
    """
    found = [
        path
        for directory in directories
        for path in sorted(directory.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]
    if not found:
        named = ", ".join(map(str, directories))
        raise ForecastFileError(f"no forecasts in {named}: make some with forecast-all")
    return found


def read_track_record(files: Sequence[Path], snapshot: Snapshot) -> TrackRecord:
    """Score every forecast of the files once: the first one, where several share version, origin and step.

    Raises:
        ForecastFileError: a file is damaged, or no forecast file.
    """
    rows = prepare(snapshot.calendar, snapshots.leader_data(snapshot), snapshot.taxonomy).rows
    classes = snapshot.symbols.set_index("symbol")["asset_class"]
    bars = dict(iter(snapshot.bars.groupby("symbol")))

    @cache
    def truth(symbol: str) -> _Truth | None:
        if symbol not in bars:
            return None
        dates = session_dates(bars[symbol]["ts"])
        labels = label_targets(rows, str(classes[symbol]), dates, symbol=symbol)
        log_close = np.log(bars[symbol]["close"].to_numpy(dtype=np.float64))
        return _Truth(dates=dates, log_close=log_close, is_event=labels.is_event)

    scored, pending, unknown = [], 0, 0
    for table in _closes(files):
        frame = _outcomes(table.drop_columns(["samples", "target_name"]).to_pandas(), truth)
        come = frame["outcome"].notna().to_numpy()
        pending += int(frame["is_pending"].sum())
        unknown += int((~come & ~frame["is_pending"]).sum())
        if come.any():
            scored.append(_score(frame[come], table.filter(pa.array(come))["samples"]))
    scores = pd.concat(scored, ignore_index=True) if scored else pd.DataFrame(columns=KEY)
    return TrackRecord(
        scores=scores.drop_duplicates(KEY, ignore_index=True), pending=pending, unknown=unknown
    )


def _closes(files: Sequence[Path]) -> Iterator[pa.Table]:
    """The closes' rows of the files; in each table all have the same number of sample paths."""
    for path in files:
        for batch in read_batches(path, _READ):
            table = pa.Table.from_batches([batch])
            table = table.filter(pc.is_valid(table["samples"]))
            lengths = pc.list_value_length(table["samples"])
            for length in pc.unique(lengths).to_pylist():
                yield table.filter(pc.equal(lengths, length))


def _outcomes(frame: pd.DataFrame, truth: Callable[[str], _Truth | None]) -> pd.DataFrame:
    """The forecasts with outcome (NaN where there is none), is_event and volatility (NaN: too few bars)."""
    origins, days = (frame[name].to_numpy().astype("datetime64[D]") for name in ("last_bar", "date"))
    outcome, volatility = np.full(len(frame), np.nan), np.full(len(frame), np.nan)
    is_event, is_pending = np.zeros(len(frame), dtype=np.bool_), np.zeros(len(frame), dtype=np.bool_)
    for symbol, rows in frame.groupby("symbol", sort=False).indices.items():
        known = truth(str(symbol))
        if known is None:
            continue
        origin, day = origins[rows], days[rows]
        start, stop = (np.searchsorted(known.dates, one) for one in (origin, day))
        has_origin = _at(known.dates, start) == origin
        come = has_origin & (_at(known.dates, stop) == day)
        is_pending[rows] = has_origin & (day > known.dates[-1])
        outcome[rows[come]] = known.log_close[stop[come]] - known.log_close[start[come]]
        is_event[rows[come]] = known.is_event[stop[come]]
        volatility[rows] = [_volatility(known.log_close, bar) for bar in start]
    return frame.assign(
        origin=origins,
        date=days,
        outcome=outcome,
        volatility=volatility,
        is_event=is_event,
        is_pending=is_pending,
    )


def _at(dates: npt.NDArray[np.datetime64], index: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    """The dates at these places; any one date where a place lies past the end."""
    return dates[np.minimum(index, len(dates) - 1)]


def _volatility(log_close: Floats, origin: int) -> float:
    first = origin - VOLATILITY_RETURNS
    return float(np.diff(log_close[first : origin + 1]).std(ddof=1)) if first >= 0 else np.nan


def _score(frame: pd.DataFrame, samples: pa.ChunkedArray) -> pd.DataFrame:
    """Columns of `TrackRecord.scores`."""
    closes = pc.list_flatten(samples).to_numpy().reshape(len(frame), -1)
    # of the close that the forecast began from, so that a later split of the shares changes nothing
    log_paths = np.log(closes / frame["last_close"].to_numpy()[:, None])[..., None]
    outcome = frame["outcome"].to_numpy()[:, None]
    mine = score_samples(log_paths, outcome, np.random.default_rng(0))
    mine |= judge_quantiles(mine, outcome)
    sigma = (frame["volatility"] * np.sqrt(frame["step"])).to_numpy()[:, None]
    walk = score_normal(sigma, outcome)
    columns: Columns = {name: values[:, 0] for name, values in mine.items()}
    kept = ["symbol", "asset_class", "origin", "date", "step", "is_event", "outcome", "digest", "base_digest"]
    return frame[kept].assign(
        version=frame["version"].fillna(BASE),
        **columns,
        width=columns["q95"] - columns["q05"],
        rw_crps=walk["crps"][:, 0],
        rw_width=(walk["q95"] - walk["q05"])[:, 0],
    )
