"""What a validation counts, and in which mode it looks at the model."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.validation import mean_weighted_loss, score
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import LoraRecord


@pytest.fixture(scope="module")
def dataset(splits: Splits) -> EventConditionedDataset:
    """Ten windows, whose event targets count three times those of other days."""
    return splits.dataset("train", oversample=3.0, at_most=10)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Any:
    """An adapter to which events and dropout matter."""
    lora = LoraRecord(rank=2, alpha=4, dropout=0.5)
    adapted = adapt(bundle.model, lora=lora, taps="both", seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in trainable(adapted):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("micro_batch", [3, 10])
def test_the_fixed_loss_is_the_weighted_mean_over_all_targets(
    dataset: EventConditionedDataset, model: Any, micro_batch: int
) -> None:
    accelerator = Accelerator(cpu=True)
    records = score(model, dataset, accelerator, micro_batch=4)
    weights = 1 + 2 * records["is_event"]
    assert 0 < records["is_event"].mean() < 1
    expected = (weights * records["total"]).sum() / weights.sum()
    found = mean_weighted_loss(model, dataset, accelerator, micro_batch=micro_batch)
    assert found == pytest.approx(expected, rel=1e-5)


def test_no_dropout_is_on_in_a_validation(dataset: EventConditionedDataset, model: Any) -> None:
    def looks() -> tuple[float, float]:
        training_mode(model)
        total = score(model, dataset, accelerator, micro_batch=10)["total"].sum()
        training_mode(model)
        return total, mean_weighted_loss(model, dataset, accelerator, micro_batch=10)

    accelerator = Accelerator(cpu=True)
    assert looks() == looks()
    assert not any(module.training for module in model.modules())


def test_events_are_shown_unless_they_are_kept_back(dataset: EventConditionedDataset, model: Any) -> None:
    accelerator = Accelerator(cpu=True)
    shown = score(model, dataset, accelerator, micro_batch=10)
    again, kept_back = (
        score(model, dataset, accelerator, micro_batch=10, events=events) for events in (True, False)
    )
    assert shown.equals(again)
    assert (shown["total"] != kept_back["total"]).all()


def test_rows_are_those_of_the_windows_in_their_order_and_each_window_is_counted(
    dataset: EventConditionedDataset, model: Any
) -> None:
    done: list[int] = []
    records = score(model, dataset, Accelerator(cpu=True), micro_batch=4, advance=done.append)
    assert done == [4, 4, 2]
    bars = [
        (dataset.series[window.series], bar)
        for window in dataset.windows
        for bar in range(window.first_target, window.stop)
    ]
    assert records["symbol"].tolist() == [one.symbol for one, _ in bars]
    assert (records["date"].to_numpy() == np.array([one.dates[bar] for one, bar in bars])).all()
    assert records["is_event"].tolist() == [one.is_event[bar] for one, bar in bars]
    for number, name in enumerate(dataset.series[0].taxonomy.families):
        assert records[name].tolist() == [one.families[bar, number] for one, bar in bars]
    assert records.index.tolist() == list(range(len(bars)))
