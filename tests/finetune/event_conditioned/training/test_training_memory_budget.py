"""The size is found by measuring and changes no result; what cannot fit is refused by name."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import example, given
from hypothesis import strategies as st

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset, collate
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
from kronos_service.model.kronos import Kronos
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


@pytest.fixture
def uneven(splits: Splits) -> EventConditionedDataset:
    """Windows of 61, 73 and 66 bars, of a market with a channel more than the default one's."""
    data, one = splits.dataset("train"), splits.series[0]
    taxonomy = replace(one.taxonomy, families=(*one.taxonomy.families, "harvest"))
    events = np.zeros((len(one.dates), len(taxonomy.channels)), dtype=np.float32)
    windows = [
        replace(window, series=0, start=window.stop - bars, stop=window.stop)
        for window, bars in zip(data.windows, (61, 73, 66), strict=False)
    ]
    return EventConditionedDataset([replace(one, events=events, taxonomy=taxonomy)], windows, data.tokens)


@pytest.mark.parametrize(("batch_size", "settled"), [(1000, 4096 // 72), (20, 20)])
def test_a_cpu_holds_as_many_windows_as_suit_the_longest(
    uneven: EventConditionedDataset, bundle: Bundle, batch_size: int, settled: int
) -> None:
    config = EventLoraConfig(batch_size=batch_size)
    assert fit(config, uneven, bundle.model, Accelerator(cpu=True)).windows == settled


class Card(str):
    """A CPU that calls itself a GPU."""

    type = "cuda"


class OnCard(Accelerator):  # type: ignore[misc]
    """Works on that device, of which it knows whether gradients were taken."""

    taken = 0

    @property
    def device(self) -> Any:
        return Card("cpu")

    def backward(self, loss: torch.Tensor, **given: Any) -> None:
        super().backward(loss, **given)
        self.taken += 1


@dataclass
class Gauge:
    """What the allocator of a card counts, and what was computed on it meanwhile."""

    most: int = 100
    """Windows at once for which there is memory at all."""
    told: int = -1
    """Windows since the peak was last reset; -1 before."""
    cached: bool = True
    checkpointing: bool = False
    steps: list[tuple[int, int, bool]] = field(default_factory=list)
    """Windows, bars, and whether activations were recomputed, of each step."""

    def reset(self) -> None:
        assert not self.cached
        self.told = 0

    def free(self) -> None:
        self.cached = False

    def allocated(self) -> int:
        return linear_peak(self.told, self.checkpointing)


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gauge]:
    """Counts windows in `Kronos.forward`, which does its work as ever; the first accelerator is a new one."""
    found, forward = Gauge(), Kronos.forward

    def counted(self: Kronos, s1_ids: torch.Tensor, *given: Any, **named: Any) -> Any:
        frozen = next(module for name, module in self.named_modules() if name.endswith(".base_layer"))
        assert frozen.weight.dtype == torch.bfloat16  # as it is stored while training
        assert all(parameter.grad is None for parameter in self.parameters())
        assert any(one.training for one in self.modules() if isinstance(one, torch.nn.Dropout))
        if len(s1_ids) > found.most:
            raise torch.OutOfMemoryError
        found.told += len(s1_ids)
        found.checkpointing, found.cached = self.transformer.checkpointing, True
        found.steps.append((*s1_ids.shape, found.checkpointing))
        return forward(self, s1_ids, *given, **named)

    monkeypatch.setattr(Kronos, "forward", counted)
    monkeypatch.setattr(torch.cuda, "empty_cache", found.free)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", found.reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", found.allocated)
    AcceleratorState._reset_state(True)
    yield found
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize(
    ("settings", "processes", "windows", "again", "tried"),
    [
        ({"batch_size": 6, "vram_budget": 1.01}, 1, 2, False, [1, 2, 4]),
        ({"batch_size": 6, "vram_budget": 0.51}, 1, 2, True, [1, 1, 2, 4]),
        ({"batch_size": 5, "vram_budget": 9.0}, 2, 3, False, [1, 2, 3]),
        ({"batch_size": 6, "vram_budget": 9.0, "micro_batch": 3}, 1, 3, False, [3]),
    ],
)
def test_on_a_gpu_what_fits_is_measured_by_real_steps_of_the_longest_window(
    uneven: EventConditionedDataset,
    bundle: Bundle,
    gauge: Gauge,
    settings: dict[str, Any],
    processes: int,
    windows: int,
    again: bool,
    tried: list[int],
) -> None:
    config, base = EventLoraConfig(rank=2, **settings), copy.deepcopy(bundle.model)
    accelerator = OnCard(mixed_precision="bf16", cpu=True)
    accelerator.state.num_processes = processes
    found = fit(config, uneven, base, accelerator)
    adapted = adapt(base, lora=config.lora(), taps="both", seed=0, taxonomy=uneven.series[0].taxonomy)
    moments = 2 * sum(parameter.nbytes for _, parameter in trainable(adapted))
    peak = linear_peak(windows, again) + moments
    assert found == MicroBatch(windows=windows, checkpointing=again, peak_bytes=peak)
    assert base.transformer.checkpointing == again
    assert [step[0] for step in gauge.steps] == tried
    assert {step[1] for step in gauge.steps} == {72}
    assert gauge.steps[-1][2] == again
    assert accelerator.taken == len(tried)


@pytest.mark.parametrize(
    ("most", "budget", "needs"), [(0, 0.5, "more than this device has"), (9, 0.3, "0.4[45] GB")]
)
def test_what_a_step_needs_at_least_is_said_where_nothing_fits(
    uneven: EventConditionedDataset, bundle: Bundle, gauge: Gauge, most: int, budget: float, needs: str
) -> None:
    gauge.most = most
    accelerator = OnCard(mixed_precision="bf16", cpu=True)
    with pytest.raises(
        BudgetError, match=f"windows at once: 1; .* needs {needs}, and the budget is {budget}"
    ):
        fit(EventLoraConfig(rank=2, vram_budget=budget), uneven, copy.deepcopy(bundle.model), accelerator)


def test_a_size_for_which_there_is_no_memory_is_passed_over() -> None:
    found = largest_fit(lambda n, _: n if n < 8 else sys.maxsize, sizes=[1, 4, 8], budget=100)
    assert found == MicroBatch(windows=4, checkpointing=False, peak_bytes=4)
