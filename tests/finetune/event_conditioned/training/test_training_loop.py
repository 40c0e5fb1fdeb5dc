"""The loop: micro-batches, repeatability, what a step counts, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import collate
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training.checkpoints import Checkpoints
from kronos_service.finetune.event_conditioned.training.loop import (
    Data,
    Loop,
    TrainingError,
    _require_finite,
    epoch_line,
    peak_bytes,
    train,
)
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.finetune.event_conditioned.training.schedule import cosine_with_warmup
from kronos_service.finetune.event_conditioned.training.tracking import MetricLog
from kronos_service.finetune.event_conditioned.training.validation import score, summarize
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import LoraRecord
from kronos_shared.progress import Progress

CONFIG = EventLoraConfig(
    epochs=2, batch_size=16, warmup_steps=5, rank=2, lora_dropout=0.05, learning_rate=1e-3
)


def run(
    splits: Splits, bundle: Bundle, config: EventLoraConfig, directory: Path
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Trained tensors, and the figures of every epoch."""
    model = adapt(bundle.model, lora=config.lora(), taps="both", seed=config.seed)
    data = Data(
        train=splits.dataset("train", oversample=3.0, blank=0.15, seed=config.seed),
        fixed=splits.dataset("train", oversample=3.0, at_most=8),
        val=splits.dataset("val"),
    )
    with MetricLog(directory) as log:
        trained = train(
            model,
            data,
            config=config,
            micro_batch=config.micro_batch or config.batch_size,
            accelerator=Accelerator(cpu=True),
            log=log,
            checkpoints=Checkpoints(directory / "checkpoints", every=50),
        )
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    history: list[dict[str, float]] = [line for line in lines if "train/fixed_loss" in line]
    assert trained.loop.fixed_losses == [figures["train/fixed_loss"] for figures in history]
    return {name: p.detach().clone() for name, p in trainable(model)}, history


def test_training_lowers_the_loss_and_a_repeated_run_gives_the_same_bits(
    splits: Splits, bundle: Bundle, tmp_path: Path
) -> None:
    first, history = run(splits, bundle, CONFIG, tmp_path / "a")
    again, repeated = run(splits, bundle, CONFIG, tmp_path / "b")
    fixed = [figures["train/fixed_loss"] for figures in history]
    assert fixed[0] > fixed[1] > fixed[2]
    assert history == repeated
    assert all(torch.equal(first[name], again[name]) for name in first)
    other, _ = run(splits, bundle, CONFIG.replace(seed=1), tmp_path / "c")
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_without_dropout_the_micro_batch_does_not_matter(
    splits: Splits, bundle: Bundle, tmp_path: Path, micro_batch: int
) -> None:
    whole = CONFIG.replace(lora_dropout=0.0, epochs=1)
    expected, history = run(splits, bundle, whole, tmp_path / "a")
    got, other = run(splits, bundle, whole.replace(micro_batch=micro_batch), tmp_path / "b")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=2e-4, rtol=1e-3)
    assert other[-1]["val/all_total"] == pytest.approx(history[-1]["val/all_total"], abs=1e-4)


@pytest.mark.parametrize("micro_batch", [1, 3, 16])
def test_an_event_targets_gradient_counts_three_times_a_quiet_ones_in_any_batch(
    splits: Splits, micro_batch: int
) -> None:
    """The derivative of the batch's loss with respect to each target's cross-entropy is its weight."""
    dataset = splits.dataset("train", oversample=3.0)
    weights: dict[bool, set[float]] = {True: set(), False: set()}
    for begin in range(0, 16, micro_batch):
        batch = collate([dataset[i] for i in range(begin, min(begin + micro_batch, 16))])
        losses = torch.zeros_like(batch["weight"], requires_grad=True)
        (gradient,) = torch.autograd.grad((losses * batch["weight"]).sum(), losses)
        for weight, event in zip(
            gradient.flatten().tolist(), batch["is_event"].flatten().tolist(), strict=True
        ):
            if weight > 0:
                weights[event].add(weight)
    (on_event,), (quiet,) = weights[True], weights[False]
    assert on_event / quiet == pytest.approx(3.0, rel=1e-6)


def test_the_loss_of_a_batch_is_the_weighted_sum_of_both_cross_entropies(
    splits: Splits, bundle: Bundle
) -> None:
    dataset = splits.dataset("val", oversample=3.0)
    batch = collate([dataset[i] for i in range(len(dataset))])
    accelerator = Accelerator(cpu=True)
    model = adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    got = weighted_loss(model, batch, accelerator).item()
    records = score(bundle.model, dataset, accelerator, micro_batch=4, events=False)
    weight = torch.where(torch.tensor(records["is_event"].to_numpy()), 3.0, 1.0)
    expected = (records["total"].to_numpy() * (weight / weight.mean()).numpy()).sum()
    assert got == pytest.approx(expected, rel=1e-5)


