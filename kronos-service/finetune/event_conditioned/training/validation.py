"""Losses of every validation target, and their means over event days, non-event days and event families."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.samples.dataset import Batch, EventConditionedDataset
from kronos_service.finetune.event_conditioned.training.distributed import (
    gathered,
    share,
    sum_over_processes,
)
from kronos_service.finetune.event_conditioned.training.loss import token_losses, weighted_loss

LOSSES = ("s1", "s2", "total")


@torch.inference_mode()
def score(
    model: nn.Module,
    dataset: EventConditionedDataset,
    accelerator: Accelerator,
    *,
    micro_batch: int,
    events: bool = True,
    advance: Callable[[int], object] = lambda _: None,
) -> pd.DataFrame:
    """One row per scored target: symbol, date, is_event, the losses s1, s2 and total in nats, and a bool
    column per family; all processes get all rows.
    """
    model.eval()
    parts = []
    for batch in dataset.batches(share(range(len(dataset))), micro_batch):
        moved = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            s1, s2 = token_losses(model, moved, events=moved["events"] if events else None)
        parts.append(_records(dataset, batch, s1.cpu(), s2.cpu()))
        advance(len(batch["index"]))
    every = pd.concat([part for parts in gathered(parts) for part in parts])
    return every.sort_index(kind="stable").reset_index(drop=True)


@torch.inference_mode()
def mean_weighted_loss(
    model: nn.Module, dataset: EventConditionedDataset, accelerator: Accelerator, *, micro_batch: int
) -> float:
    """The weighted mean loss over all targets of a dataset, in eval mode."""
    model.eval()
    total = weight = 0.0
    for batch in dataset.batches(share(range(len(dataset))), micro_batch):
        total += float(weighted_loss(model, send_to_device(batch, accelerator.device), accelerator))
        weight += float(batch["weight"].sum())
    # Sums, not means, are added up: processes and batches may hold different numbers of targets.
    total, weight = sum_over_processes(total, weight)
    return total / weight


def _records(dataset: EventConditionedDataset, batch: Batch, s1: Tensor, s2: Tensor) -> pd.DataFrame:
    windows = [dataset.windows[index] for index in batch["index"].tolist()]
    starts = torch.tensor([window.start for window in windows])
    rows, columns = batch["weight"].nonzero(as_tuple=True)
    bars = (starts[rows] + batch["positions"][rows, columns] + 1).tolist()
    targets = [
        (dataset.series[windows[row].series], bar) for row, bar in zip(rows.tolist(), bars, strict=True)
    ]
    losses_s1, losses_s2 = s1[rows, columns].double().numpy(), s2[rows, columns].double().numpy()
    families = np.array([one.families[bar] for one, bar in targets])
    return pd.DataFrame(
        {
            "symbol": [one.symbol for one, _ in targets],
            "date": [one.dates[bar] for one, bar in targets],
            "is_event": batch["is_event"][rows, columns].numpy(),
            "s1": losses_s1,
            "s2": losses_s2,
            "total": losses_s1 + losses_s2,
        }
        | {name: families[:, number] for number, name in enumerate(dataset.series[0].taxonomy.families)},
        index=batch["index"][rows].numpy(),
    )


def summarize(records: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Mean s1, s2 and total loss, and the targets counted, on `event`, `quiet` and `all` targets; None
    where there are none.
    """
    groups = {"event": records[records["is_event"]], "quiet": records[~records["is_event"]], "all": records}
    return {name: _means(group) for name, group in groups.items()}


def summarize_families(records: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, dict[str, Any]]:
    """The same means over the targets on which each family has a high-impact event, for families that
    have any.
    """
    return {name: _means(records[records[name]]) for name in taxonomy.families if records[name].any()}


def _means(group: pd.DataFrame) -> dict[str, Any]:
    means: Mapping[str, float | None] = {
        name: float(group[name].mean()) if len(group) else None for name in LOSSES
    }
    return {**means, "targets": len(group)}
