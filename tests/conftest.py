"""A small market and a small random base that the tests of training and serving share."""

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from object_store import ObjectStore, running_object_store

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import own_events
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events.encoder import EventEncoder
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.model.adapter.write import save_adapter
from kronos_service.model.factory import Bundle, load_bundle, save_base
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import MANIFEST, DataRecord, LoraRecord

# How long an example takes depends on what else the machine does; what is timed is in tests/benchmarks.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection() -> None:
    """Collecting makes some hundred thousand objects that stay: looking for garbage among them takes a third
    of its time.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and the bits of a sum may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of adapters from elsewhere go to a directory of this run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def market_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four equities and the leaders, January 2021 to December 2022."""
    path = tmp_path_factory.mktemp("market") / "snapshot"
    write_sample(path, seed=3, symbols=4, start=date(2021, 1, 4), end=date(2022, 12, 30))
    return path


@pytest.fixture(scope="session")
def market(market_path: Path) -> Snapshot:
    return load_snapshot(market_path)


@pytest.fixture(scope="session")
def hourly_path(market: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hourly bars of two crypto symbols, March to June 2022, with the market's leaders and calendar."""
    opens = pd.date_range("2022-03-01", "2022-06-30 23:00", freq="h", tz="UTC")
    rng, bars = np.random.default_rng(0), []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, len(opens))))
        before = np.concatenate([[100.0], close[:-1]])
        table = {"open": before, "high": np.maximum(before, close) * 1.002, "close": close, "volume": 5.0}
        rows = pd.DataFrame({"symbol": symbol, "ts": opens, **table, "amount": np.nan})
        bars.append(rows.assign(low=np.minimum(before, close) * 0.998))
    names = market.taxonomy.leaders
    leaders = market.symbols[market.symbols["symbol"].isin(names)].assign(tradable=False)
    other = pd.DataFrame([{"symbol": "ETHUSDT", "asset_class": "crypto", "tradable": True}])
    symbols = pd.concat([leaders, other]).assign(tradable=lambda table: table["asset_class"] == "crypto")
    path = tmp_path_factory.mktemp("hourly") / "snapshot"
    write_snapshot(
        path,
        symbols=symbols,
        bars=pd.concat(bars),
        calendar=market.calendar,
        window=(date(2022, 3, 1), date(2022, 6, 30)),
        source="tests",
        interval="1h",
        leaders=market.bars[market.bars["symbol"].isin(names)],
    )
    return path


@pytest.fixture(scope="session")
def own_market_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three equities of the market of own events, January 2021 to December 2022."""
    path = tmp_path_factory.mktemp("own") / "snapshot"
    write_sample(path, seed=1, symbols=3, start=date(2021, 1, 4), end=date(2022, 12, 30), world=own_events())
    return path


@pytest.fixture(scope="session")
def hourly(hourly_path: Path) -> Snapshot:
    return load_snapshot(hourly_path)


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base of two narrow layers."""
    torch.manual_seed(0)
    nano = PRESETS["nano"]
    tokenizer = KronosTokenizer(**{**nano.tokenizer, "d_model": 16, "ff_dim": 32})
    model = Kronos(**{**nano.predictor, "n_layers": 2, "d_model": 32, "n_heads": 2, "ff_dim": 48})
    path = tmp_path_factory.mktemp("base") / "tiny"
    save_base(path, tokenizer, model, context=72, preset="nano", extra={})
    return path


@pytest.fixture(scope="session")
def bundle(base_path: Path) -> Bundle:
    return load_bundle(str(base_path))


LORA = LoraRecord(rank=4, alpha=8, dropout=0.05)


@pytest.fixture(scope="session")
def adapter_of(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An adapter directory for the small random base, by seed, LoRA settings and taxonomy; every trainable
    tensor is away from its initial value, so that no two forecast alike.
    """
    root = tmp_path_factory.mktemp("adapters")
    data = DataRecord(
        snapshot="s", sha256="0" * 64, has_manifest=True, splits={"val": ("2025-01-01", "2025-06-30")}
    )

    def save(seed: int, lora: LoraRecord = LORA, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> Path:
        directory = root / f"{seed}-{sha256(repr(lora).encode()).hexdigest()[:8]}-{taxonomy.sha256[:12]}"
        if directory.exists():
            return directory
        made_for = replace(bundle, event_encoder=EventEncoder(taxonomy))
        wrapped = adapt(bundle.model, lora=lora, taps="both", seed=seed, taxonomy=taxonomy)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in trainable(wrapped):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        save_adapter(
            wrapped, made_for, directory, context=72, data=data, metrics={}, gain="unknown", card="# card\n"
        )
        return directory

    return save


@pytest.fixture
def variant(adapter_of: Callable[[int], Path], tmp_path: Path) -> Callable[[int], Path]:
    """Whole adapters that differ in their manifest alone."""

    def make(number: int) -> Path:
        directory = tmp_path / "variants" / str(number)
        if not directory.exists():
            shutil.copytree(adapter_of(0), directory)
            manifest = json.loads((directory / MANIFEST).read_text())
            (directory / MANIFEST).write_text(json.dumps({**manifest, "metrics": {"number": number}}))
        return directory

    return make


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A real S3-compatible server, which the environment names."""
    with running_object_store() as server:
        yield server


@pytest.fixture(params=["directory", "bucket"])
def either_store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | StoreUrl:
    """An empty store in a directory, and one in a bucket of the server."""
    if request.param == "directory":
        return tmp_path / "adapters"
    server: ObjectStore = request.getfixturevalue("object_store")
    return server.new_store()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster on this machine, its first node with one processor; tests add nodes and kill them."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        first = {
            "num_cpus": 1,
            "include_dashboard": False,
            # a dead node is noticed in 2 s instead of 15
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
        }
        nodes: Any = Cluster(initialize_head=True, head_node_args=first)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium; one for all tests, because its driver can be started once a process."""
    from playwright.sync_api import sync_playwright

    chromium = Path("/usr/bin/chromium")
    assert chromium.exists(), "no Chromium: make test-ui installs Debian's"
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium)
        yield opened
        opened.close()
