"""What a training step needs in memory and arithmetic, found without doing it.

One real forward and backward runs over fake tensors, which have shapes and no contents, so it takes seconds
on any machine. The tensors are a CPU's. A GPU keeps the same ones for the backward pass, but for head sizes
that its attention kernel pads (52 to 56 at the base's: 2 % more), and its libraries' own workspace.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.dataset import Batch
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.loss import token_losses
from kronos_service.finetune.precision import storage
from kronos_service.model.adapter.read import kronos_of
from kronos_service.model.kronos import STAMP_SIZES, Kronos

TRIED: Final = (2, 4)
"""Windows of the two steps whose memory is counted: it grows by the same bytes with each window."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What the windows of a step need; bytes are those of tensors."""

    trained_bytes: int
    """What is trained, in fp32."""
    held_bytes: int
    """Weights, gradients and AdamW's moments, however many windows are in memory."""
    window_bytes: int
    """What each window in memory at once adds to the peak."""
    saved_bytes: int
    """Of these, what the forward pass keeps for the backward."""
    window_flops: int
    """Multiplications and additions of matrix products, forward and backward, and what is computed again."""
    forward_flops: int
    """Of these, the forward's: what a window costs in a validation."""

    def peak(self, windows: int) -> int:
        """Most bytes at once in a step with so many windows in memory."""
        return self.held_bytes + windows * self.window_bytes


def step_cost(
    shape: Mapping[str, Any],
    config: EventLoraConfig,
    *,
    bars: int,
    precision: str,
    checkpointing: bool = False,
) -> StepCost:
    """What a step of `config` needs with a base of this shape (the arguments of `Kronos`).

    Args:
        bars: of a window.
        precision: "bf16", or "no" for fp32.
        checkpointing: compute the blocks' activations again in the backward pass. Part of them is freed
            late, when Python's collector comes by (why is not known): the peak is an upper bound.
    """
    with torch.device("meta"):  # no memory is filled: a base of any size is there at once
        base = Kronos(**shape).eval()
        model = adapt(base, lora=config.lora(), taps=config.taps, seed=0)
    training_mode(model)
    kronos_of(model).transformer.checkpointing = checkpointing
    trained = sum(parameter.nbytes for _, parameter in trainable(model))
    with FakeTensorMode():
        _fill(model)
        exact = [*model.parameters(), *model.buffers()]
        with storage(model, precision):
            few, more = (
                _step(model, exact, zero_batch(config, windows, bars), precision) for windows in TRIED
            )
    step = TRIED[1] - TRIED[0]
    window = (more.peak - few.peak) // step
    return StepCost(
        trained_bytes=trained,
        held_bytes=few.peak - TRIED[0] * window + 2 * trained,
        window_bytes=window,
        saved_bytes=(more.saved - few.saved) // step,
        window_flops=(more.flops - few.flops) // step,
        forward_flops=(more.forward_flops - few.forward_flops) // step,
    )


@dataclass(frozen=True, kw_only=True)
class _Counted:
    peak: int
    saved: int
    flops: int
    forward_flops: int


def _step(model: nn.Module, exact: list[Tensor], batch: Batch, precision: str) -> _Counted:
    """Count one forward and backward; `exact` are the fp32 weights, held also where bf16 stands in."""
    memory = LiveBytes([*exact, *model.parameters(), *tree_leaves(batch)])
    counter, before = FlopCounterMode(display=False, custom_mapping=_ATTENTION), memory.live
    with counter, memory:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            s1, s2 = token_losses(model, batch, events=batch["events"])
        loss = ((s1 + s2) * batch["weight"]).sum()
        saved, forward = memory.live - before, counter.get_total_flops()
        loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return _Counted(peak=memory.peak, saved=saved, flops=counter.get_total_flops(), forward_flops=forward)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors alive, and the most at once; those given count from the start."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()
        for tensor in held:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:  # a view, or an operation in place
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _fill(model: nn.Module) -> None:
    """Give a model without memory tensors of the mode it is in."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def zero_batch(config: EventLoraConfig, windows: int, bars: int) -> Batch:
    """A batch whose contents are of no account."""
    scored = min(config.targets_per_window, bars)
    ids = torch.zeros(windows, bars, dtype=torch.int64)
    targets = torch.zeros(windows, scored, dtype=torch.int64)
    return Batch(
        stamps=torch.zeros(windows, bars, len(STAMP_SIZES), dtype=torch.int64),
        events=torch.zeros(windows, bars, len(DEFAULT_TAXONOMY.channels)),
        s1_ids=ids,
        s2_ids=ids.clone(),
        s1_targets=ids.clone(),
        positions=targets,
        s2_targets=targets.clone(),
        weight=torch.zeros(windows, scored),
        is_event=torch.zeros(windows, scored, dtype=torch.bool),
        index=torch.zeros(windows, dtype=torch.int64),
    )


def _attention_flops(query: Any, key: Any, _value: Any, *args: Any, **_: Any) -> int:
    """q k' and w v; causal attention needs half of each. torch counts neither on a CPU."""
    causal = any(arg is True for arg in args)
    whole: int = 2 * 2 * prod(query) * key[-2]
    return whole // 2 if causal else whole


def _attention_backward_flops(_grad: Any, query: Any, key: Any, value: Any, *args: Any, **_: Any) -> int:
    """The gradients of w, v, q and k; the weights are recomputed, which is no use of its own."""
    return 2 * _attention_flops(query, key, value, *args)


_ATTENTION: Final = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
