"""Forecast files against what came: the scores are evaluation's own, each forecast counts once."""

from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kronos_service.data.forecasts import SCHEMA, ForecastFileError, with_about
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import mean_over_dates
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import (
    PathSettings,
    prepare_origins,
    sample_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import (
    find_targets,
    score_forecasts,
)
from kronos_service.finetune.event_conditioned.evaluation.track_record import (
    BASE,
    find_files,
    read_track_record,
)
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series
from kronos_service.inference.nightly.command import forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.sampling import Sampling

Floats = npt.NDArray[np.float64]
H, PATHS = 3, 20
VERSION = "000001-0123456789ab"


@pytest.fixture(scope="module")
def series(market: Snapshot) -> list[Series]:
    return build_series(market)


def write(path: Path, rows: pd.DataFrame) -> Path:
    """The rows as a forecast file; columns that do not matter here are filled in."""
    other = {name: None for name in SCHEMA.names if name not in rows.columns}
    table = pa.Table.from_pandas(rows.assign(**other), schema=SCHEMA, preserve_index=False)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table.cast(with_about(SCHEMA, {})), path)
    return path


def rows_of(series: list[Series], origins: list[Origin], closes: Floats, version: str | None) -> pd.DataFrame:
    """Forecast rows of closes (n, N, H) from these origins."""
    return pd.DataFrame(
        {
            "symbol": series[origin.series].symbol,
            "asset_class": series[origin.series].asset_class,
            "last_bar": series[origin.series].dates[origin.bar].item(),
            "last_close": series[origin.series].features[origin.bar, 3],
            "date": series[origin.series].dates[origin.bar + step].item(),
            "step": step,
            "target_name": "close",
            "samples": paths[:, step - 1],
            "version": version,
        }
        for origin, paths in zip(origins, closes, strict=True)
        for step in range(1, H + 1)
    )


@pytest.fixture(scope="module")
def forecasts(series: list[Series]) -> tuple[list[Origin], Floats]:
    """Paths around the close of 40 origins."""
    origins = [Origin(series=number % 4, bar=300 + 3 * number) for number in range(40)]
    rng = np.random.default_rng(0)
    last = np.array([series[one.series].features[one.bar, 3] for one in origins])
    return origins, last[:, None, None] * np.exp(rng.normal(0, 0.02, (40, PATHS, H)).cumsum(axis=2))


def test_the_scores_are_those_of_evaluation(
    market: Snapshot, series: list[Series], forecasts: tuple[list[Origin], Floats], tmp_path: Path
) -> None:
    origins, closes = forecasts
    path = write(tmp_path / "one.parquet", rows_of(series, origins, closes, VERSION))
    mine = read_track_record([path], market).scores
    expected = score_forecasts(series, find_targets(series, origins, H), {"adapter": closes}, seed=0)
    theirs = {name: rows.reset_index(drop=True) for name, rows in expected.groupby("model")}
    assert len(mine) == 40 * H
    same = ["symbol", "origin", "date", "step", "is_event", "pit", "q05", "q50", "inside_50", "inside_90"]
    pd.testing.assert_frame_equal(mine[same], theirs["adapter"][same], check_exact=True, check_dtype=False)
    assert mine["rw_crps"].tolist() == theirs["random_walk"]["crps"].tolist()
    # sums over the paths run in another order
    np.testing.assert_allclose(mine["crps"], theirs["adapter"]["crps"], rtol=1e-12)
    np.testing.assert_allclose(mine["outcome"], theirs["adapter"]["outcome"], rtol=0, atol=1e-15)


