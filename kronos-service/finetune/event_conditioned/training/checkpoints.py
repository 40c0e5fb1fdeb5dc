"""Checkpoints of an unfinished training, and resuming from the newest good one.

A checkpoint is a directory `step-<number>` that appears whole or not at all:

    tensors.safetensors   model/<name>: trained tensors; optimizer/<number>/<moment>: AdamW's state
    state.json            step and running figures
    sha256.json           the hashes of both, checked before either is used

The order of windows, the blanking and the dropout of a step are functions of the seed and the step's number
alone, so no generator state is saved. Nothing is pickled: a checkpoint from elsewhere can run no code.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kronos_service.finetune.event_conditioned.training.lora import trainable
from kronos_shared.atomic import new_directory
from kronos_shared.errors import KronosError

TENSORS, STATE, HASHES = "tensors.safetensors", "state.json", "sha256.json"
KEEP = 2
"""Checkpoints that stay: where the newest is damaged, the one before it is used."""


class CheckpointError(KronosError):
    """A checkpoint cannot be written, or does not belong to this training."""


@dataclass(kw_only=True)
class LoopState:
    """The step a training has reached, and its running figures; field names are those in state.json."""

    step: int = 0
    """Optimizer steps done."""
    fixed_losses: list[float] = field(default_factory=list)
    """Loss on the fixed train subset: untrained, then after each epoch."""
    seconds: float = 0.0
    """Time spent on the steps so far, over all starts."""
    peak_bytes: int = 0
    """Most GPU memory allocated at once so far; 0 on a CPU."""
    metrics_size: int = 0
    """Bytes of metrics.jsonl that belong to the steps so far."""
    curve: list[float] = field(default_factory=list)
    """Pretraining: mean loss between one checkpoint and the next."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that a training resumes from."""

    loop: LoopState
    tensors: dict[str, Tensor]
    groups: list[dict[str, Any]]
    """AdamW's settings per parameter group."""
    scheduler: dict[str, Any]


def capture(model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, loop: LoopState) -> TrainingState:
    """The state of a training now; the tensors are copies on the CPU."""
    adamw = optimizer.state_dict()
    tensors = {f"model/{name}": parameter for name, parameter in trainable(model)}
    for number, moments in adamw["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
    return TrainingState(
        loop=loop,
        tensors={name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()},
        groups=adamw["param_groups"],
        scheduler=scheduler.state_dict(),
    )


def restore(state: TrainingState, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Return a training to where the state was captured.

    Raises:
        CheckpointError: the state is of another model.
    """
    load_trained(model, state.tensors)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.tensors.items():
        part, _, rest = key.partition("/")
        if part == "optimizer":
            number, name = rest.split("/")
            moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state.groups})
    scheduler.load_state_dict(state.scheduler)


@torch.no_grad()
def load_trained(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors named `model/...` into the model's trainable parameters.

    Raises:
        CheckpointError: names or shapes differ.
    """
    wanted = {f"model/{name}": parameter for name, parameter in trainable(model)}
    saved = {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("model/")}
    if saved != {name: tuple(parameter.shape) for name, parameter in wanted.items()}:
        raise CheckpointError("the saved tensors are of another model: have rank, taps or base changed?")
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])


class Checkpoints:
    """The checkpoints of one training, in a directory of their own."""

    def __init__(self, directory: Path, *, every: int) -> None:
        self.directory = directory
        self.every = every
        self._saved = 0

    def newest(self, say: Callable[[str], None]) -> TrainingState | None:
        """The newest checkpoint that verifies, or None; `say` gets a line about each that does not."""
        for path in self.directory.glob(".*"):  # scratch directories that a kill left behind
            shutil.rmtree(path)
        for path in reversed(self._paths()):
            try:
                state = _read(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"checkpoint {path.name} is damaged ({error}): using the one before it")
                continue
            self._saved = state.loop.step
            return state
        return None

    def due(self, step: int) -> bool:
        """Whether this step is to be checkpointed; the same in every process."""
        return step % self.every == 0

    def write(self, state: TrainingState) -> None:
        """Write a checkpoint unless there is one of this step, and remove all but the last two.

        Raises:
            CheckpointError: the disk is full or fails; the checkpoints before it stay.
        """
        step = state.loop.step
        if step == self._saved:
            return
        path = self.directory / f"step-{step:08}"
        try:
            # Those at or past this step did not verify, or training would have resumed from them.
            for damaged in (later for later in self._paths() if later.name >= path.name):
                shutil.rmtree(damaged)
            write_verified(path, _files(state))
            # Only now, with the new one on disk, may an older one go.
            for old in self._paths()[:-KEEP]:
                shutil.rmtree(old)
        except OSError as error:
            kept = f"the one of step {self._saved} stays" if self._saved else "there is none before it"
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {self.directory} ({error.strerror}); {kept}; "
                "make room"
            ) from None
        self._saved = step

    def clear(self) -> None:
        """Remove them all: the training has ended."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"))


def write_verified(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files and their hashes as a new directory, whole or not at all."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with new_directory(directory) as scratch:
        for name, content in {**files, HASHES: json.dumps(hashes).encode()}.items():
            (scratch / name).write_bytes(content)


def read_verified(directory: Path) -> dict[str, bytes]:
    """The files of such a directory, each as its hash promises.

    Raises:
        CheckpointError: a file does not match.
    """
    hashes = json.loads((directory / HASHES).read_bytes())
    files = {name: (directory / name).read_bytes() for name in hashes}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise CheckpointError(f"{name} does not match its sha256")
    return files


def _files(state: TrainingState) -> dict[str, bytes]:
    numbers = {"meters": asdict(state.loop), "groups": state.groups, "scheduler": state.scheduler}
    return {TENSORS: save(state.tensors), STATE: json.dumps(numbers).encode()}


def _read(directory: Path) -> TrainingState:
    files = read_verified(directory)
    numbers = json.loads(files[STATE])
    return TrainingState(
        loop=LoopState(**numbers["meters"]),
        tensors=load(files[TENSORS]),
        groups=numbers["groups"],
        scheduler=numbers["scheduler"],
    )
