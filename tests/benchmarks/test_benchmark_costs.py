"""Whether what the service takes a batch to cost is proportional to the time that it takes.

Random weights, fp32 on one thread: batches of 1 to 6 series, histories of 120 and 400 bars, 2 to 24 bars
ahead, 1 to 192 paths in all, at most 64 a pass. CPU seconds of one run, each the least of two. Run with
`OMP_NUM_THREADS=1 pytest -s -m slow tests/benchmarks/test_benchmark_costs.py`.
"""

import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from kronos_service.inference.models.served_model import ServedModel, base_alone
from kronos_service.inference.scheduler.queue import MARGIN
from kronos_service.inference.scheduler.work import BatchKey, ForecastJob, cost_of, run_batch
from kronos_service.model.factory import load_bundle, save_base
from kronos_service.model.generation.generate import History
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("preset", ["nano", "mini", "base"])
def test_costs_are_proportional_to_time_within_the_margin_of_admission(preset: str, tmp_path: Path) -> None:
    serving = serving_of(preset, tmp_path)
    grid = product((120, 400), (2, 8, 24), (1, 8, 16, 32), (1, 3, 6))
    batches = [batch_of(serving, *one) for one in grid]
    costs = np.array([cost_of(work.cost for work in batch) for batch in batches])
    pace = np.array([min(seconds(batch) for _ in range(2)) for batch in batches]) / costs
    share = pace / np.median(pace)
    print(  # noqa: T201
        f"\n{preset}: {len(batches)} batches of cost {costs.min():.0f} to {costs.max():.0f} took "
        f"{share.min():.2f} to {share.max():.2f} times the median of {1e6 * np.median(pace):.0f} us a unit, "
        f"80 % of them {np.quantile(share, 0.1):.2f} to {np.quantile(share, 0.9):.2f}"
    )
    assert share.max() <= MARGIN


def serving_of(preset: str, directory: Path) -> ServedModel:
    torch.manual_seed(0)
    shape = PRESETS[preset]
    tokenizer, model = KronosTokenizer(**shape.tokenizer), Kronos(**shape.predictor)
    save_base(directory, tokenizer, model, context=512, preset=preset, extra={})
    return base_alone(load_bundle(str(directory)))


def batch_of(serving: ServedModel, bars: int, horizon: int, paths: int, series: int) -> list[ForecastJob]:
    history = History(
        x=torch.randn(bars, 6),
        stamps=torch.randint(1, 7, (bars, 5)),
        future_stamps=torch.randint(1, 7, (horizon, 5)),
        events=None,
        seed=0,
    )
    key = BatchKey(horizon=horizon, paths=paths, sampling=Sampling())
    return [ForecastJob(serving=serving, key=key, histories=[history], expires_at=0.0) for _ in range(series)]


def seconds(batch: list[ForecastJob]) -> float:
    begun = time.process_time()
    run_batch(batch)
    return time.process_time() - begun
