"""Linear layers for few rows: weights packed once, so that a product takes as long as reading them.

A decoding step multiplies each weight matrix by a handful of rows, so its cost is that of streaming the
weights. BLAS libraries copy the whole matrix into their own layout at every call; oneDNN can do so once,
ahead of time. Its products also round a row the same way whatever the number of rows, so a path does not
depend on the others of its batch.
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
"""Paths of a history are padded to groups of this many: a group costs little more than one of its rows."""
LONE_ROWS = 2
"""A single path is padded to two rows: with one row oneDNN sums in another order."""


def whole_groups(paths: int) -> int:
    """The rows that these paths of one history take."""
    return LONE_ROWS if paths == 1 else -(-paths // ROWS) * ROWS


@dataclass(frozen=True)
class _Packed:
    """A matrix in oneDNN's layout and what it was made from."""

    rest: tuple[Tensor, ...]
    """The other weights: kept alive, so that no new tensor gets an address by which one is recognised."""
    versions: list[tuple[int, int]]
    """Address and version counter of each weight: they differ once one was changed in place."""
    matrix: Tensor


_packed: MutableMapping[Tensor, _Packed] = WeakTensorKeyDictionary()
_lock = threading.Lock()


class PackedLinear:
    """Linear layers of one input as one product, their outputs side by side; LoRA is merged. Inference only.

    The packed matrix lives as long as the first layer's parameter, so models that share weights share it too:
    a hot-loaded adapter packs only the layers it touches. An in-place change of a weight packs it again.
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
        # without oneDNN, products of always `ROWS` rows keep a path independent of how many there are
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
    """Whether oneDNN is there, and knows the dtype on this processor."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _joined(weights: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
    """The weights below each other: plain (where oneDNN cannot), or packed."""
    first, rest = weights[0], weights[1:]
    if not _can_pack(first):
        return torch.cat(weights), None
    versions = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
    with _lock:  # the loader warms a model up while the inference thread runs one that shares its weights
        known = _packed.get(first)
        same = known is not None and all(map(operator.is_, known.rest, rest)) and known.versions == versions
        if known is None or not same:
            joined = torch.cat(weights) if rest else first.detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(joined, ROWS)
            known = _packed[first] = _Packed(rest, versions, packed)
    return None, known.matrix
