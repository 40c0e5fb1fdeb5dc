"""The one loss of all trainings and validations: teacher-forced cross-entropy of coarse and fine tokens.

Letters: B windows, T positions, P scored positions, V vocabulary.
"""

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from kronos_service.finetune.event_conditioned.samples.dataset import Batch, TokenBatch


def token_losses(model: nn.Module, batch: TokenBatch, *, events: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of the coarse and the fine token (s1, s2) at the scored positions, each (B, P)
    float32.

    Without `events` the model is the plain base.
    """
    s1_logits, s2_logits = model(
        batch["s1_ids"],
        batch["s2_ids"],
        batch["stamps"],
        events=events,
        s1_targets=batch["s1_targets"],
        positions=batch["positions"],
    )
    s1_targets = batch["s1_targets"].gather(1, batch["positions"])
    return _cross_entropy(s1_logits, s1_targets), _cross_entropy(s2_logits, batch["s2_targets"])


def weighted_loss(model: nn.Module, batch: Batch, accelerator: Accelerator) -> Tensor:
    """Sum over the scored targets of weight x (CE(s1) + CE(s2))."""
    with accelerator.autocast():
        s1, s2 = token_losses(model, batch, events=batch["events"])
    return ((s1 + s2) * batch["weight"]).sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, P, V) and (B, P) -> (B, P); in float32, because bf16 logits would round the log-sum-exp."""
    return functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(targets)
