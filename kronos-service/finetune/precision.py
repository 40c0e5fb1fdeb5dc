"""The precision of a training, and of the frozen weights meanwhile."""

import contextlib
from collections.abc import Iterator
from typing import Final

import torch
from torch import nn

BF16_WIDTH: Final = 256
"""Narrower models run faster in fp32 on a CPU: there, casting costs more than bf16 products save
(docs/performance.md).
"""


def fast_precision(precision: str, *, width: int) -> str:
    """The precision that `auto` chooses for a model of that width: bf16 where faster, else fp32 ("no")."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if width >= BF16_WIDTH and _cpu_multiplies_bf16() else "no"


def _cpu_multiplies_bf16() -> bool:
    """Without oneDNN, as on a Mac, torch lacks the operator that answers."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def storage(model: nn.Module, precision: str) -> Iterator[None]:
    """While training in bf16, keep the frozen linear layers in bf16 too; their fp32 tensors come back after.

    Autocast rounds them to bf16 at each use anyway: no result changes by a bit, and the casts are saved.
    """
    if precision != "bf16":
        yield
        return
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and not any(p.requires_grad for p in layer.parameters())
    ]
    exact = [dict(layer.named_parameters(recurse=False)) for layer in layers]
    for layer, parameters in zip(layers, exact, strict=True):
        for name, parameter in parameters.items():
            setattr(layer, name, nn.Parameter(parameter.bfloat16(), requires_grad=False))
    try:
        yield
    finally:
        for layer, parameters in zip(layers, exact, strict=True):
            for name, parameter in parameters.items():
                setattr(layer, name, parameter)
