"""What a training step costs beside its own matrix products and beside a naive step, within one run."""

import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.nn import functional
from training_step import (
    Product,
    adapted,
    flops,
    lora_step,
    model_flops_utilisation,
    products,
    random_batch,
)

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.training.step_cost import step_cost
from kronos_service.finetune.precision import storage
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate remembers the precision of the process's first Accelerator."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def product_step(shapes: Mapping[Product, int], dtype: torch.dtype) -> Callable[[], None]:
    """Do nothing but these products, each as often as a step does."""
    pairs = [
        (torch.randn(b, m, k, dtype=dtype), torch.randn(b, k, n, dtype=dtype), times)
        for (b, m, k, n), times in shapes.items()
    ]

    def step() -> None:
        for left, right, times in pairs:
            for _ in range(times):
                torch.mm(left[0], right[0]) if len(left) == 1 else torch.bmm(left, right)

    return step


def naive_step(tokenizer: KronosTokenizer, model: Kronos, bars: Tensor) -> None:
    """The tokenizer in the loop, logits on every position, and a gradient for every weight."""
    with torch.no_grad():
        s1, s2 = tokenizer.encode(bars)
    stamps = torch.ones(*s1.shape, 5, dtype=torch.int64)
    s1_logits, s2_logits = model(s1, s2, stamps, s1_targets=s1.roll(-1, 1))
    loss = functional.cross_entropy(s1_logits.flatten(0, 1), s1.roll(-1, 1).flatten())
    loss = loss + functional.cross_entropy(s2_logits.flatten(0, 1), s2.roll(-1, 1).flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()


def fastest(steps: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """The least processor time of each step in seconds, over rounds that take every step once.

    On one thread, time that other processes take does not count; what they do to the caches only adds.
    """
    for step in steps.values():
        step()
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            begun = time.thread_time()
            step()
            best[name] = min(best[name], time.thread_time() - begun)
    return best


def test_the_products_are_those_that_a_step_computes() -> None:
    """Against torch's own count over a step, by which `event-lora --plan` estimates time."""
    shape = {**PRESETS["nano"].predictor, "n_layers": 2, "d_model": 32, "n_heads": 2, "ff_dim": 48}
    config = EventLoraConfig(targets_per_window=4)
    counted = step_cost(shape, config, bars=16, precision="no").window_flops
    assert counted == flops(products(Kronos(**shape), windows=1, bars=16, scored=4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("preset", "windows", "limit"), [("base", 1, 1.3), ("mini", 8, 1.8)])
def test_a_step_costs_little_more_than_its_own_matrix_products(
    preset: str, windows: int, limit: float, record_property: Callable[[str, object], None]
) -> None:
    base, model = adapted(preset)
    batch = random_batch(base, windows=windows, bars=512, scored=32)
    shapes = products(base, windows=windows, bars=512, scored=32)
    exact, rounded = Accelerator(cpu=True), torch.bfloat16
    tokenizer = KronosTokenizer(**PRESETS[preset].tokenizer).eval()
    naive, bars = Kronos(**PRESETS[preset].predictor).eval(), torch.randn(windows, 512, 6)

    def bf16_step() -> None:
        with torch.autocast("cpu", dtype=rounded):
            lora_step(model, batch, exact)

    steps = {
        "LoRA": lambda: lora_step(model, batch, exact),
        "products": product_step(shapes, torch.float32),
        "naive": lambda: naive_step(tokenizer, naive, bars),
    }
    best = fastest(steps, repeats=6)
    with storage(model, "bf16"):
        best |= {
            f"bf16 {name}": seconds
            for name, seconds in fastest(
                {"LoRA": bf16_step, "products": product_step(shapes, rounded)}, repeats=6
            ).items()
        }
    tokens = windows * 512
    ratios = {
        "fp32 LoRA step / its products": best["LoRA"] / best["products"],
        "bf16 LoRA step / its products": best["bf16 LoRA"] / best["bf16 products"],
        "naive fp32 step / bf16 LoRA step": best["naive"] / best["bf16 LoRA"],
        "naive fp32 step / fp32 LoRA step": best["naive"] / best["LoRA"],
    }
    print(f"\n{preset}, {windows} x 512, P = 32, {flops(shapes) / 1e9:.0f} GFLOP")  # noqa: T201
    for name, seconds in best.items():
        print(f"  {name:14} {seconds * 1e3:8.0f} ms {tokens / seconds:8.0f} bars/s")  # noqa: T201
    for name, ratio in ratios.items():
        print(f"  {name:34} {ratio:.2f}")  # noqa: T201
        record_property(name, round(ratio, 3))
    assert ratios["fp32 LoRA step / its products"] <= limit
    assert ratios["naive fp32 step / bf16 LoRA step"] >= 3


@pytest.mark.slow
def test_the_cost_of_a_target_falls_as_more_of_a_window_are_scored(
    record_property: Callable[[str, object], None],
) -> None:
    """A step of T bars costs nearly the same whatever P is, so a target costs T / P bars."""
    base, model = adapted("mini")
    accelerator = Accelerator(cpu=True)
    batches = {p: random_batch(base, windows=4, bars=512, scored=p) for p in (8, 32, 128)}
    best = fastest(
        {str(p): lambda p=p: lora_step(model, batches[p], accelerator) for p in batches},  # type: ignore[misc]
        repeats=5,
    )
    per_target = {p: best[str(p)] / (4 * p) for p in batches}
    for p, seconds in per_target.items():
        relative = seconds / per_target[128]
        print(f"mini, T = 512, P = {p:3}: {seconds * 1e3:.3f} ms a target, {relative:.1f} x P = 128")  # noqa: T201
        record_property(f"ms_per_target_{p}", round(seconds * 1e3, 4))
    assert 3 < per_target[8] / per_target[32] < 4.5
    assert 2.5 < per_target[32] / per_target[128] < 4.5


def test_utilisation_is_one_where_the_products_take_all_of_the_peak() -> None:
    shapes = {(1, 2, 3, 4): 5, (6, 2, 3, 4): 1}
    assert flops(shapes) == 2 * 24 * 5 + 2 * 24 * 6
    assert model_flops_utilisation(shapes, seconds=2.0, peak=264.0) == 1.0
