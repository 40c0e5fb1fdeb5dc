"""What Ray costs a nightly batch, and what a second worker brings.

500 synthetic symbols of 64 bars, the packaged base, 20 paths of 5 bars; clock time of whole batches in one
run: the local engine, a cluster with one worker, the same with two. A batch of 64 symbols says what a start
costs. Run with `pytest -s -m "slow and ray" tests/benchmarks/test_benchmark_ray.py`, both cores free.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_benchmark_forecast_all import snapshot_of

from kronos_service.inference.nightly.command import forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_shared.ray_cluster import Engine

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]
NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
SYMBOLS, FEW = 500, 64


def seconds(snapshot: Path, out: Path, engine: Engine) -> float:
    config = ForecastAllConfig(
        snapshot=snapshot, out=out, horizon=5, paths=20, base_model="nano", engine=engine
    )
    begun = time.perf_counter()
    forecast_all(config, now=NOW, console=Console(quiet=True))
    return time.perf_counter() - begun


def test_two_workers_forecast_more_than_one(ray_cluster: Any, tmp_path: Path) -> None:
    many, few = (snapshot_of(count, tmp_path / f"market-{count}") for count in (SYMBOLS, FEW))
    here = seconds(many, tmp_path / "here.parquet", "local")
    lines = [f"local: {here:.1f} s, {3600 * SYMBOLS / here:.0f} symbols/hour"]
    lasting = {}
    for workers in (1, 2):
        if workers == 2:
            ray_cluster.add_node(num_cpus=1)
        start = seconds(few, tmp_path / f"few-{workers}.parquet", "ray")
        whole = seconds(many, tmp_path / f"many-{workers}.parquet", "ray")
        lasting[workers] = (SYMBOLS - FEW) / (whole - start)
        lines.append(
            f"{workers} on ray: {whole:.1f} s ({FEW} symbols {start:.1f} s), "
            f"{3600 * lasting[workers]:.0f} symbols/hour once started"
        )
        assert (tmp_path / f"many-{workers}.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    sys.stdout.write("\n".join(["", *lines, f"two over one: {lasting[2] / lasting[1]:.2f}", ""]))
    assert lasting[2] > 1.3 * lasting[1]
