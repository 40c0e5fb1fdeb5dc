"""What a forecast costs against recomputing everything, and a decoding step against reading its weights.

Kronos-base's shape, random weights, fp32 on one thread, 480 bars of history and 32 of forecast. Ratios within
one run, of CPU seconds (other processes then count by their use of caches and memory only), each the least of
several taken in turns. Run with
`pytest -s -m slow tests/benchmarks/test_benchmark_generation.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from kronos_service.model.generation.decoder import PathDecoder
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.packed_linear import whole_groups
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise, sample
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BARS, HORIZON = 480, 32
SAMPLED_STEPS = (0, HORIZON - 1)
"""Steps of the recomputing forecast that are measured where all of them would take too long."""


@dataclass(frozen=True)
class Bench:
    tokenizer: KronosTokenizer
    model: Kronos
    history: History


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.manual_seed(0)
    base = PRESETS["base"]
    return Bench(
        KronosTokenizer(**base.tokenizer).eval(),
        Kronos(**base.predictor).eval(),
        History(
            x=torch.randn(BARS, 6),
            stamps=torch.randint(7, (BARS, 5)),
            future_stamps=torch.randint(7, (HORIZON, 5)),
            events=None,
            seed=0,
        ),
    )


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


@dataclass
class Recomputing:
    """Upstream's algorithm: at each step every path, in one batch, reads its whole window again."""

    bench: Bench
    paths: int

    @torch.inference_mode()
    def __post_init__(self) -> None:
        self.stamps = torch.cat((self.bench.history.stamps, self.bench.history.future_stamps))
        self.draws = noise([0], self.paths, HORIZON)[0]
        self.tokens = self.encode()

    def encode(self) -> Tensor:
        s1, s2 = self.bench.tokenizer.encode(self.bench.history.x.expand(self.paths, -1, -1))
        return torch.stack((s1, s2), dim=-1)

    def step(self, tokens: Tensor, step: int) -> Tensor:
        """Tokens (N, T + step, 2) and one more."""
        model, (s1_ids, s2_ids) = self.bench.model, tokens.unbind(-1)
        h = model.hidden(s1_ids, s2_ids, self.stamps[: tokens.shape[1]].expand(self.paths, -1, -1))
        s1 = sample(model.s1_logits(h[:, -1]), self.draws[:, step, 0], Sampling())
        last = torch.full((self.paths, 1), tokens.shape[1] - 1)
        s2 = sample(model.s2_logits(h, s1[:, None], last)[:, 0], self.draws[:, step, 1], Sampling())
        return torch.cat((tokens, torch.stack((s1, s2), dim=-1)[:, None]), dim=1)

    @torch.inference_mode()
    def whole(self) -> None:
        tokens = self.encode()
        for step in range(HORIZON):
            tokens = self.step(tokens, step)
        self.bench.tokenizer.decode(*tokens.unbind(-1))

    @torch.inference_mode()
    def sampled(self) -> float:
        """Seconds of the whole, from a few of its steps; they grow linearly with the window."""
        steps = [
            seconds(partial(self.step, torch.zeros(self.paths, BARS + step, 2, dtype=torch.int64), step))
            for step in SAMPLED_STEPS
        ]
        ends = torch.zeros(2, self.paths, BARS + HORIZON, dtype=torch.int64)
        return (
            seconds(self.encode)
            + HORIZON * sum(steps) / len(steps)
            + seconds(lambda: self.bench.tokenizer.decode(*ends))
        )


def test_a_recomputing_forecast_costs_what_its_sampled_steps_say(bench: Bench) -> None:
    recomputing = Recomputing(bench, paths=1)
    sampled = min(recomputing.sampled() for _ in range(3))
    whole = seconds(recomputing.whole)
    print(f"\nrecomputing, 1 path: {sampled:.1f} s by its first and last step, {whole:.1f} s measured")  # noqa: T201
    assert abs(sampled / whole - 1) < 0.15


@pytest.mark.parametrize(("paths", "repeats", "wanted"), [(1, 2, 10), (5, 2, 40), (30, 1, 150)])
def test_a_forecast_costs_a_fraction_of_recomputing_it(
    bench: Bench, paths: int, repeats: int, wanted: int
) -> None:
    recomputing = Recomputing(bench, paths)
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
