"""Linear layers for few rows: weights in the layout that makes such products as fast as reading them.

A decoding step multiplies each weight matrix by a handful of rows, so its cost is that of streaming the
weights. BLAS libraries copy the whole matrix into their own layout first, at every call; oneDNN does it once,
ahead of time. Its products also round a row alike whatever the number of rows, which is what makes a path
independent of its company.
"""

import operator
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Packed:
    """A matrix in oneDNN's layout and what it was made from."""

    rest: tuple[Tensor, ...]
    """Kept alive, so that no other weight can take the place in memory by which one is recognised."""
    versions: list[tuple[int, int]]
    matrix: Tensor


_packed: MutableMapping[Tensor, _Packed] = WeakTensorKeyDictionary()
_lock = threading.Lock()


class PackedLinear:
    """What linear layers of one input compute, side by side; for inference, with LoRA's adapters merged.

    The packed matrix is kept as long as the first layer's parameter, so models that share weights share it
    too; in-place changes that torch's version counter sees make a new one.
    """

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, *layers: nn.Module) -> None:
        weights, biases = zip(*(_weight_and_bias(layer) for layer in layers), strict=True)
        self._bias = None if biases[0] is None else torch.cat(biases)
        self._weight, self._packed = _joined(weights)

    def __call__(self, x: Tensor) -> Tensor:
        """(R, D_in) to (R, D_out), D_out summed over the layers."""
        if self._packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
            return out
        weight = self._weight
        assert weight is not None
        if x.device.type != "cpu":
            return F.linear(x, weight, self._bias)
        padded = F.pad(x, (0, 0, 0, -len(x) % ROWS))
        return torch.cat([F.linear(rows, weight, self._bias) for rows in torch.split(padded, ROWS)])[: len(x)]


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


def _joined(weights: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
    """The weights below each other, plain or else packed."""
    first, rest = weights[0], weights[1:]
    if not _can_pack(first):
        return torch.cat(weights), None
    versions = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
    with _lock:
        known = _packed.get(first)
        same = known is not None and all(map(operator.is_, known.rest, rest)) and known.versions == versions
        if known is None or not same:
            joined = torch.cat(weights) if rest else first.detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(joined, ROWS)
            known = _packed[first] = _Packed(rest, versions, packed)
    return None, known.matrix
