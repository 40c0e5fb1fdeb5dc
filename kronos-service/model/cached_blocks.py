"""Transformer blocks that read a history once and then go on bar by bar, for many paths at a time.

Letters: B series, P paths, R = B P rows, T bars of history, D width, H heads, K head size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos_service.model.kv_cache import PathCache, Prefix
from kronos_service.model.layers import Attention, BlockStack, Rope, TransformerBlock, rotate
from kronos_service.model.packed_linear import PackedLinear


def prefill(stack: BlockStack, x: Tensor) -> tuple[Tensor, list[Prefix]]:
    """One history (1, T, D) through all blocks: its outputs (1, T, D) and what each block must keep."""
    prefixes = []
    positions = torch.arange(x.shape[1], device=x.device)
    ropes = [block.self_attn.rotary(positions) for block in stack.blocks[:1]] * len(
        stack
    )  # one head size, one table
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
    """The projections of an attention layer, and the keys and values it has seen."""

    def __init__(self, attention: Attention, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        self.series, self.heads = len(prefixes), attention.n_heads
        self.q_proj, self.k_proj = PackedLinear(attention.q_proj), PackedLinear(attention.k_proj)
        self.v_proj, self.out_proj = PackedLinear(attention.v_proj), PackedLinear(attention.out_proj)
        self.cache = PathCache(prefixes, paths, bars)

    def step(self, x: Tensor, rope: Rope) -> Tensor:
        """Remember one bar (R, D) of each path and attend from it -> (R, D)."""
        queries, keys, values = (
            heads_of(proj(x), self.series, self.heads) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(torch.cat((queries, keys), dim=1), rope).chunk(2, dim=1)
        self.cache.append(keys, values)
        return self.out_proj(rows_of(self.cache.attend(queries)))

    def append(self, x: Tensor, rope: Rope | None) -> None:
        """Remember one bar (R, D) of each path, at the position that `rope` says."""
        keys = heads_of(self.k_proj(x), self.series, self.heads)
        values = heads_of(self.v_proj(x), self.series, self.heads)
        self.cache.append(keys if rope is None else rotate(keys, rope), values)

    def attend(self, x: Tensor, rope: Rope | None) -> Tensor:
        """Queries from rows (R, D), over all that is remembered -> (R, D)."""
        queries = heads_of(self.q_proj(x), self.series, self.heads)
        queries = queries if rope is None else rotate(queries, rope)
        return self.out_proj(rows_of(self.cache.attend(queries)))


class CachedBlock:
    """One transformer block at one bar of each path."""

    def __init__(self, block: TransformerBlock, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attention = CachedAttention(block.self_attn, prefixes, paths, bars)
        self.w1, self.w2, self.w3 = (PackedLinear(w) for w in (block.ffn.w1, block.ffn.w2, block.ffn.w3))

    def __call__(self, x: Tensor, rope: Rope) -> Tensor:
        x = x + self.attention.step(self.norm1(x), rope)
        normed = self.norm2(x)
        return x + self.w2(F.silu(self.w1(normed)) * self.w3(normed))


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
