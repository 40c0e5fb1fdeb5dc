"""Transformer blocks that read a history once, then continue bar by bar for many paths at a time.

Letters: B series, P paths, R = B P rows, T bars of history, D width, H heads, K head size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos_service.model.generation.kv_cache import PathCache, Prefix
from kronos_service.model.generation.packed_linear import PackedLinear
from kronos_service.model.layers import BlockStack, Rope, SelfAttention, TransformerBlock, rotate


def prefill(stack: BlockStack, x: Tensor) -> tuple[Tensor, list[Prefix]]:
    """One history (1, T, D) through all blocks: its outputs (1, T, D) and what each block must keep."""
    prefixes = []
    positions = torch.arange(x.shape[1], device=x.device)
    # one head size in a stack, so one rotary table; a list because a tokenizer may have no block at all
    ropes = [block.self_attn.rotary(positions) for block in stack.blocks[:1]] * len(stack)
    for block, rope in zip(stack.blocks, ropes, strict=True):
        attention = block.self_attn
        normed = block.norm1(x)
        q, k, v = (
            attention.split(proj(normed)) for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = rotate(q, rope), rotate(k, rope)
        prefixes.append(Prefix.of(k[0], v[0]))
        x = x + attention.attend(q, k, v, mask=None, causal=True)
        x = x + block.ffn(block.norm2(x))
    return x, prefixes


def heads_of(rows: Tensor, series: int, heads: int) -> Tensor:
    """(R, D) -> (B, H, P, K)"""
    return rows.view(series, -1, heads, rows.shape[-1] // heads).transpose(1, 2)


def rows_of(x: Tensor) -> Tensor:
    """(B, H, P, K) -> (R, D)"""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


class CachedAttention:
    """A block's attention from the newest bar of each path to everything before it."""

    def __init__(self, attention: SelfAttention, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        self._series, self._heads = len(prefixes), attention.n_heads
        self._qkv = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = PackedLinear(attention.out_proj)
        self._cache = PathCache(prefixes, paths, bars)

    def __call__(self, x: Tensor, rope: Rope) -> Tensor:
        """Rows (R, D) -> (R, D)"""
        width = x.shape[1]
        qkv = self._qkv(x)
        # queries and keys lie side by side, so one rotation turns both
        turned = rotate(heads_of(qkv[:, : 2 * width], self._series, 2 * self._heads), rope)
        queries, keys = turned.chunk(2, dim=1)
        self._cache.append(keys, heads_of(qkv[:, 2 * width :], self._series, self._heads))
        return self._out(rows_of(self._cache.attend(queries)))

    def keep(self, series: Sequence[int]) -> None:
        """Drop the paths of all other series."""
        self._series = len(series)
        self._cache.keep(series)


class CachedBlock:
    """One transformer block at one bar of each path."""

    def __init__(self, block: TransformerBlock, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        self._norm1, self._norm2 = block.norm1, block.norm2
        self._attention = CachedAttention(block.self_attn, prefixes, paths, bars)
        self._w13, self._w2 = PackedLinear(block.ffn.w1, block.ffn.w3), PackedLinear(block.ffn.w2)

    def __call__(self, x: Tensor, rope: Rope) -> Tensor:
        """Rows (R, D) -> (R, D)"""
        x = x + self._attention(self._norm1(x), rope)
        gate, up = self._w13(self._norm2(x)).chunk(2, dim=1)
        return x + self._w2(F.silu(gate) * up)

    def keep(self, series: Sequence[int]) -> None:
        """Drop the paths of all other series."""
        self._attention.keep(series)


class CachedStack:
    """All blocks of a stack; `prefixes` are those of each series, as `prefill` gives them."""

    def __init__(
        self, stack: BlockStack, prefixes: Sequence[Sequence[Prefix]], paths: int, bars: int
    ) -> None:
        by_block = zip(stack.blocks, zip(*prefixes, strict=True), strict=True)
        self._blocks = [CachedBlock(block, kept, paths, bars) for block, kept in by_block]
        self._rotary = [block.self_attn.rotary for block in stack.blocks[:1]]

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rows (R, D) of one bar of each path, at int64 positions (B, 1)."""
        for rotary in self._rotary:
            rope = rotary(positions)
            for block in self._blocks:
                x = block(x, rope)
        return x

    def keep(self, series: Sequence[int]) -> None:
        """Drop the paths of all other series."""
        for block in self._blocks:
            block.keep(series)
