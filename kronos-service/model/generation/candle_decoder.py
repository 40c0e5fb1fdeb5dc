"""The tokenizer's decoder for paths that share a history: it decodes their own bars only, one at a time.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars, C code components.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kronos_service.model.generation.cached_blocks import CachedStack, prefill
from kronos_service.model.generation.packed_linear import PackedLinear
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


def _codes(tokenizer: KronosTokenizer, tokens: Tensor) -> Tensor:
    """(..., 2) -> (..., C)"""
    codes = tokenizer.tokenizer.codes(tokens[..., 0], tokens[..., 1])
    return codes.to(tokenizer.head.weight.dtype)
