"""Freeze the base, then add what is trained: LoRA on attention (peft) and the event embedding."""

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from peft import PeftModel, get_peft_model
from torch import nn

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.finetune.event_conditioned.training.lora_layer import ADAPTER, LowRankLinear
from kronos_service.model.adapter.read import lora_config
from kronos_service.model.event_embedding import EventEmbedding
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import LoraRecord

TAPS = {"input": ("input",), "output": ("output",), "both": ("input", "output")}

Part = Literal["lora", "event_emb"]
"""What an adapter consists of."""


def adapt(
    base: Kronos,
    *,
    lora: LoraRecord,
    taps: str,
    seed: int,
    start: str = "all",
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
    without: Part | None = None,
) -> PeftModel:
    """Wrap a base with LoRA and an event embedding.

    The frozen tensors are shared with `base`, which stays as it was. At step 0 the wrapped model equals
    the base bit for bit. The part that `without` names is not trained, so it changes nothing. `start` says
    which channels the event embedding hears at first: "all", or the families of "tier1", all alike.
    """
    model = copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})
    device = next(base.parameters()).device
    with torch.random.fork_rng():
        # A seed for each part: adapters that differ in one part start from the same other part.
        torch.manual_seed(2 * seed)
        event_emb = EventEmbedding(base.config["d_model"], TAPS[taps], n_channels=len(taxonomy.channels))
        if start == "tier1":
            _hear_tier1(event_emb, taxonomy)
        settings = lora_config(lora)
        settings._register_custom_module({nn.Linear: LowRankLinear})
        torch.manual_seed(2 * seed + 1)
        wrapped = get_peft_model(model, settings)
    model.event_emb = event_emb.to(device)
    freeze_base(wrapped, without=without)
    return wrapped


@torch.no_grad()
def _hear_tier1(event_emb: EventEmbedding, taxonomy: Taxonomy) -> None:
    """Tie the tier-1 families to one column of the first layer, and start all other channels at zero.

    71 symbols share a date, and four leader moves name it: from an equal start the model learns what
    happened on these dates before it learns what such days have in common.
    """
    columns = taxonomy.tier1_channels
    shared = event_emb.fc_in.weight[:, columns[:1]].clone()
    event_emb.fc_in.weight.zero_()
    event_emb.fc_in.weight[:, columns] = shared


def freeze_base(model: nn.Module, *, without: Part | None = None) -> None:
    """Give gradients to LoRA and event embedding alone, or to one of them.

    The whole model is left in eval mode: dropout on frozen weights regularises nothing, it only adds noise.
    """
    model.eval()
    for name, parameter in model.named_parameters():
        lora, event = _is_lora(name) and without != "lora", _is_event(name) and without != "event_emb"
        parameter.requires_grad_(lora or event)


def training_mode(model: nn.Module) -> None:
    """Switch on the dropout of the LoRA layers; everything else stays in eval mode."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout" in name:
            module.train()
        elif isinstance(module, LowRankLinear) and module.use_dora[ADAPTER]:
            module.training = True  # peft asks this flag before it drops anything in DoRA


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of everything that receives gradients."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def trained_sizes(model: nn.Module) -> tuple[int, int]:
    """How many numbers of LoRA and of the event embedding are trained."""
    named = list(trainable(model))
    lora = sum(parameter.numel() for name, parameter in named if _is_lora(name))
    return lora, sum(parameter.numel() for _, parameter in named) - lora


def parameter_groups(
    model: nn.Module, *, learning_rate: float, event_learning_rate: float
) -> list[dict[str, object]]:
    """AdamW groups: LoRA weights at `learning_rate`, the event embedding at `event_learning_rate`."""
    named = list(trainable(model))
    return [
        {"params": [parameter for name, parameter in named if _is_lora(name)], "lr": learning_rate},
        {"params": [parameter for name, parameter in named if _is_event(name)], "lr": event_learning_rate},
    ]


def _is_lora(name: str) -> bool:
    return any(part in name for part in (".lora_A.", ".lora_B.", ".lora_magnitude_vector."))


def _is_event(name: str) -> bool:
    return ".event_emb." in name
