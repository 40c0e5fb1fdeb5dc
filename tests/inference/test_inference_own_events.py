"""Service and Python front door on a taxonomy of the user's: one is served, others are rejected."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from kronos_service.data.sample_worlds import OWN_TAXONOMY
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, TaxonomyError, read_taxonomy
from kronos_service.forecaster import KronosEvents
from kronos_service.inference.market.readers import SnapshotReader, taxonomy_of_source
from kronos_service.inference.models.served_model import adapter_at
from kronos_service.inference.settings import SettingsError
from kronos_service.model.factory import BaseChoice
from kronos_shared.adapter_store import publish

OWN = read_taxonomy(OWN_TAXONOMY)


@pytest.fixture(scope="module")
def own_store(adapter_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own") / "store"
    publish(adapter_of(1, taxonomy=OWN), root, keep=5)
    return root


@pytest.fixture(scope="module")
def own_client(serve: Any, own_market_path: Path, own_store: Path) -> Iterator[TestClient]:
    with serve(snapshot=own_market_path, adapters=own_store) as client:
        yield client


def forecast(client: TestClient, symbol: str, **changes: Any) -> dict[str, Any]:
    body = {"series": [{"symbol": symbol}], "horizon": 8, "paths": 4, "seed": 3} | changes
    answer = client.post("/v1/forecast", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["series"][0]
    return found


def test_a_service_shows_a_symbol_its_own_events_and_everybodys(own_client: TestClient) -> None:
    snapshot = load_snapshot(own_client.app.state.service.settings.snapshot)  # type: ignore[attr-defined]
    released = snapshot.calendar["release_at"]
    of_a_symbol = 0
    for symbol in ("SYN01", "SYN02", "QQQ"):
        found = forecast(own_client, symbol)
        closes = [pd.Timestamp(f"{day} 21:00", tz="UTC") for day in ("2022-12-30", found["dates"][-1])]
        own = snapshot.calendar["symbol"].isna() | (snapshot.calendar["symbol"] == symbol)
        expected = snapshot.calendar[own & (released >= closes[0]) & (released < closes[1])]
        assert [one["event_type"] for one in found["events"]] == expected["event_type"].tolist()
        of_a_symbol += int(expected["symbol"].notna().sum())
    assert of_a_symbol > 0


def test_a_what_if_names_own_types_and_leaders(own_client: TestClient) -> None:
    plain = forecast(own_client, "SYN01")
    day = plain["dates"][1]
    moved = forecast(own_client, "SYN01", scenario={"leaders": [{"date": day, "leader": "QQQ", "z": 3.0}]})
    assert moved["mean"]["close"] != plain["mean"]["close"]
    body = {
        "series": [{"symbol": "SYN01"}],
        "horizon": 8,
        "scenario": {"leaders": [{"date": day, "leader": "SPY", "z": 3.0}]},
    }
    answer = own_client.post("/v1/forecast", json=body)
    assert answer.status_code == 422
    assert "expected one of QQQ, GLD, got 'SPY'" in answer.text
    assert "scenario.leaders.0.leader" in answer.text


def test_an_inline_calendar_has_symbol_events(own_client: TestClient) -> None:
    first, second = forecast(own_client, "SYN01")["dates"][2:4]
    row = {"event_type": "earnings_after_close", "impact": "high", "release_at": f"{first}T21:30:00Z"}
    far = {"event_id": "f", "event_type": "oil_inventories", "impact": "low"}
    calendar = {
        "events": [
            row | {"event_id": "e", "symbol": "SYN01"},
            far | {"release_at": "2023-03-01T15:30:00Z"},
        ],
        "complete_until": "2023-03-01",
    }
    own, other = (forecast(own_client, symbol, calendar=calendar) for symbol in ("SYN01", "SYN02"))
    assert [(one["date"], one["event_type"]) for one in own["events"]] == [(second, row["event_type"])]
    assert other["events"] == []
    calendar["events"][0] = row | {"event_id": "e"}  # type: ignore[index]
    body = {"series": [{"symbol": "SYN01"}], "horizon": 8, "calendar": calendar}
    answer = own_client.post("/v1/forecast", json=body)
    assert answer.status_code == 422
    assert "expected a symbol in every row of earnings_after_close" in answer.text


def test_an_adapter_of_another_taxonomy_is_rejected_with_both_hashes_and_the_last_good_one_serves(
    own_client: TestClient, own_store: Path, adapter_of: Callable[..., Path]
) -> None:
    before = forecast(own_client, "SYN01")
    publish(adapter_of(2), own_store, keep=5)
    loader = own_client.app.state.service.loader  # type: ignore[attr-defined]
    reason = loader.reload().reason
    assert OWN.sha256[:12] in reason
    assert DEFAULT_TAXONOMY.sha256[:12] in reason
    assert forecast(own_client, "SYN01")["mean"] == before["mean"]


def test_a_service_of_the_default_taxonomy_rejects_own_adapters(
    new_loader: Any, empty_store: Path, adapter_of: Callable[..., Path]
) -> None:
    publish(adapter_of(1, taxonomy=OWN), empty_store, keep=5)
    status = new_loader().look()
    assert status.serving is None
    assert OWN.sha256[:12] in status.reason
    assert DEFAULT_TAXONOMY.sha256[:12] in status.reason


def test_a_snapshot_that_changes_its_taxonomy_is_rejected(own_market_path: Path, market_path: Path) -> None:
    now = pd.Timestamp("2023-01-03 12:00", tz="UTC").to_pydatetime()
    assert SnapshotReader(own_market_path, OWN)(now) is not None
    with pytest.raises(TaxonomyError, match=f"{OWN.sha256[:12]}.*{DEFAULT_TAXONOMY.sha256[:12]}"):
        SnapshotReader(market_path, OWN)(now)


def test_a_database_takes_the_taxonomy_of_a_file_and_a_snapshot_its_own(
    settings_of: Any, own_market_path: Path
) -> None:
    database = settings_of(source="postgres", snapshot=None, taxonomy=OWN_TAXONOMY)
    assert taxonomy_of_source(database).sha256 == OWN.sha256
    assert taxonomy_of_source(settings_of(snapshot=own_market_path)).sha256 == OWN.sha256
    assert taxonomy_of_source(settings_of()) is DEFAULT_TAXONOMY
    with pytest.raises(SettingsError, match="a snapshot carries its own: drop it"):
        settings_of(taxonomy=OWN_TAXONOMY)


def test_the_front_door_uses_the_adapters_taxonomy(
    own_market_path: Path, base_path: Path, adapter_of: Callable[..., Path], market_path: Path
) -> None:
    snapshot = load_snapshot(own_market_path)
    served = adapter_at(adapter_of(1, taxonomy=OWN), base=BaseChoice(model=str(base_path)))
    model = KronosEvents(served)
    until = snapshot.calendar["release_at"].max() - timedelta(days=80)
    bars = snapshot.bars[snapshot.bars["ts"] <= until]
    options: dict[str, Any] = {"events": snapshot.calendar, "leaders": bars, "horizon": 5, "paths": 4}
    own = bars[bars["symbol"].isin(["SYN01", "SYN02"])]
    out = model.predict_df(own, **options)
    assert np.isfinite(out["predictions"]).all()
    nobodys = options | {"events": snapshot.calendar[snapshot.calendar["symbol"] != "SYN01"]}
    without = model.predict_df(own, **nobodys)
    differs = out["predictions"].ne(without["predictions"]).groupby(out["symbol"]).any()
    assert not differs["SYN02"]
    assert differs["SYN01"]
    with pytest.raises(ValueError, match="expected event types of the taxonomy"):
        model.predict_df(own, **options | {"events": load_snapshot(market_path).calendar})
