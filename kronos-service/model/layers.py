"""Transformer blocks that the tokenizer and the predictor share.

Parameter and buffer names are those of the released weights. Nothing here changes its own state in `forward`,
so one model may serve several threads. Letters: B batch, T bars, D width, H heads, K = D / H.
"""

from collections.abc import Callable
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Rope = Tensor
"""Rotations as complex numbers of length 1, complex64, broadcastable to (B, H, T, K/2)."""


def cast_once(x: Tensor) -> Tensor:
    """x in autocast's dtype, where autocast is on: otherwise each product that reads x would cast it."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in fp32 whatever the input's dtype."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        normed = _normalize(x.float(), self.eps)
        return normed.type_as(x) * self.weight


def _normalize(x: Tensor, eps: float) -> Tensor:
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return F.rms_norm(x, x.shape[-1:], eps=eps)
    normed: Tensor = _NormalizeOnCPU.apply(x, eps)  # type: ignore[no-untyped-call]
    return normed


class _NormalizeOnCPU(torch.autograd.Function):
    """x / rms(x), whose backward is a layer norm's with the mean held at 0.

    On a CPU, autograd's own backward of `rms_norm` is a dozen passes over x; that of `layer_norm` is one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.eps = eps
        return F.rms_norm(x, x.shape[-1:], eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        width = x.shape[-1]
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square().div(width)
        rstd = (mean_square + ctx.eps).rsqrt()
        wanted = [True, False, False]
        centred, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad.contiguous(), x.contiguous(), [width], torch.zeros_like(rstd), rstd, None, None, wanted
        )
        # a layer norm would subtract the gradient's mean, for its own mean moves with x
        return centred + rstd * grad.mean(-1, keepdim=True), None


class RotaryEmbedding(nn.Module):
    """Rotary angles for given positions.

    The angles are computed per call in fp32 and never cached: bf16 cannot tell position 300 from 301, and
    a cache would be state that threads and autograd modes share.
    """

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.inv_freq
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # `.bfloat16()` and `.half()` may move the frequencies but must not round them
        self.inv_freq = exact.to(self.inv_freq.device)
        return self

    def forward(self, positions: Tensor) -> Rope:
        """Rotations at int64 positions: (T,) gives a (T, K/2) table, (B, T) gives (B, 1, T, K/2)."""
        with torch.autocast(positions.device.type, enabled=False):
            angles = positions.float().unsqueeze(-1) * self.inv_freq
        if positions.dim() == 2:
            angles = angles.unsqueeze(1)
        return torch.complex(angles.cos(), angles.sin())


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """x (B, H, T, K) turned by the angles of its positions, in fp32, returned in x's dtype.

    The two numbers of a pair lie K/2 apart in x and side by side in the result: products of queries and keys,
    all that attention computes from them, are the same in either order, and this one takes few passes.
    """
    if not torch.is_grad_enabled():
        return _turn(x, rope)
    turned: Tensor = _Rotate.apply(x, rope)  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    """A rotation, whose backward is the rotation back; autograd's own would keep and add up every part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rope: Rope) -> Tensor:
        ctx.save_for_backward(rope)
        return _turn(x, rope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rope,) = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        pairs = torch.view_as_complex(grad.float().view(*grad.shape[:-1], -1, 2)) * rope.conj()
        return torch.cat((pairs.real, pairs.imag), dim=-1).to(grad.dtype), None


def _turn(x: Tensor, rope: Rope) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    # contiguous, as attention reads it fastest
    pairs = torch.complex(first, second, out=first.new_empty(first.shape, dtype=torch.complex64)).mul_(rope)
    return torch.view_as_real(pairs).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Projections of multi-head attention; subclasses say who attends to whom."""

    def __init__(
        self, d_model: int, n_heads: int, attn_dropout_p: float = 0.0, resid_dropout_p: float = 0.0
    ) -> None:
        super().__init__()
        if d_model % (2 * n_heads):
            raise ValueError(f"d_model must be a multiple of 2 x n_heads = {2 * n_heads}, got {d_model}")
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = RotaryEmbedding(d_model // n_heads)
        self.attn_dropout_p = attn_dropout_p
        self.resid_dropout = nn.Dropout(resid_dropout_p)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, K)"""
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """(B, H, T, K) queries over keys and values -> (B, T, D), projected."""
        # the functional form knows no eval(): dropout would stay on when serving
        dropout_p = self.attn_dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=causal)
        projected: Tensor = self.resid_dropout(self.out_proj(out.transpose(1, 2).flatten(2)))
        return projected


class SelfAttention(Attention):
    """Causal attention of a sequence to itself."""

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        q = rotate(self.split(self.q_proj(x)), rope)
        k = rotate(self.split(self.k_proj(x)), rope)
        return self.attend(q, k, self.split(self.v_proj(x)), mask=None, causal=True)


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, d_model: int, ff_dim: int, ffn_dropout_p: float = 0.0) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, ff_dim, bias=False)
        self.w3 = nn.Linear(d_model, ff_dim, bias=False)
        self.w2 = nn.Linear(ff_dim, d_model, bias=False)
        self.ffn_dropout = nn.Dropout(ffn_dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ffn_dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))
        return out


class TransformerBlock(nn.Module):
    """Pre-norm causal attention and feed-forward, each with a residual."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float = 0.0,
        attn_dropout_p: float = 0.0,
        resid_dropout_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(d_model)
        self.self_attn = SelfAttention(d_model, n_heads, attn_dropout_p, resid_dropout_p)
        self.norm2 = RMSNorm(d_model)
        self.ffn = FeedForward(d_model, ff_dim, ffn_dropout_p)

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        x = x + self.self_attn(cast_once(self.norm1(x)), rope)
        out: Tensor = x + self.ffn(cast_once(self.norm2(x)))
        return out


class BlockStack(nn.ModuleList):
    """Blocks in a row over x (B, T, D); they have one head size, so one rotary table serves them all."""

    @property
    def blocks(self) -> list[TransformerBlock]:
        return [cast(TransformerBlock, block) for block in self]

    checkpointing = False
    """Compute the blocks' activations again in the backward pass instead of keeping them."""

    def forward(self, x: Tensor) -> Tensor:
        if len(self) == 0:
            return x
        first = cast(TransformerBlock, self[0])
        rope = first.self_attn.rotary(torch.arange(x.shape[1], device=x.device))
        again = self.checkpointing and torch.is_grad_enabled()
        for block in self:
            x = checkpoint(block, x, rope, use_reentrant=False) if again else block(x, rope)
        return x
