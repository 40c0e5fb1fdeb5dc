"""peft's LoRA layer with a step of few passes over the activations.

peft's dropout draws a float per activation, and its scaling and addition are passes of their own; on a CPU
that costs several times the low-rank products themselves. Here dropout draws 16 bits, the scales are folded
into the small matrices, and one fused product (addmm) makes the update and adds it.
Letters: N rows, D inputs, E outputs, R rank.
"""

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

ADAPTER = "default"
"""The name peft gives an adapter that was not named."""


class LowRankLinear(lora.Linear):
    """A frozen linear layer plus (alpha / R) B A dropout(x), as peft computes it but for the draws."""

    def forward(self, x: Tensor) -> Tensor:
        # Without gradients there is no dropout and nothing to save: peft's own path also serves validation.
        # DoRA's update is no low-rank product alone.
        if self.merged or self.disable_adapters or not torch.is_grad_enabled() or self.use_dora[ADAPTER]:
            plain: Tensor = super().forward(x)
            return plain
        frozen = self.base_layer(x)
        dropout = self.lora_dropout[ADAPTER]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        down, up = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        rows = x.to(frozen.dtype).flatten(0, -2)
        flat, scaling = frozen.flatten(0, -2), self.scaling[ADAPTER]
        out: Tensor = _LowRank.apply(rows, flat, down, up, scaling, p)  # type: ignore[no-untyped-call]
        return out.view_as(frozen)


class _LowRank(torch.autograd.Function):
    """frozen (N, E) + scaling up (E, R) down (R, D) dropout(x (N, D)), in x's dtype."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, frozen: Tensor, down: Tensor, up: Tensor, scaling: float, p: float
    ) -> Tensor:
        ctx.scale = scaling / (1 - p)
        # The mask (1 byte) is saved beside the masked input: the input's gradient needs it too.
        dropped = _dropped(x, p) if p else None
        seen = x if dropped is None else x.masked_fill(dropped, 0)
        scaled, up = (down * ctx.scale).to(x.dtype), up.to(x.dtype)
        inner = seen @ scaled.t()
        ctx.save_for_backward(seen, inner, scaled, up, dropped)
        return torch.addmm(frozen, inner, up.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, inner, scaled, up, dropped = ctx.saved_tensors
        at_inner = grad @ up
        at_x = None
        if ctx.needs_input_grad[0]:
            at_x = at_inner @ scaled
            if dropped is not None:
                at_x.masked_fill_(dropped, 0)
        # A gradient has its parameter's dtype: float32, also where the activations are bf16.
        at_down = (at_inner.t() @ seen).float().mul_(ctx.scale)
        at_up = (grad.t() @ inner).float()
        return at_x, grad, at_down, at_up, None, None


def _dropped(x: Tensor, p: float) -> Tensor:
    """Bool, shaped as x, each True with probability p (to 1 in 65,536), from the default generator."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return words.view(torch.int16)[: x.numel()].view(x.shape) < round(p * 2**16) - 2**15
