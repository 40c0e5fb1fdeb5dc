"""A training step of the event-lora job on random data: its batch, its model, its matrix products.

Letters: B windows, T bars in a window, P scored bars, D width, F feed-forward width, V tokens, R LoRA rank.
"""

from collections import Counter
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from peft import PeftModel
from torch import nn

from kronos_service.finetune.event_conditioned.samples.dataset import Batch
from kronos_service.finetune.event_conditioned.training.lora import adapt, training_mode
from kronos_service.finetune.event_conditioned.training.loss import weighted_loss
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import LoraRecord

RANK = 8
Product = tuple[int, int, int, int]
"""(how many at once, rows, inner size, columns)."""


def products(model: Kronos, *, windows: int, bars: int, scored: int) -> Counter[Product]:
    """Every matrix product of a LoRA step with both taps, by shape: the forward's, and in the backward those
    that a trainable tensor's gradient needs. Attention counts half of its T x T, being causal.
    """
    config, found = model.config, Counter[Product]()
    n, p, d, v = windows * bars, windows * scored, config["d_model"], 2**model.s1_bits

    def frozen(rows: int, inner: int, columns: int, times: int = 1) -> None:
        """Forward, and the gradient of the input."""
        found[1, rows, inner, columns] += times
        found[1, rows, columns, inner] += times

    def trained(rows: int, inner: int, columns: int, times: int = 1) -> None:
        """Forward, and the gradients of input and weight."""
        frozen(rows, inner, columns, times)
        found[1, columns, rows, inner] += times

    def attention(heads: int, queries: int, keys: int) -> None:
        """q k' and w v, and in the backward the gradients of w, v, q and k."""
        many, size = windows * heads, d // heads
        found[many, queries, size, keys] += 2
        found[many, queries, keys, size] += 2
        found[many, keys, queries, size] += 2

    layers = config["n_layers"]
    frozen(n, d, d, 4 * layers)
    frozen(n, d, config["ff_dim"], 2 * layers)
    frozen(n, config["ff_dim"], d, layers)
    for _ in range(layers):
        attention(config["n_heads"], bars // 2, bars)
    trained(n, d, RANK, 2 * layers)
    trained(n, RANK, d, 2 * layers)
    found[1, n, 2 * d, d] += 1  # the two halves of a token; nothing before it is trained
    frozen(n, d, d, 2)  # the dependency layer's keys and values
    found[1, p, d, d] += 1  # its queries: nothing before them is trained
    frozen(p, d, d)
    attention(4, scored, bars)
    frozen(p, d, v, 2)
    trained(n, 20, 256)
    found[1, n, 256, 20] -= 1  # events have no gradient
    trained(n, 256, 256)
    trained(n, 256, d)
    trained(n, 256, 2 * d)
    return +found


def flops(shapes: Mapping[Product, int]) -> int:
    """Multiplications and additions of these products."""
    return sum(2 * b * m * k * n * times for (b, m, k, n), times in shapes.items())


def random_batch(model: Kronos, *, windows: int, bars: int, scored: int, device: str = "cpu") -> Batch:
    """Random ids and events, the same on any device; the last `scored` positions count."""
    torch.manual_seed(0)
    s1, s2, s1_targets = (torch.randint(0, 2**model.s1_bits, (windows, bars)) for _ in range(3))
    batch = Batch(
        stamps=torch.ones(windows, bars, 5, dtype=torch.int64),
        events=torch.randn(windows, bars, 20),
        s1_ids=s1,
        s2_ids=s2,
        s1_targets=s1_targets,
        positions=torch.arange(bars - scored, bars).expand(windows, scored),
        s2_targets=torch.randint(0, 2**model.s2_bits, (windows, scored)),
        weight=torch.ones(windows, scored),
        is_event=torch.zeros(windows, scored, dtype=torch.bool),
        index=torch.arange(windows),
    )
    moved: Batch = send_to_device(batch, device)
    return moved


def lora_step(model: nn.Module, batch: Batch, accelerator: Accelerator) -> None:
    accelerator.backward(weighted_loss(model, batch, accelerator))
    model.zero_grad()


def adapted(preset: str, device: str = "cpu") -> tuple[Kronos, PeftModel]:
    """A random base, and the same with a LoRA and an event embedding, ready to train."""
    torch.manual_seed(0)
    base = Kronos(**PRESETS[preset].predictor).eval().to(device)
    model = adapt(base, lora=LoraRecord(rank=RANK, alpha=2 * RANK, dropout=0.05), taps="both", seed=0)
    training_mode(model)
    return base, model


def model_flops_utilisation(shapes: Mapping[Product, int], seconds: float, peak: float) -> float:
    """Share of the device's peak (FLOP/s) that a step's own products need: recomputation is no use."""
    return flops(shapes) / seconds / peak
