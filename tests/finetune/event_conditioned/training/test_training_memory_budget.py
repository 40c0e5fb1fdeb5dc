"""The size is found by measuring and changes no result; what cannot fit is refused by name."""

import pytest
import torch
from accelerate import Accelerator
from hypothesis import example, given
from hypothesis import strategies as st

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import collate
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.event_conditioned.training.memory_budget import (
    CPU_TOKENS,
    GB,
    BudgetError,
    MicroBatch,
    fit,
    largest_fit,
    on_cpu,
    powers_of_two,
)
from kronos_service.finetune.event_conditioned.training.validation import score, summarize
from kronos_service.model.adapter.read import kronos_of
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import LoraRecord

SIZES = [1, 2, 4, 8, 32]


def linear_peak(windows: int, checkpointing: bool) -> int:
    """A device on which 400 MB are always held and a window adds 200 MB, or 40 MB recomputed."""
    return int((0.4 + windows * (0.04 if checkpointing else 0.2)) * GB)


@given(budget=st.integers(1, 8 * GB), most=st.integers(1, 64))
@example(budget=linear_peak(4, False), most=8)
def test_the_largest_size_that_fits_is_taken_and_recomputation_only_where_nothing_fits_without(
    budget: int, most: int
) -> None:
    sizes = powers_of_two(most)
    plain = [n for n in sizes if linear_peak(n, False) <= budget]
    again = [n for n in sizes if linear_peak(n, True) <= budget]
    if not again:
        with pytest.raises(BudgetError, match=r"needs 0.44 GB.* raise --vram-budget"):
            largest_fit(linear_peak, sizes=sizes, budget=budget)
        return
    windows = max(plain or again)
    assert largest_fit(linear_peak, sizes=sizes, budget=budget) == MicroBatch(
        windows=windows, checkpointing=not plain, peak_bytes=linear_peak(windows, not plain)
    )


def test_growth_stops_at_the_first_size_over_the_budget() -> None:
    tried: list[int] = []

    def peak(windows: int, checkpointing: bool) -> int:
        tried.append(windows)
        return linear_peak(windows, checkpointing)

    largest_fit(peak, sizes=powers_of_two(32), budget=GB)
    assert tried == [1, 2, 4]


@given(most=st.integers(1, 200))
def test_sizes_double_and_end_with_the_batch(most: int) -> None:
    sizes = powers_of_two(most)
    assert sizes[-1] == most
    assert sizes[:-1] == [2**n for n in range(len(sizes) - 1)]
    assert sizes == sorted(set(sizes))


@given(batch=st.integers(1, 64), bars=st.integers(1, 10_000))
def test_a_cpu_holds_at_least_a_window_and_at_most_a_batch(batch: int, bars: int) -> None:
    windows = on_cpu(batch, bars)
    assert 1 <= windows <= batch
    assert windows in (1, batch) or CPU_TOKENS - bars < windows * bars <= CPU_TOKENS


@pytest.mark.skipif(torch.cuda.is_available(), reason="about CPUs")
@pytest.mark.parametrize(("asked", "settled"), [(None, 16), (3, 3)])
def test_the_users_micro_batch_wins(splits: Splits, bundle: Bundle, asked: int | None, settled: int) -> None:
    config = EventLoraConfig(batch_size=16, micro_batch=asked)
    got = fit(config, splits.dataset("train"), bundle.model, Accelerator(cpu=True))
    assert got == MicroBatch(windows=settled, checkpointing=False, peak_bytes=None)


def gradients(
    splits: Splits, bundle: Bundle, micro_batch: int, *, dropout: float = 0.0, checkpointing: bool = False
) -> list[torch.Tensor]:
    """Of one batch of 32 windows, weighted by target, per target."""
    dataset, accelerator = splits.dataset("train", oversample=3.0), Accelerator(cpu=True)
    model = adapt(bundle.model, lora=LoraRecord(rank=4, alpha=8, dropout=dropout), taps="both", seed=0)
    kronos_of(model).transformer.checkpointing = checkpointing
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    training_mode(model)
    torch.manual_seed(0)
    for begin in range(0, 32, micro_batch):
        batch = collate([dataset[i] for i in range(begin, begin + micro_batch)])
        accelerator.backward(weighted_loss(model, batch, accelerator) / (32 * 8))
    found = [parameter.grad for _, parameter in trainable(model)]
    assert all(gradient is not None and gradient.abs().max() > 1e-4 for gradient in found)
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("micro_batch", SIZES[:-1])
def test_without_dropout_any_micro_batch_gives_the_same_gradients(
    splits: Splits, bundle: Bundle, micro_batch: int
) -> None:
    whole = gradients(splits, bundle, 32)
    for got, expected in zip(gradients(splits, bundle, micro_batch), whole, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_recomputed_activations_give_the_same_gradients_with_dropout_on(
    splits: Splits, bundle: Bundle
) -> None:
    kept = gradients(splits, bundle, 8, dropout=0.3)
    again = gradients(splits, bundle, 8, dropout=0.3, checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_any_micro_batch_gives_the_same_validation_loss(splits: Splits, bundle: Bundle) -> None:
    dataset, accelerator = splits.dataset("val"), Accelerator(cpu=True)
    model = adapt(bundle.model, lora=LoraRecord(rank=4, alpha=8, dropout=0.0), taps="both", seed=0)
    totals = [
        summarize(score(model, dataset, accelerator, micro_batch=size))["all"]["total"] for size in SIZES
    ]
    assert totals == pytest.approx([totals[0]] * len(SIZES), abs=1e-4)


def test_a_batch_smaller_than_asked_is_settled_whole(splits: Splits, bundle: Bundle) -> None:
    config = EventLoraConfig(batch_size=2)
    assert fit(config, splits.dataset("train"), bundle.model, Accelerator(cpu=True)).windows == 2
