"""What a nightly batch costs a symbol, and that its memory does not grow with their number.

1,000 synthetic symbols of 64 bars, the packaged base, 20 paths of 5 bars, one thread. Rates are of one run:
the batch, the service asked for one symbol after the other, and upstream's algorithm (every path reads its
whole window again at each step) on the same prepared histories. Memory is the peak of a process of its own.
Run with `pytest -s -m slow tests/benchmarks/test_benchmark_forecast_all.py`.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import structlog
import torch
from fastapi.testclient import TestClient
from rich.console import Console

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.inference.http.app import create_app
from kronos_service.inference.nightly.command import forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.settings import load_settings
from kronos_service.model.factory import Bundle, load_bundle
from kronos_service.model.generation.generate import History
from kronos_service.model.generation.inputs import prepare_history
from kronos_service.model.generation.sampling import Sampling, noise, sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HORIZON, PATHS, BARS = 5, 20, 64
NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
KEY = "an-api-key-of-the-benchmark"
ASKED = 100
"""Symbols that the service and upstream's algorithm are timed with."""
BATCH = """
import resource, sys
from datetime import datetime
from pathlib import Path
import torch
torch.set_num_threads(1)
from kronos_service.inference.nightly.command import forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
snapshot, out, now = sys.argv[1:]
config = ForecastAllConfig(snapshot=Path(snapshot), out=Path(out), horizon=5, paths=20)
forecast_all(config, now=datetime.fromisoformat(now))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def snapshot_of(count: int, directory: Path) -> Path:
    """The sample market with `count` tradable symbols of 64 bars, each one of its own, rescaled."""
    sample_market = load_snapshot(sample_snapshot_path(), now=NOW)
    rng = np.random.default_rng(0)
    stocks = sample_market.symbols.query("asset_class == 'us_equity'")["symbol"].tolist()
    bars = {name: sample_market.bars.query("symbol == @name").tail(BARS) for name in stocks}
    prices = ["open", "high", "low", "close", "amount"]
    frames = []
    for number in range(count):
        rows = bars[stocks[number % len(stocks)]].copy()
        rows[prices] *= rng.uniform(0.5, 2)
        frames.append(rows.assign(symbol=f"N{number:04}"))
    listed = pd.DataFrame(
        {"symbol": [f"N{n:04}" for n in range(count)], "asset_class": "us_equity", "tradable": True}
    )
    write_snapshot(
        directory,
        symbols=pd.concat([sample_market.symbols.assign(tradable=False), listed]),
        bars=pd.concat([sample_market.bars, *frames]),
        calendar=sample_market.calendar,
        window=(sample_market.bars["ts"].min().date(), NOW.date()),
        source="benchmark",
        now=NOW,
    )
    return directory


@pytest.fixture(autouse=True)
def few_logs() -> Iterator[None]:
    """A line a request would be timed too."""
    was = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**was)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot_of(1000, tmp_path_factory.mktemp("thousand") / "snapshot")


@pytest.fixture
def client(thousand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The service on the same snapshot and base, waiting for no other request."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        api_keys=KEY, allow_base_only=True, base_model="nano", snapshot=thousand, batch_window_ms=0
    )
    with TestClient(create_app(settings, clock=lambda: NOW)) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        yield client


@torch.inference_mode()
def recompute(bundle: Bundle, history: History, paths: int) -> None:
    """Upstream's algorithm, all paths of a symbol in one batch."""
    model, stamps = bundle.model, torch.cat((history.stamps, history.future_stamps))
    draws = noise([history.seed], paths, HORIZON)[0]
    tokens = torch.stack(bundle.tokenizer.encode(history.x.expand(paths, -1, -1)), dim=-1)
    for step in range(HORIZON):
        s1_ids, s2_ids = tokens.unbind(-1)
        h = model.hidden(s1_ids, s2_ids, stamps[: tokens.shape[1]].expand(paths, -1, -1))
        s1 = sample(model.s1_logits(h[:, -1]), draws[:, step, 0], Sampling())
        last = torch.full((paths, 1), tokens.shape[1] - 1)
        s2 = sample(model.s2_logits(h, s1[:, None], last)[:, 0], draws[:, step, 1], Sampling())
        tokens = torch.cat((tokens, torch.stack((s1, s2), dim=-1)[:, None]), dim=1)
    bundle.tokenizer.decode(*tokens.unbind(-1))


def rate(work: Callable[[], object], symbols: int) -> float:
    """Symbols a CPU second."""
    begun = time.process_time()
    work()
    return symbols / (time.process_time() - begun)


def test_a_batch_is_faster_than_one_by_one_and_than_recomputing(
    thousand: Path, client: TestClient, tmp_path: Path
) -> None:
    config = ForecastAllConfig(
        snapshot=thousand, out=tmp_path / "all.parquet", horizon=HORIZON, paths=PATHS, base_model="nano"
    )
    batch = rate(lambda: forecast_all(config, now=NOW, console=Console(quiet=True)), 1000)

    def ask() -> None:
        for number in range(ASKED):
            body = {"series": [{"symbol": f"N{number:04}"}], "horizon": HORIZON, "paths": PATHS}
            assert client.post("/v1/forecast", json=body).status_code == 200

    one_by_one = rate(ask, ASKED)
    bundle = load_bundle("nano")
    market = load_snapshot(thousand, now=NOW)

    def upstream() -> None:
        for number in range(ASKED):
            bars = market.bars[market.bars["symbol"] == f"N{number:04}"]
            recompute(bundle, history_of(bars, bundle), PATHS)

    recomputing = rate(upstream, ASKED)
    print(  # noqa: T201
        f"\nsymbols/s of CPU: batch {batch:.1f}, one by one {one_by_one:.1f}, recomputing {recomputing:.1f}"
    )
    assert batch > 1.2 * one_by_one
    assert batch > 2 * recomputing


def history_of(bars: pd.DataFrame, bundle: Bundle) -> History:
    return prepare_history(
        bars,
        "us_equity",
        None,
        symbol=None,
        encoder=bundle.event_encoder,
        context=bundle.context,
        horizon=HORIZON,
        seed=0,
    ).history


def peak(snapshot: Path, out: Path) -> float:
    """MiB of a process that forecasts a snapshot."""
    command = [sys.executable, "-c", BATCH, str(snapshot), str(out), NOW.isoformat()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=out.parent)
    return int(done.stdout.split()[-1]) / 1024


def test_peak_memory_does_not_grow_with_the_number_of_symbols(thousand: Path, tmp_path: Path) -> None:
    hundred = peak(snapshot_of(100, tmp_path / "hundred"), tmp_path / "hundred.parquet")
    all_of_them = peak(thousand, tmp_path / "thousand.parquet")
    print(f"\npeak memory: {hundred:.0f} MiB with 100 symbols, {all_of_them:.0f} with 1,000")  # noqa: T201
    assert all_of_them < 1.05 * hundred
