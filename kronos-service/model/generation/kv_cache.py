"""Keys and values computed once: of the history, which all paths share, and of each path's own bars.

Letters: B series, P paths, H heads, T bars of history, S bars of a path, K head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos_service.model.generation.packed_linear import ROWS


@dataclass(frozen=True)
class Prefix:
    """What one attention layer keeps of one history; keys are rotated to their positions."""

    keys: Tensor
    """(H, K, T): queries times this needs no transposed copy."""
    values: Tensor
    """(H, T, K)"""

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> Self:
        """From keys and values (H, T, K)."""
        return cls(keys.transpose(1, 2).contiguous(), values.contiguous())


class PathCache:
    """One attention layer over B histories of any lengths, each continued by P paths of up to S bars.

    A history is stored once, not once per path: with 30 paths that is 30 times less memory to read.
    Every product has the shape of one history and `ROWS` paths, or of one path, because BLAS picks its order
    of summation by the shape: a path's last bits would otherwise depend on its batch.
    """

    def __init__(self, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        heads, head_size, _ = prefixes[0].keys.shape
        self._prefixes = prefixes
        shape = (len(prefixes), heads, paths, bars, head_size)
        # allocated at full length: growing by concatenation would copy everything at every step
        self._keys, self._values = prefixes[0].keys.new_empty(shape), prefixes[0].keys.new_empty(shape)
        self._length = 0

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Keys and values (B, H, P, K) of each path's next bar."""
        self._keys[:, :, :, self._length] = keys
        self._values[:, :, :, self._length] = values
        self._length += 1

    def keep(self, series: Sequence[int]) -> None:
        """Forget all other series."""
        self._prefixes = [self._prefixes[one] for one in series]
        self._keys, self._values = self._keys[list(series)], self._values[list(series)]

    def attend(self, queries: Tensor) -> Tensor:
        """Queries (B, H, P, K) over the history and the path's own bars -> (B, H, P, K)."""
        queries = queries * queries.shape[-1] ** -0.5
        keys, values = self._keys[:, :, :, : self._length], self._values[:, :, :, : self._length]
        return torch.stack([_attend(*one) for one in zip(self._prefixes, queries, keys, values, strict=True)])


def _attend(prefix: Prefix, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled queries (H, P, K), keys and values (H, P, S, K) of the paths of one series -> (H, P, K)."""
    paths, bars = queries.shape[1], prefix.keys.shape[2]
    # one softmax over both parts, but no joined key tensor: shared keys are read once for all paths
    rows = F.pad(queries, (0, 0, 0, -paths % ROWS)) if paths % ROWS else queries
    scores = _in_blocks(rows, prefix.keys)
    weights = torch.cat((scores[:, :paths], _path_by_path(queries, keys.mT)), dim=-1).softmax(-1)
    scores[:, :paths] = weights[..., :bars]  # the padding rows keep raw scores; their result is dropped
    shared = _in_blocks(scores, prefix.values)[:, :paths]
    return shared + _path_by_path(weights[..., bars:], values)


def _in_blocks(x: Tensor, matrix: Tensor) -> Tensor:
    """x (H, R, I) times matrix (H, I, O), always `ROWS` of the R rows at a time."""
    blocks = [torch.bmm(block, matrix) for block in torch.split(x, ROWS, dim=1)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _path_by_path(x: Tensor, matrices: Tensor) -> Tensor:
    """Each of x (H, P, I) times its own of matrices (H, P, I, O)."""
    product = torch.bmm(x.flatten(0, 1).unsqueeze(1), matrices.flatten(0, 1))
    return product.view(*x.shape[:2], -1)
