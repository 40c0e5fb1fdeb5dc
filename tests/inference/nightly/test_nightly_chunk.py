"""What a batch says of a symbol is what the service and the command say of it alone, to the bit."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kronos_service.data.forecasts import TARGETS
from kronos_service.data.snapshot.by_symbol import open_by_symbol
from kronos_service.inference.forecast.command import forecast
from kronos_service.inference.nightly import memory
from kronos_service.inference.nightly.chunk import ChunkForecaster
from kronos_service.inference.nightly.plan import Plan, load_model, planned_model
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import find_adapter
from kronos_shared.columns import ASSET_CLASSES
from kronos_shared.quantiles import LEVELS, quantile_name

Rows = Callable[..., pd.DataFrame]
Run = Callable[..., Any]


@pytest.mark.parametrize("paths", [5, 70])
def test_every_symbol_is_forecast_as_the_service_answers_it(
    rows: Rows, ask: Callable[..., dict[str, Any]], paths: int
) -> None:
    """Alone in its request; in the batch beside others, in one pass (5 paths) and in several (70)."""
    batch = rows(paths=paths)
    assert batch["asset_class"].nunique() == len(ASSET_CLASSES)
    for symbol, mine in batch.groupby("symbol"):
        answer = ask(
            series=[{"symbol": symbol}],
            horizon=3,
            paths=paths,
            seed=3,
            quantiles=list(LEVELS),
            return_paths=True,
        )
        (series,) = answer["series"]
        for name in TARGETS:
            one = mine[mine["target_name"] == name]
            assert one["mean"].tolist() == series["mean"][name]
            for level in LEVELS:
                assert one[quantile_name(level)].tolist() == series["quantiles"][str(level)][name]
        closes = mine[mine["target_name"] == "close"]
        assert np.array_equal(np.stack(closes["samples"].tolist()).T, series["paths"]["close"])
        assert closes["date"].astype(str).tolist() == series["dates"]
        assert set(mine["last_bar"].astype(str)) == {series["last_bar"]}
        assert {f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in mine["as_of"]} == {series["as_of"]}
        assert set(mine["version"]) == {answer["model"]["version"]}
        assert set(mine["digest"]) == {answer["model"]["digest"]}
        assert set(mine["seed"]) == {answer["seed"]}


def test_the_paths_are_those_of_the_command_forecast_from_an_earlier_day_too(
    rows: Rows, tradable_path: Path, base_path: Path, store: Path
) -> None:
    batch = rows(as_of=date(2022, 9, 1), with_base=True)
    closes = batch[batch["target_name"] == "close"]
    for symbol in ("SYN01", "BTCUSDT"):
        shown = forecast(
            ForecastConfig(
                symbol=symbol,
                horizon=3,
                paths=5,
                seed=3,
                as_of=date(2022, 9, 1),
                snapshot=tradable_path,
                adapter=store,
                base_model=str(base_path),
            ),
            Console(quiet=True),
        )
        mine = closes[closes["symbol"] == symbol]
        for bands, rows_of_one in zip(
            shown.bands, (mine[mine["version"].isna()], mine[mine["version"].notna()]), strict=True
        ):
            assert np.array_equal(np.stack(rows_of_one["samples"].tolist()).T, bands.closes)
            assert set(rows_of_one["last_bar"]) == {shown.origin}


@pytest.mark.parametrize("most", [1, 3, 32])
def test_the_file_does_not_depend_on_the_size_of_a_chunk(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    expected = run()[0].out.read_bytes()
    monkeypatch.setattr(memory, "MOST_SYMBOLS", most)
    assert run(out=tmp_path / "other.parquet")[0].out.read_bytes() == expected


def test_a_plan_that_was_sent_elsewhere_gives_the_same_rows(
    tradable_path: Path, base_path: Path, store: Path, rows: Rows
) -> None:
    plan = _plan(tradable_path, base_path, store)
    sent: Plan = pickle.loads(pickle.dumps(plan))
    chunk = ChunkForecaster(sent, planned_model(sent))(["SYN01", "SPY"])
    assert chunk.failed == {}
    batch = rows()
    for symbol in ("SYN01", "SPY"):
        mine, whole = (frame[frame["symbol"] == symbol] for frame in (chunk.rows.to_pandas(), batch))
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), whole.reset_index(drop=True))
    assert pickle.loads(pickle.dumps(chunk)).rows.equals(chunk.rows)


def _plan(tradable_path: Path, base_path: Path, store: Path) -> Plan:
    adapter = find_adapter(store)
    serving = load_model(adapter, base_model=str(base_path), device="cpu")
    return Plan(
        tables=tradable_path,
        tables_sha256=open_by_symbol(tradable_path).sha256,
        adapter=adapter,
        digest=serving.digest,
        base_model=str(base_path),
        base_digest=serving.base.base.content_sha256,
        device="cpu",
        horizon=3,
        paths=5,
        seed=3,
        recalibrated=True,
        with_base=False,
        max_stale_sessions=None,
        as_of=None,
        now=datetime(2023, 1, 3, 12, 0, tzinfo=UTC),
    )


def test_a_chunk_is_never_computed_by_another_model_than_the_plans(
    tradable_path: Path, base_path: Path, store: Path
) -> None:
    plan = replace(_plan(tradable_path, base_path, store), digest="0" * 64)
    with pytest.raises(AdapterError, match="has changed meanwhile: start the command again"):
        planned_model(plan)
