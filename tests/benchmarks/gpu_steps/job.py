"""Real steps of the job at the base's shape on the sample, and what they say about the user's card."""

import tempfile
from pathlib import Path

import torch
from gpu_steps.lab import BANDWIDTHS, PEAKS, Lab

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.plan import duration, plan
from kronos_service.finetune.event_conditioned.training import memory_budget
from kronos_service.finetune.event_conditioned.training.loop import Data, Loop
from kronos_service.finetune.event_conditioned.training.lora import adapt
from kronos_service.finetune.event_conditioned.training.memory_budget import GB
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup, prepare_training
from kronos_service.finetune.precision import storage
from kronos_service.model.factory import save_base
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer

STEPS = 200
SYMBOLS, WINDOWS, EPOCHS, BATCH = 81, 32, 15, 32
"""The user's job: 81 symbols of some 1,000 targets, in windows of 32."""
PUBLISHED_SECONDS, PUBLISHED_WINDOWS, PUBLISHED_PEAK = 0.331, 50, 165e12
"""A step of a full fine-tune of the base at batch 50 x 512 in bf16 on a 4090, as published."""
BASE_PARAMETERS = 102.3e6


def run(lab: Lab) -> None:
    lab.cap_memory()
    with tempfile.TemporaryDirectory() as directory:
        config = EventLoraConfig(base_model=str(random_base(lab, Path(directory))), epochs=EPOCHS)
        found: list[TrainingSetup] = []
        begun = lab.seconds(
            lambda: found.append(prepare_training(config, config.split_dates(), Path(directory)))
        )
        lab.add("snapshot, events and tokens", begun, "s", "once, then cached")
        seconds, kernels = steps(lab, config, found[0])
        project(lab, seconds, kernels, plan(config).kept.window_flops * BATCH)


def random_base(lab: Lab, directory: Path) -> Path:
    """A base of the preset's shape with random weights: the released one is not on this machine."""
    torch.manual_seed(0)
    shape = PRESETS[lab.preset]
    tokenizer, model = KronosTokenizer(**shape.tokenizer), Kronos(**shape.predictor)
    save_base(directory / "base", tokenizer, model, context=lab.context, preset=lab.preset, extra={})
    return directory / "base"


def steps(lab: Lab, config: EventLoraConfig, setup: TrainingSetup) -> tuple[float, float]:
    """Do real steps, data and logging of figures included; record and return the seconds of one, and those
    that its kernels take.
    """
    train = setup.splits.dataset("train", oversample=config.event_weight, blank=config.blank_probability)
    found = memory_budget.fit(config, train, setup.bundle.model, setup.accelerator)
    lab.add("micro-batch that the run chooses", found.windows, "windows")
    lab.forget_memory()  # a micro-batch that did not fit is no part of the steps
    model = adapt(setup.bundle.model, lora=config.lora(), taps=config.taps, seed=0)
    data = Data(train=train, fixed=train, val=None)
    number = 5 if lab.dry_run else STEPS
    losses = []
    with storage(model, setup.accelerator.mixed_precision):
        loop = Loop(model, data, config, found.windows, setup.accelerator)
        loop.step(0, loop.schedule.batch(0))

        def some() -> None:
            for step in range(1, number + 1):
                losses.append(loop.step(step, loop.schedule.batch(step))["train/loss"])

        seconds = lab.seconds(some) / number
        kernels = lab.kernel_seconds(lambda: loop.step(number + 1, loop.schedule.batch(number + 1)))
    lab.add(f"{number} steps, each", seconds, "s", f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    lab.add("kernels of a step", kernels, "s", "what the device is busy with; else it waits for the CPU")
    lab.add("most allocated", lab.memory()[0] / GB, "GB", "allowed 6")
    return seconds, kernels


def project(lab: Lab, seconds: float, kernels: float, flops: int) -> None:
    """Record what the user's job takes here, and on an RTX 4060 by its arithmetic and by its memory."""
    number = EPOCHS * SYMBOLS * WINDOWS / BATCH
    lab.add("FLOPs of a step", flops / 1e12, "TFLOP", "its own products")
    lab.add("15 epochs x 81 symbols here", duration(number * seconds), "", f"{number:.0f} steps")
    for what, table, unit in (("arithmetic", PEAKS, 1e12), ("memory", BANDWIDTHS, 1e9)):
        here, there = lab.peak(table), table["4060"]
        if here is not None:
            slower = kernels * here / there
            about = f"{slower:.2f} s a step, were its kernels bound by {what}: {here / unit:,.0f} against "
            lab.add(
                f"on an RTX 4060 by its {what}", duration(number * slower), "", f"{about}{there / unit:,.0f}"
            )
    full = 6 * BASE_PARAMETERS * PUBLISHED_WINDOWS * 512 / PUBLISHED_SECONDS
    at_that = flops / (full / PUBLISHED_PEAK * PEAKS["4060"])
    lab.add(
        "on an RTX 4060 at the published utilisation",
        duration(number * at_that),
        "",
        f"{at_that:.2f} s a step; 331 ms for 50 x 512 on a 4090 are {full / PUBLISHED_PEAK:.0%} of its peak",
    )
