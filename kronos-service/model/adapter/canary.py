"""A forward pass anyone can repeat, so that a loaded adapter is known to compute what its trainer saw."""

import copy

import numpy as np
import torch
from torch import Tensor

from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import CANARY_TOLERANCE, Canary


@torch.inference_mode()
def canary_logits(model: Kronos, *, seed: int, length: int) -> tuple[Tensor, Tensor]:
    """Last-position s1 and s2 logits, each (V,), of inputs drawn from the seed."""
    rng = np.random.default_rng(seed)
    sizes = (2 ** model.config["s1_bits"], 2 ** model.config["s2_bits"])
    s1, s2 = (torch.from_numpy(rng.integers(0, size, (1, length))) for size in sizes)
    s1_targets = torch.from_numpy(rng.integers(0, sizes[0], (1, length)))
    stamps = torch.from_numpy(rng.integers([0, 0, 0, 1, 1], [60, 24, 7, 29, 13], (1, length, 5)))
    events = torch.from_numpy(rng.normal(size=(1, length, model.n_channels)).astype(np.float32))
    s1_logits, s2_logits = model(
        s1, s2, stamps, events=events, s1_targets=s1_targets, positions=torch.tensor([[length - 1]])
    )
    return s1_logits[0, 0], s2_logits[0, 0]


def make_canary(model: Kronos, *, seed: int = 0, length: int = 32) -> Canary:
    """The canary of a merged model, computed on the CPU in fp32 wherever the model is."""
    s1, s2 = canary_logits(_reference(model), seed=seed, length=length)
    return Canary(
        seed=seed,
        length=length,
        s1_logits=tuple(s1.tolist()),
        s2_logits=tuple(s2.tolist()),
        tolerance=CANARY_TOLERANCE,
    )


def check_canary(model: Kronos, canary: Canary) -> None:
    """Raise `AdapterError` unless the merged model gives its trainer's logits, on the CPU in fp32."""
    s1, s2 = canary_logits(_reference(model), seed=canary.seed, length=canary.length)
    for name, got, expected in (("s1", s1, canary.s1_logits), ("s2", s2, canary.s2_logits)):
        wanted = torch.tensor(expected)
        if got.shape != wanted.shape:
            raise AdapterError(f"canary: expected {len(wanted)} {name} logits, got {len(got)}")
        worst = (got - wanted).abs().max().item()
        if not worst <= canary.tolerance:
            raise AdapterError(
                f"canary: {name} logits differ from the trainer's by {worst:.2g} "
                f"(tolerance {canary.tolerance:g})"
            )


def _reference(model: Kronos) -> Kronos:
    """The model on the CPU in fp32; a copy unless it is there already, because moving a module would move
    the frozen tensors that it shares with its base.
    """
    if all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in model.parameters()):
        return model
    return copy.deepcopy(model).cpu().float()
