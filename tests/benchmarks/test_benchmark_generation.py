"""What a forecast costs against recomputing everything, and a decoding step against reading its weights.

Kronos-base's shape, random weights, fp32 on one thread, 480 bars of history and 32 of forecast. Ratios within
one run, of CPU seconds (other processes then count by their use of caches and memory only), each the least of
several taken in turns. Run with
`pytest -s -m slow tests/benchmarks/test_benchmark_generation.py`.
"""

import time
from collections.abc import Callable

import pytest
import torch
from recomputing import Bench, Recomputing, random_bench
from torch import Tensor, nn

from kronos_service.model.generation.decoder import PathDecoder
from kronos_service.model.generation.generate import generate
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise
from kronos_service.model.kronos import Kronos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BARS, HORIZON = 480, 32


@pytest.fixture(scope="module")
def bench() -> Bench:
    return random_bench("base", bars=BARS, horizon=HORIZON)


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def cached(bench: Bench, paths: int) -> None:
    generate(
        bench.tokenizer,
        bench.model,
        [bench.history],
        horizon=HORIZON,
        paths=paths,
        sampling=Sampling(),
        context=BARS + HORIZON,
    )


def test_a_recomputing_forecast_costs_what_its_sampled_steps_say(bench: Bench) -> None:
    recomputing = Recomputing(bench, paths=1, seconds=seconds)
    sampled = min(recomputing.sampled() for _ in range(3))
    whole = seconds(recomputing.whole)
    print(f"\nrecomputing, 1 path: {sampled:.1f} s by its first and last step, {whole:.1f} s measured")  # noqa: T201
    assert abs(sampled / whole - 1) < 0.15


@pytest.mark.parametrize(("paths", "repeats", "wanted"), [(1, 2, 10), (5, 2, 40), (30, 1, 150)])
def test_a_forecast_costs_a_fraction_of_recomputing_it(
    bench: Bench, paths: int, repeats: int, wanted: int
) -> None:
    recomputing = Recomputing(bench, paths, seconds)
    cached(bench, paths)
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(seconds(recomputing.whole) if paths == 1 else recomputing.sampled())
        ours += [seconds(lambda: cached(bench, paths)) for _ in range(2)]
    ratio = min(theirs) / min(ours)
    print(f"\n{paths} paths: {min(ours):.2f} s, recomputing {min(theirs):.1f} s: {ratio:.1f}x")  # noqa: T201
    assert ratio >= wanted


@torch.inference_mode()
def test_a_decoding_step_costs_little_more_than_reading_the_weights_once(bench: Bench) -> None:
    drawing = PathSampler(model=bench.model, sampling=Sampling())
    stamps = torch.cat((bench.history.stamps, bench.history.future_stamps[:-1]))
    known = TokenHistory(tokens=torch.zeros(BARS, 2, dtype=torch.int64), stamps=stamps, events=None)
    read = [drawing.read(known)]
    matrices = step_matrices(bench.model)
    vectors = {width: torch.randn(width) for width in {matrix.shape[1] for matrix in matrices}}
    for paths in (1, 5, 30):
        rows = whole_groups(paths)
        steps, products = [], []
        for _ in range(3):
            draws = noise([0], rows, HORIZON)[0]
            decoder = PathDecoder(bench.model, read, paths=rows, horizon=HORIZON, upstream_decode=False)
            tokens = drawing._next(decoder, draws[:, 0])
            for step in range(1, HORIZON):
                begun = time.process_time()
                decoder.advance(*tokens.unbind(-1))
                tokens = drawing._next(decoder, draws[:, step])
                steps.append(time.process_time() - begun)
                products.append(seconds(lambda: [torch.mv(w, vectors[w.shape[1]]) for w in matrices]))
        ratio = min(steps) / min(products)
        gigabytes = 4e-9 * sum(matrix.numel() for matrix in matrices) / min(products)
        print(  # noqa: T201
            f"\nstep, {paths} paths: {1e3 * min(steps):.1f} ms, mv with each weight matrix "
            f"{1e3 * min(products):.1f} ms ({gigabytes:.1f} GB/s): {ratio:.2f}x"
        )
        assert paths > 1 or ratio <= 1.5


def step_matrices(model: Kronos) -> list[Tensor]:
    """The weight matrices that a decoding step multiplies by; 100.4M parameters of the base shape."""
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
