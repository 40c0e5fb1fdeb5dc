"""Linear layers for few rows: weights in the layout that makes such products as fast as reading them.

A decoding step multiplies each weight matrix by a handful of rows, so its cost is that of streaming the
weights. BLAS libraries copy the whole matrix into their own layout first, at every call; oneDNN does it once,
ahead of time. Its products also round a row alike whatever the number of rows, which is what makes a path
independent of its company.
"""

import threading
from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

ROWS = 8
"""Paths of a history come in groups of this many: a group costs little more than one of its rows."""
LONE_ROWS = 2
"""A path by itself is accompanied by one other; with a single row oneDNN would sum in another order."""


def whole_groups(paths: int) -> int:
    """The rows that so many paths of one history take."""
    return LONE_ROWS if paths == 1 else -(-paths // ROWS) * ROWS


_packed: MutableMapping[Tensor, tuple[tuple[int, int], Tensor]] = WeakTensorKeyDictionary()
_lock = threading.Lock()


class PackedLinear:
    """What a linear layer computes, for inference; a LoRA layer's adapters are merged.

    Each packed matrix is kept as long as the parameter it came from, so models that share weights share it
    too; in-place changes that torch's version counter sees make a new one.
    """

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, layer: nn.Module) -> None:
        self._weight, self._bias = _weight_and_bias(layer)
        self._packed = _pack(self._weight) if _can_pack(self._weight) else None

    def __call__(self, x: Tensor) -> Tensor:
        """(R, D_in) to (R, D_out)."""
        if self._packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
            return out
        if x.device.type != "cpu":
            return F.linear(x, self._weight, self._bias)
        padded = F.pad(x, (0, 0, 0, -len(x) % ROWS))
        return torch.cat([F.linear(rows, self._weight, self._bias) for rows in torch.split(padded, ROWS)])[
            : len(x)
        ]


def _weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias
    assert isinstance(layer, BaseTunerLayer), f"neither a linear layer nor one of peft's: {type(layer)}"
    base = layer.get_base_layer()
    assert isinstance(base, nn.Linear)
    deltas = [layer.get_delta_weight(name) for name in layer.active_adapters]  # type: ignore[operator]
    return base.weight + sum(deltas), base.bias


def _can_pack(weight: Tensor) -> bool:
    """oneDNN is there, and knows the dtype on this processor."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _pack(weight: Tensor) -> Tensor:
    version = 0 if weight.is_inference() else weight._version
    state = (weight.data_ptr(), version)
    with _lock:
        known = _packed.get(weight)
        if known is None or known[0] != state:
            known = (state, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS))
            _packed[weight] = known
    return known[1]