def test_a_forecast_counts_once_and_waits_for_its_bar(
    market: Snapshot, series: list[Series], forecasts: tuple[list[Origin], Floats], tmp_path: Path
) -> None:
    origins, closes = forecasts
    rows = rows_of(series, origins[:2], closes[:2], VERSION)
    later = rows.assign(samples=pd.Series([np.ones(7)] * len(rows)))
    base = rows.assign(version=None)
    ahead = rows.iloc[:1].assign(last_bar=date(2022, 12, 30), date=date(2023, 1, 3))
    strange = rows.iloc[:1].assign(symbol="ELSE")
    for name, frame in (("a", rows), ("b", later), ("c", base), ("d", pd.concat([ahead, strange]))):
        write(tmp_path / f"{name}.parquet", frame)
    (tmp_path / ".e.parquet.partial").mkdir()
    write(tmp_path / ".e.parquet.partial" / "00000.parquet", later.assign(version="unfinished"))
    record = read_track_record(find_files([tmp_path]), market)
    assert (record.pending, record.unknown) == (1, 1)
    assert record.scores["version"].value_counts().to_dict() == {VERSION: 2 * H, BASE: 2 * H}
    first = record.scores.query("version == @VERSION")["crps"].tolist()
    assert first == record.scores[record.scores["version"] == BASE]["crps"].tolist()


def test_a_split_after_the_forecast_changes_no_score(
    market: Snapshot, series: list[Series], forecasts: tuple[list[Origin], Floats], tmp_path: Path
) -> None:
    """Bars that were divided by 4 since then: forecasts keep the scale of their own last close."""
    origins, closes = forecasts
    rows = rows_of(series, origins, closes, VERSION)
    old = rows.assign(last_close=4 * rows["last_close"], samples=[4 * one for one in rows["samples"]])
    now = read_track_record([write(tmp_path / "now.parquet", rows)], market).scores
    then = read_track_record([write(tmp_path / "then.parquet", old)], market).scores
    np.testing.assert_allclose(then["crps"], now["crps"], rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no parquet", "cannot be read"), (None, "no forecasts in .*: make some with forecast-all")],
)
def test_what_is_no_forecast_is_named(
    market: Snapshot, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ForecastFileError, match=message):
        read_track_record(find_files([tmp_path]), market)


def test_another_table_is_no_forecast_file(market: Snapshot, tmp_path: Path) -> None:
    market.symbols.to_parquet(tmp_path / "symbols.parquet")
    with pytest.raises(ForecastFileError, match=r"symbols.parquet holds no forecasts: expected a file of"):
        read_track_record(find_files([tmp_path]), market)


@pytest.mark.slow
def test_120_days_of_forecasts_are_covered_as_in_an_evaluation_of_the_same_bars(
    market: Snapshot,
    market_path: Path,
    base_path: Path,
    series: list[Series],
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    """Other seeds, the same bars: what differs is the noise of the sample paths alone."""
    days = [day.item() for day in series[0].dates[300:420]]
    config: dict[str, Any] = {"snapshot": market_path, "base_model": str(base_path), "adapter": None}
    for day in days:
        out = tmp_path / "forecasts" / f"{day}.parquet"
        forecast_all(
            ForecastAllConfig(**config, out=out, horizon=H, paths=PATHS, as_of=day),
            console=Console(file=StringIO()),
        )
    mine = read_track_record(find_files([tmp_path / "forecasts"]), market).scores
    origins = [
        Origin(series=n, bar=int(np.searchsorted(one.dates, np.datetime64(day))))
        for n, one in enumerate(series)
        for day in days
    ]
    settings = PathSettings(horizon=H, paths=PATHS, context=bundle.context, sampling=Sampling(), seed=5)
    prepared = prepare_origins(market, series, origins, settings, bundle.event_encoder)
    sampled = sample_bars(bundle.tokenizer, bundle.model, prepared, settings, events="none")
    theirs = score_forecasts(series, find_targets(series, origins, H), {"base": sampled.closes}, seed=0)
    theirs = theirs[theirs["model"] == "base"]
    both = mine.merge(theirs, on=["symbol", "origin", "step"], suffixes=("", "_theirs"), validate="1:1")
    assert len(both) == len(mine) == len(theirs) == 4 * 120 * H
    for name in ("inside_50", "inside_80", "inside_90"):
        apart = mean_over_dates(both[name] - both[f"{name}_theirs"], both["origin"], seed=0, shortest_block=H)
        assert apart.low <= 0 <= apart.high, (name, apart)
