"""An adapter of hourly bars is refused, with both lengths named, wherever daily ones are forecast."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kronos_service import KronosEvents
from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.inference.forecast.command import forecast
from kronos_service.inference.market.readers import SnapshotReader
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.inference.nightly.plan import load_model
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.adapter.files import AdapterError
from kronos_shared.adapter_manifest import MANIFEST
from kronos_shared.adapter_store import publish

BOTH = r"trained on 1h bars, and .* has 1d ones"


@pytest.fixture
def of_hours(adapter_of: Callable[..., Path], tmp_path: Path) -> Path:
    """A whole adapter whose manifest says that its bars are of one hour."""
    directory = tmp_path / "adapter"
    shutil.copytree(adapter_of(0), directory)
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["data"]["interval"] = "1h"
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def test_the_service_keeps_what_serves(
    of_hours: Path,
    empty_store: Path,
    adapter_of: Callable[..., Path],
    new_loader: Callable[..., AdapterLoader],
) -> None:
    first = publish(adapter_of(1), empty_store, keep=9)
    loader = new_loader()
    loader.reload()
    publish(of_hours, empty_store, keep=9)
    status = loader.reload()
    assert status.serving is not None
    assert status.serving.version == first.version
    assert status.reason is not None
    assert "trained on 1h bars, and this service has 1d ones" in status.reason


def test_the_service_reads_no_market_of_hours(hourly_path: Path) -> None:
    with pytest.raises(SnapshotError, match="holds 1h bars, and this service takes 1d ones"):
        SnapshotReader(hourly_path)(datetime(2022, 7, 1, tzinfo=UTC))


def test_commands_and_the_front_door_name_both(of_hours: Path, base_path: Path, market_path: Path) -> None:
    with pytest.raises(AdapterError, match=BOTH):
        KronosEvents.from_adapter(of_hours, base_model=str(base_path))
    with pytest.raises(AdapterError, match="trained on 1h bars, and forecast-all has 1d ones"):
        load_model(of_hours, base_model=str(base_path), device="cpu")
    config = ForecastConfig(
        symbol="SPY", snapshot=market_path, adapter=of_hours, base_model=str(base_path), horizon=3
    )
    with pytest.raises(AdapterError, match=BOTH):
        forecast(config)


def test_it_forecasts_hours_from_a_snapshot_of_hours(
    of_hours: Path, base_path: Path, hourly_path: Path, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    config = ForecastConfig(
        symbol="ETHUSDT",
        snapshot=hourly_path,
        adapter=of_hours,
        base_model=str(base_path),
        horizon=3,
        paths=4,
        plot=tmp_path / "fan.svg",
    )
    made = forecast(config)
    assert [str(one) for one in made.dates] == [f"2022-07-01T0{hour}:00" for hour in range(3)]
    assert made.origin == datetime(2022, 6, 30, 23)
    assert (tmp_path / "fan.svg").stat().st_size > 0
    with pytest.raises(AdapterError, match="trained on 1d bars, and snapshot snapshot has 1h ones"):
        forecast(config.replace(adapter=adapter_of(0)))