def test_validation_means_weigh_targets_not_batches(splits: Splits, bundle: Bundle) -> None:
    dataset, accelerator = splits.dataset("val"), Accelerator(cpu=True)
    one, many = (
        summarize(score(bundle.model, dataset, accelerator, micro_batch=size, events=False))
        for size in (1, 64)
    )
    assert one["all"]["targets"] == dataset.n_targets
    assert one["event"]["targets"] == dataset.n_event_targets
    for group in one:
        assert one[group]["total"] == pytest.approx(many[group]["total"], abs=1e-5)
        assert one[group]["total"] == pytest.approx(one[group]["s1"] + one[group]["s2"])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_batch(
    splits: Splits, bundle: Bundle, tmp_path: Path
) -> None:
    broken = replace(splits, series=[replace(one, events=one.events.copy()) for one in splits.series])
    broken.series[0].events[:] = float("nan")
    with pytest.raises(TrainingError, match=r"step \d+: loss nan.*.*SPY.* from 2021-.* to 202"):
        run(broken, bundle, CONFIG, tmp_path)


def test_a_gradient_that_is_not_finite_stops_the_run_although_the_loss_is(splits: Splits) -> None:
    dataset = splits.dataset("train")
    first, last = dataset.windows[0], dataset.windows[len(dataset) - 1]
    dates = [dataset.series[one.series].dates for one in (first, last)]
    span = f"from {dates[0][first.first_target]} to {dates[1][last.stop - 1]}"
    symbols = [dataset.series[one.series].symbol for one in (first, last)]
    _require_finite(1.0, 2.0, 6, dataset, [0, len(dataset) - 1])
    for loss, norm in ((1.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(TrainingError, match=rf"step 7: .* a batch of {', '.join(symbols)} {span}: lower"):
            _require_finite(loss, norm, 6, dataset, [0, len(dataset) - 1])


class Recorded(Progress):
    """What a training tells of itself."""

    name = "the training"

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.advanced: list[tuple[int, str]] = []
        self.said: list[str] = []

    def begin(self, done: int) -> None:
        self.begun.append(done)

    def advance(self, count: int, figures: str = "") -> None:
        self.advanced.append((count, figures))

    def say(self, line: str) -> None:
        self.said.append(line)


def test_a_training_tells_of_every_step_and_epoch_what_it_logs(
    splits: Splits, bundle: Bundle, tmp_path: Path
) -> None:
    config = CONFIG.replace(epochs=1, batch_size=7)
    data = splits.dataset("train", at_most=10)
    told, checkpoints = Recorded(), Checkpoints(tmp_path / "checkpoints", every=1)
    for state in (None, 1):
        model = adapt(bundle.model, lora=config.lora(), taps="both", seed=0)
        with MetricLog(tmp_path / str(state), tracker="none") as log:
            train(
                model,
                Data(train=data, fixed=data, val=splits.dataset("val", at_most=3)),
                config=config,
                micro_batch=4,
                accelerator=Accelerator(cpu=True),
                log=log,
                checkpoints=checkpoints,
                state=checkpoints.newest(told.say) if state else None,
                progress=told,
            )
    assert told.begun == [0, 10]  # the second time it resumes at the end
    lines = [json.loads(line) for line in (tmp_path / "None" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "train/loss" in line]
    assert told.advanced == [
        (count, f"loss {line['train/loss']:.4f}") for count, line in zip((7, 3), steps, strict=True)
    ]
    epochs = [line for line in lines if "train/fixed_loss" in line]
    assert told.said[:2] == [
        f"the training {epoch_line(number, 1, line)}" for number, line in enumerate(epochs)
    ]
    assert [line["epoch"] for line in lines] == [0, 1, 1, 1]


def test_an_epoch_is_told_in_one_line_of_the_figures_that_it_has() -> None:
    figures = {
        "train/fixed_loss": 8.12345,
        "val/event_total": 7.5,
        "val/quiet_total": 6.25,
        "val/all_s1": 1.0,
    }
    assert epoch_line(3, 12, figures) == "epoch  3/12  train 8.1235  val event 7.5000  val non-event 6.2500"
    assert epoch_line(12, 12, {"train/fixed_loss": 8.0}) == "epoch 12/12  train 8.0000"


@pytest.mark.parametrize("micro_batch", [2, 5])
def test_a_steps_loss_is_the_weighted_mean_of_its_targets(
    splits: Splits, bundle: Bundle, micro_batch: int
) -> None:
    config, accelerator = CONFIG.replace(lora_dropout=0.0), Accelerator(cpu=True)
    data = splits.dataset("train", oversample=3.0)
    model = adapt(bundle.model, lora=config.lora(), taps="both", seed=0)
    windows = [3, 14, 15, 92, 65]
    batch = collate([data.inputs(number) for number in windows])
    expected = weighted_loss(model, batch, accelerator).item() / float(batch["weight"].sum())
    loop = Loop(model, Data(train=data, fixed=data, val=None), config, micro_batch, accelerator)
    assert loop.step(0, windows)["train/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_peak_is_that_of_the_gpu_where_there_is_one(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5)
    assert peak_bytes() == (5 if has_gpu else 0)


def test_a_warm_up_as_long_as_the_training_ends_at_the_peak() -> None:
    assert cosine_with_warmup(10, warmup=10, total=10) == 1.0
    assert cosine_with_warmup(9, warmup=10, total=10) == pytest.approx(10 / 11)


def test_a_training_of_one_step_after_its_warm_up_ends_at_zero() -> None:
    assert [cosine_with_warmup(step, warmup=1, total=2) for step in (1, 2)] == pytest.approx([1.0, 0.0])


def test_the_rate_warms_up_linearly_then_follows_a_half_cosine_to_zero() -> None:
    rates = [cosine_with_warmup(step, warmup=10, total=110) for step in range(111)]
    assert rates[:10] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
