"""Samples, weights and batches."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.samples.dataset import (
    EventConditionedDataset,
    collate,
    uncertain_channels,
)
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.samples.tokens import normalized_window
from kronos_service.model.factory import Bundle


def scored_targets(dataset: EventConditionedDataset) -> list[tuple[str, str]]:
    return [
        (dataset.series[dataset.windows[sample["index"]].series].symbol, str(date))
        for sample in (dataset[i] for i in range(len(dataset)))
        for date in sample["target_dates"][sample["loss_weight"].numpy() > 0]
    ]


def test_every_target_of_a_split_is_scored_exactly_once(splits: Splits) -> None:
    for name, split in splits.splits.items():
        dataset = splits.dataset(name)
        counts = Counter(scored_targets(dataset))
        expected = {
            (one.symbol, str(date))
            for one in splits.series
            for date in one.dates
            if split.first <= date <= split.last
        }
        assert set(counts) == expected
        assert set(counts.values()) == {1}
        assert len(counts) == dataset.n_targets


def test_no_target_is_in_two_splits(splits: Splits) -> None:
    targets = [scored_targets(splits.dataset(name)) for name in splits.splits]
    assert len(set().union(*targets)) == sum(map(len, targets))


def test_shapes_and_types_are_those_of_the_sample(splits: Splits) -> None:
    sample = splits.dataset("train")[5]
    t = len(sample["s1_ids"])
    expected = {
        "ohlcv": ((t, 6), torch.float32),
        "stamps": ((t, 5), torch.int64),
        "events": ((t, 20), torch.float32),
        "s1_ids": ((t,), torch.int64),
        "s2_targets": ((t,), torch.int64),
        "loss_weight": ((t,), torch.float32),
        "is_event": ((t,), torch.bool),
    }
    assert {key: (tuple(sample[key].shape), sample[key].dtype) for key in expected} == expected  # type: ignore[literal-required]
    assert len(sample["target_dates"]) == t


def test_targets_are_the_tokens_one_bar_later(splits: Splits, bundle: Bundle) -> None:
    dataset = splits.dataset("val")
    sample, window = dataset[2], dataset.windows[2]
    x = torch.from_numpy(normalized_window(dataset.series, window))
    s1, s2 = bundle.tokenizer.encode(x[None])
    assert torch.equal(sample["s1_ids"], s1[0, :-1])
    assert torch.equal(sample["s1_targets"], s1[0, 1:])
    assert torch.equal(sample["s2_targets"], s2[0, 1:])
    assert torch.equal(sample["ohlcv"], x[:-1])
    longest = max(one.stop - one.start for one in dataset.windows)
    assert {ids.shape for ids in dataset.tokens.values()} == {(len(dataset.windows), longest)}


def test_a_single_target_weighs_one(splits: Splits) -> None:
    first = splits.splits["val"].windows[0]
    alone = replace(splits.splits["val"], windows=[replace(first, stop=first.first_target + 1)])
    dataset = replace(splits, splits={"val": alone}).dataset("val", oversample=3.0)
    assert dataset.n_targets == 1
    assert dataset[0]["loss_weight"].sum().item() == 1.0


@pytest.mark.parametrize("oversample", [1.0, 3.0, 5.0])
def test_an_event_target_counts_exactly_oversample_times_a_quiet_one(
    splits: Splits, oversample: float
) -> None:
    dataset = splits.dataset("train", oversample=oversample)
    weight = torch.cat([dataset[i]["loss_weight"] for i in range(len(dataset))])
    event = torch.cat([dataset[i]["is_event"] for i in range(len(dataset))])[weight > 0]
    weight = weight[weight > 0]
    assert event.any()
    assert not event.all()
    (on_event,), (quiet,) = set(weight[event].tolist()), set(weight[~event].tolist())
    assert on_event / quiet == pytest.approx(oversample, rel=1e-6)
    assert weight.double().mean().item() == pytest.approx(1.0, rel=1e-5)


def test_blanking_hides_surprise_and_leaders_from_a_scored_bar_on(splits: Splits) -> None:
    whole, blanked = splits.dataset("train"), splits.dataset("train", blank=1.0)
    for i in range(len(whole)):
        window = whole.windows[i]
        before, after = whole[i]["events"], blanked[i]["events"]
        changed = (before != after).nonzero()
        if len(changed):
            start = int(changed[0, 0])
            assert start >= window.first_target - window.start - 1
            assert set(changed[:, 1].tolist()) <= set(uncertain_channels(DEFAULT_TAXONOMY))
        assert not after[-1, list(uncertain_channels(DEFAULT_TAXONOMY))].any()


def test_blanking_depends_on_seed_epoch_and_window_alone(splits: Splits) -> None:
    first, second = (splits.dataset("train", blank=0.5, seed=1) for _ in range(2))
    drawn = [first[i]["events"] for i in range(len(first))]
    order = np.random.default_rng(0).permutation(len(second))
    assert all(torch.equal(drawn[i], second[int(i)]["events"]) for i in order)
    second.set_epoch(1)
    assert not all(torch.equal(drawn[i], second[i]["events"]) for i in range(len(second)))


def test_blanking_happens_with_the_probability_given(splits: Splits) -> None:
    dataset, whole = splits.dataset("train", blank=0.15), splits.dataset("train")
    hits = []
    for epoch in range(40):
        dataset.set_epoch(epoch)
        hits += [not torch.equal(dataset[i]["events"], whole[i]["events"]) for i in range(0, len(dataset), 4)]
    assert 0.10 < np.mean(hits) < 0.18


def test_a_batch_keeps_every_scored_target_and_pads_with_weight_zero(splits: Splits) -> None:
    dataset = splits.dataset("train", oversample=3.0)
    samples = [dataset[i] for i in (0, 1, len(dataset) - 1, 7)]
    batch = collate(samples)
    for row, sample in enumerate(samples):
        kept = batch["weight"][row] > 0
        at = batch["positions"][row][kept]
        expected = sample["loss_weight"] > 0
        assert torch.equal(at, expected.nonzero()[:, 0])
        assert torch.equal(batch["weight"][row][kept], sample["loss_weight"][expected])
        assert torch.equal(batch["s2_targets"][row][kept], sample["s2_targets"][expected])
        assert torch.equal(batch["is_event"][row][kept], sample["is_event"][expected])
    total = sum(float(sample["loss_weight"].sum()) for sample in samples)
    assert batch["weight"].sum().item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("on_event", [True, False])
def test_a_bar_after_a_gap_is_neither_scored_nor_counted(splits: Splits, on_event: bool) -> None:
    whole = splits.dataset("train", oversample=3.0)
    window = whole.windows[3]
    one = whole.series[window.series]
    inside = [t for t in range(window.first_target + 1, window.stop) if one.is_event[t] == on_event]
    if not inside:  # no event day in this window: make one
        inside = [window.stop - 1]
        one = replace(one, is_event=one.is_event | (np.arange(len(one.dates)) == inside[0]))
    follows = one.follows.copy()
    follows[inside[0]] = False
    series = [one if number == window.series else s for number, s in enumerate(splits.series)]
    gap = [replace(s, follows=follows) if s is one else s for s in series]
    before, after = (replace(splits, series=s).dataset("train", oversample=3.0) for s in (series, gap))
    assert after.n_targets == before.n_targets - 1
    assert after.n_event_targets == before.n_event_targets - on_event
    weight = after[3]["loss_weight"].numpy()
    unscored = np.flatnonzero((before[3]["loss_weight"].numpy() > 0) & ~(weight > 0))
    assert unscored.tolist() == [inside[0] - window.start - 1]
    assert weight[unscored] == 0
    total = sum(float(after[i]["loss_weight"].double().sum()) for i in range(len(after)))
    assert total == pytest.approx(after.n_targets, rel=1e-6)
    batch = collate([after[3]])
    assert int((batch["weight"] > 0).sum()) == int((weight > 0).sum())
    assert float(batch["weight"].sum()) == pytest.approx(weight.sum())
