"""A batch on the small market and the small random base, in chunks of two symbols."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.inference.nightly import memory
from kronos_service.inference.nightly.command import Summary, forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig

NOW = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)
"""All bars of the market are there; the next session of every asset class is still open."""

ConfigOf = Callable[..., ForecastAllConfig]
Run = Callable[..., tuple[Summary, str]]


@pytest.fixture(scope="session")
def tradable_path(market: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small market, where the leaders are tradable too: symbols of every asset class."""
    path = tmp_path_factory.mktemp("tradable") / "snapshot"
    symbols = market.symbols.assign(tradable=True)
    window = (date(2021, 1, 4), date(2022, 12, 30))
    write_snapshot(
        path, symbols=symbols, bars=market.bars, calendar=market.calendar, window=window, source="tests"
    )
    return path


@pytest.fixture
def config_of(tradable_path: Path, base_path: Path, store: Path, tmp_path: Path) -> ConfigOf:
    """Settings of a batch, with changes."""

    def make(**changes: Any) -> ForecastAllConfig:
        usual: dict[str, Any] = {
            "out": tmp_path / "forecasts" / "night.parquet",
            "snapshot": tradable_path,
            "adapter": store,
            "base_model": str(base_path),
            "horizon": 3,
            "paths": 5,
            "seed": 3,
        }
        return ForecastAllConfig(**(usual | changes))

    return make


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_SYMBOLS", 2)


@pytest.fixture
def run(config_of: ConfigOf) -> Run:
    """Forecast at `NOW`, with changes of the usual settings; returns the summary and what was printed."""

    def batch(now: datetime = NOW, **changes: Any) -> tuple[Summary, str]:
        shown = StringIO()
        summary = forecast_all(config_of(**changes), now=now, console=Console(file=shown, width=200))
        return summary, shown.getvalue()

    return batch


@pytest.fixture
def rows(run: Run) -> Callable[..., pd.DataFrame]:
    """The rows of the file that a batch with these changes writes."""

    def read(**changes: Any) -> pd.DataFrame:
        frame: pd.DataFrame = pq.read_table(run(**changes)[0].out).to_pandas()
        return frame

    return read
