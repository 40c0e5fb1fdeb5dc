"""The tokenizer's decoder for paths that share a history: it decodes their own bars only, one at a time.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars, C code components.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kronos_service.model.generation.cached_blocks import CachedStack, prefill
from kronos_service.model.generation.packed_linear import PackedLinear
from kronos_service.model.layers import rotate
from kronos_service.model.tokenizer import KronosTokenizer


def path_candles(tokenizer: KronosTokenizer, histories: Sequence[Tensor], paths: Tensor) -> Tensor:
    """Tokens of histories, each (T, 2), and of their paths (B, P, H, 2) -> candles (B, P, H, 6)."""
    prefixes = [
        prefill(tokenizer.decoder, tokenizer.post_quant_embed(_codes(tokenizer, tokens[None])))[1]
        for tokens in histories
    ]
    embed, head = PackedLinear(tokenizer.post_quant_embed), PackedLinear(tokenizer.head)
    blocks = CachedStack(tokenizer.decoder, prefixes, paths.shape[1], paths.shape[2])
    lengths = torch.tensor([[len(tokens)] for tokens in histories], device=paths.device)
    candles = [
        head(blocks(embed(codes), lengths + step))
        for step, codes in enumerate(_codes(tokenizer, paths.flatten(0, 1)).unbind(1))
    ]
    return torch.stack(candles, dim=1).view(*paths.shape[:3], -1)


def path_candles_at_once(tokenizer: KronosTokenizer, histories: Sequence[Tensor], paths: Tensor) -> Tensor:
    """As `path_candles`, all bars of a history's paths in one pass: few large kernels, as a GPU likes them.

    Not for a CPU: its products then have shapes by which the last bits depend on the other paths.
    """
    return torch.stack([_at_once(tokenizer, *one) for one in zip(histories, paths, strict=True)])


def _at_once(tokenizer: KronosTokenizer, history: Tensor, paths: Tensor) -> Tensor:
    """Tokens (T, 2) and (P, H, 2) -> candles (P, H, 6)."""
    known = tokenizer.post_quant_embed(_codes(tokenizer, history[None]))
    prefixes = prefill(tokenizer.decoder, known)[1]
    x = tokenizer.post_quant_embed(_codes(tokenizer, paths))
    bars, ahead = len(history), paths.shape[1]
    positions = torch.arange(bars, bars + ahead, device=paths.device)
    earlier = torch.arange(bars + ahead, device=paths.device) <= positions.unsqueeze(1)
    for block, prefix in zip(tokenizer.decoder.blocks, prefixes, strict=True):
        attention, normed = block.self_attn, block.norm1(x)
        rope = attention.rotary(positions)
        queries, keys, values = (
            attention.split(projection(normed))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        all_keys, all_values = (
            torch.cat((shared.expand(len(paths), -1, -1, -1), own), dim=2)
            for shared, own in ((prefix.keys.mT, rotate(keys, rope)), (prefix.values, values))
        )
        x = x + attention.attend(rotate(queries, rope), all_keys, all_values, mask=earlier, causal=False)
        x = x + block.ffn(block.norm2(x))
    candles: Tensor = tokenizer.head(x)
    return candles


def _codes(tokenizer: KronosTokenizer, tokens: Tensor) -> Tensor:
    """(..., 2) -> (..., C)"""
    codes = tokenizer.tokenizer.codes(tokens[..., 0], tokens[..., 1])
    return codes.to(tokenizer.head.weight.dtype)
