"""The trainings of one run: adapter, control (channels zeroed) and placebo (rows permuted by date).

Each has a directory: metrics.jsonl and tensorboard/ from its start on, checkpoints/ until it has ended, and
`trained/` after that:

    weights.safetensors   model/<name>: trained tensors
    val_losses.parquet    validation losses per target
    meters.json           its running figures
    sha256.json           the hashes of the three
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from peft import PeftModel
from safetensors.torch import load, save
from torch import Tensor

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.series import Conditioning
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.finetune.event_conditioned.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    LoopState,
    TrainingState,
    load_trained,
    read_verified,
    write_verified,
)
from kronos_service.finetune.event_conditioned.training.distributed import on_main, process_number
from kronos_service.finetune.event_conditioned.training.loop import Data, Trained, train
from kronos_service.finetune.event_conditioned.training.lora import Part, adapt, trainable
from kronos_service.finetune.event_conditioned.training.signals import Stop
from kronos_service.finetune.event_conditioned.training.tracking import Log, MetricLog, NoLog
from kronos_service.finetune.precision import storage
from kronos_service.model.factory import Bundle
from kronos_shared.progress import console, follow

FIXED_SUBSET = 64
"""Train windows whose loss in eval mode is followed from epoch to epoch."""

WEIGHTS, RECORDS, LOOP_STATE = "weights.safetensors", "val_losses.parquet", "meters.json"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one training shows its model, and which part of the adapter it leaves out."""

    name: str
    conditioning: Conditioning = "real"
    without: Part | None = None


ADAPTER = Variant(name="adapter")
CONTROL = Variant(name="control", conditioning="zeroed")
PLACEBO = Variant(name="placebo", conditioning="permuted")


@dataclass(frozen=True, kw_only=True)
class TrainedVariant:
    """A trained variant, its losses and its cost."""

    model: PeftModel
    fixed_losses: list[float]
    """Loss on the fixed train subset: untrained, then after each epoch."""
    records: pd.DataFrame
    """Validation losses per target, as `validation.score` gives them."""
    seconds: float
    """Time spent on training, over all its starts."""
    peak_bytes: int | None
    """Most GPU memory allocated at once; None on a CPU."""


def train_variants(
    config: EventLoraConfig,
    splits: Splits,
    bundle: Bundle,
    accelerator: Accelerator,
    run_dir: Path,
    *,
    micro_batch: int,
    tracker: str = "tensorboard",
    stop: Stop | None = None,
) -> dict[str, TrainedVariant]:
    """Train the adapter, and the control and the placebo where they are asked for; keys are their names."""
    asked = {ADAPTER: True, CONTROL: config.control, PLACEBO: config.placebo}
    variants = [variant for variant, wanted in asked.items() if wanted]
    trained = {}
    for number, variant in enumerate(variants, start=1):
        console.print(f"training {number} of {len(variants)}: {variant.name}")
        trained[variant.name] = train_variant(
            variant,
            config,
            splits,
            bundle,
            accelerator,
            run_dir if variant == ADAPTER else run_dir / variant.name,
            micro_batch=micro_batch,
            tracker=tracker,
            stop=stop,
        )
    return trained


def train_variant(
    variant: Variant,
    config: EventLoraConfig,
    splits: Splits,
    bundle: Bundle,
    accelerator: Accelerator,
    directory: Path,
    *,
    micro_batch: int,
    tracker: str = "tensorboard",
    stop: Stop | None = None,
) -> TrainedVariant:
    """Train one variant with the settings of `config`, and score it on the validation split if there is one.

    `directory` holds all that a resume needs: a call with the same settings resumes from the newest
    checkpoint there, or reads the outcome of a training that has ended.

    Raises:
        Stopped: `stop` was asked for; a checkpoint is written.
        KronosError: as `train` does.
    """
    model = adapt(
        bundle.model,
        lora=config.lora(),
        taps=config.taps,
        start=config.event_start,
        taxonomy=bundle.taxonomy,
        seed=config.seed,
        without=variant.without,
    )
    ended = on_main(lambda: _read_trained(directory / "trained"))
    if ended:
        weights, trained = ended
        load_trained(model, weights)
        return _trained_variant(model, trained)
    data = _data(variant, config, splits)
    checkpoints = Checkpoints(directory / "checkpoints", every=config.checkpoint_every)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with (
        storage(model, accelerator.mixed_precision),
        follow(variant.name, unit="windows", total=len(data.train), epochs=config.epochs) as progress,
    ):
        state = on_main(lambda: checkpoints.newest(progress.say))
        with _log(directory, tracker, state) as log:
            trained = train(
                model,
                data,
                config=config,
                micro_batch=micro_batch,
                accelerator=accelerator,
                log=log,
                checkpoints=checkpoints,
                state=state,
                progress=progress,
                stop=stop,
            )
    on_main(lambda: _write_trained(directory / "trained", model, trained))
    on_main(checkpoints.clear)
    return _trained_variant(model, trained)


def _data(variant: Variant, config: EventLoraConfig, splits: Splits) -> Data:
    conditioned = splits.conditioned(variant.conditioning, config.seed)
    oversample, seed = config.event_weight, config.seed
    return Data(
        train=conditioned.dataset("train", oversample=oversample, blank=config.blank_probability, seed=seed),
        fixed=conditioned.dataset("train", oversample=oversample, seed=seed, at_most=FIXED_SUBSET),
        val=conditioned.dataset("val") if "val" in conditioned.splits else None,
    )


@contextmanager
def _log(directory: Path, tracker: str, state: TrainingState | None) -> Iterator[Log]:
    """The training's figures, continued from `state`; the main process alone writes them."""
    loop = state.loop if state else LoopState()
    if process_number() > 0:
        yield NoLog()
        return
    with MetricLog(directory, tracker=tracker, size=loop.metrics_size, step=loop.step) as log:
        yield log


def _trained_variant(model: PeftModel, trained: Trained) -> TrainedVariant:
    return TrainedVariant(
        model=model,
        fixed_losses=trained.loop.fixed_losses,
        records=trained.records,
        seconds=trained.loop.seconds,
        peak_bytes=trained.loop.peak_bytes or None,
    )


def _write_trained(directory: Path, model: PeftModel, trained: Trained) -> None:
    weights = {f"model/{name}": one.detach().cpu().contiguous() for name, one in trainable(model)}
    files = {
        WEIGHTS: save(weights),
        RECORDS: trained.records.to_parquet(index=False),
        LOOP_STATE: json.dumps(asdict(trained.loop)).encode(),
    }
    try:
        write_verified(directory, files)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the trained weights to {directory} ({error.strerror}); the last checkpoint stays; "
            "make room"
        ) from None


def _read_trained(directory: Path) -> tuple[dict[str, Tensor], Trained] | None:
    if not directory.exists():
        return None
    try:
        files = read_verified(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{directory} is damaged ({error}): remove it to repeat this training"
        ) from None
    records = pd.read_parquet(io.BytesIO(files[RECORDS]))
    return load(files[WEIGHTS]), Trained(loop=LoopState(**json.loads(files[LOOP_STATE])), records=records)
