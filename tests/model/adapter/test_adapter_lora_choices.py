"""Whatever layers LoRA adapts, and however: fresh it is the base, and trained it merges and loads."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable, training_mode
from kronos_service.finetune.event_conditioned.training.lora_layer import LowRankLinear
from kronos_service.model.adapter.read import (
    LoadedAdapter,
    load_adapter,
    lora_config,
    read_adapter,
)
from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import ADAPTER_CONFIG, MANIFEST, LoraRecord
from kronos_shared.lora_targets import (
    ALL_LINEAR,
    HEADS,
    LINEAR_NAMES,
    linear_names,
    names_of,
    target_pattern,
)

CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "all-linear": {"target_modules": linear_names([ALL_LINEAR])},
    "list": {"target_modules": ("k_proj", "w2", "cross_attn.q_proj", "proj_s2")},
    "rslora": {"use_rslora": True, "alpha": 3},
    "dora": {"use_dora": True},
    "all": {"target_modules": LINEAR_NAMES, "use_dora": True, "use_rslora": True},
}
Pair = tuple[Tensor, Tensor]


def record(name: str, dropout: float = 0.05) -> LoraRecord:
    return LoraRecord(**{"rank": 4, "alpha": 8, "dropout": dropout, **CHOICES[name]})


@pytest.fixture(params=CHOICES, scope="module")
def lora(request: pytest.FixtureRequest) -> LoraRecord:
    return record(request.param)


@pytest.fixture(scope="module")
def loaded(lora: LoraRecord, adapter_of: Callable[..., Path], bundle: Bundle) -> tuple[Path, LoadedAdapter]:
    directory = adapter_of(3, lora)
    return directory, load_adapter(read_adapter(directory), bundle)


def inputs(bundle: Bundle) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    s1, s2, targets = (torch.randint(2**bundle.model.s1_bits, (2, 20), generator=rng) for _ in range(3))
    stamp = torch.ones(2, 20, 5, dtype=torch.int64)
    return {"s1_ids": s1, "s2_ids": s2, "stamp": stamp, "s1_targets": targets}


def logits(model: Any, bundle: Bundle) -> Pair:
    with torch.inference_mode():
        s1, s2 = model(**inputs(bundle))
    return s1, s2


def linear_layers(model: Kronos) -> set[str]:
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name for name in layers if not name.startswith("event_emb.")}


def test_each_linear_layer_has_one_name_and_all_linear_leaves_the_heads_out(
    bundle: Bundle,
) -> None:
    layers = linear_layers(bundle.model)
    named = {one: [n for n in LINEAR_NAMES if re.fullmatch(target_pattern((n,)), one)] for one in layers}
    assert all(len(names) == 1 for names in named.values())
    assert {names[0] for names in named.values()} == set(LINEAR_NAMES)
    every = target_pattern(linear_names([ALL_LINEAR]))
    assert {one for one in layers if re.fullmatch(every, one)} == layers - {f"head.{name}" for name in HEADS}
    assert names_of(["transformer.0.ffn.w1", "head.proj_s1", "event_emb.fc_in"]) == ("w1", "proj_s1")


def test_a_fresh_adapter_is_the_base_to_the_bit(lora: LoraRecord, bundle: Bundle) -> None:
    wrapped = adapt(bundle.model, lora=lora, taps="both", seed=0)
    for got, wanted in zip(logits(wrapped, bundle), logits(bundle.model, bundle), strict=True):
        assert torch.equal(got, wanted)


def test_it_merges_into_the_named_layers_alone_and_computes_the_same(
    lora: LoraRecord, loaded: tuple[Path, LoadedAdapter], bundle: Bundle
) -> None:
    merged = loaded[1].merged
    base, pattern = dict(bundle.model.named_parameters()), target_pattern(lora.target_modules)
    after = dict(merged.named_parameters())
    changed = {name for name in base if not torch.equal(after[name], base[name])}
    named = {f"{one}.weight" for one in linear_layers(bundle.model) if re.fullmatch(pattern, one)}
    assert changed == named
    own = {name for name in base if after[name] is not base[name]}
    biases = {name.replace(".weight", ".bias") for name in named}
    assert own <= named | biases
    for got, wanted in zip(logits(merged, bundle), logits(loaded[1].attached, bundle), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)
    assert not torch.equal(logits(merged, bundle)[1], logits(bundle.model, bundle)[1])


def test_plain_peft_loads_and_merges_it_to_the_same_bits(
    loaded: tuple[Path, LoadedAdapter], bundle: Bundle
) -> None:
    directory, ours = loaded
    beside = PeftModel.from_pretrained(deepcopy(bundle.model), str(directory)).eval()
    for got, wanted in zip(logits(beside, bundle), logits(ours.attached, bundle), strict=True):
        assert torch.equal(got, wanted)
    merged: Any = beside.merge_and_unload()
    want = dict(ours.merged.named_parameters())
    assert all(torch.equal(one, want[name]) for name, one in merged.named_parameters())


def test_the_files_say_what_is_not_the_default_and_nothing_else(
    lora: LoraRecord, loaded: tuple[Path, LoadedAdapter]
) -> None:
    directory = loaded[0]
    written = json.loads((directory / MANIFEST).read_text())["lora"]
    config = json.loads((directory / ADAPTER_CONFIG).read_text())
    other = {name for name in ("target_modules", "use_rslora", "use_dora") if name in written}
    given = lora.model_dump()
    assert other == given.keys() - {"rank", "alpha", "dropout"}
    assert {name for name in ("use_rslora", "use_dora") if name in config} == other - {"target_modules"}
    assert config["inference_mode"] is True
    assert read_adapter(directory).manifest.lora == lora


@pytest.mark.parametrize("name", CHOICES)
def test_a_step_computes_what_plain_peft_computes(name: str, bundle: Bundle) -> None:
    def outcome(wrapped: Any) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(4)
        for key, parameter in wrapped.named_parameters():
            parameter.requires_grad_(".lora_" in key)
            if ".lora_" in key:
                with torch.no_grad():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        s1, s2 = wrapped(**inputs(bundle))
        (s1.square().mean() + s2.square().mean()).backward()
        grads = {key: one.grad for key, one in wrapped.named_parameters() if one.grad is not None}
        return {"s1": s1.detach(), "s2": s2.detach(), **grads}

    lora = record(name, dropout=0.0)
    torch.manual_seed(1)  # of the LoRA part of seed 0
    plain = get_peft_model(deepcopy(bundle.model), lora_config(lora)).eval()
    ours = adapt(bundle.model, lora=lora, taps="both", seed=0)
    assert any(isinstance(module, LowRankLinear) for module in ours.modules())
    got, wanted = outcome(ours), outcome(plain)
    assert got.keys() == wanted.keys()
    for key in got:
        torch.testing.assert_close(got[key], wanted[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["default", "all"])
def test_dropout_drops_while_training_and_only_then(name: str, bundle: Bundle) -> None:
    model = adapt(bundle.model, lora=record(name, dropout=0.5), taps="both", seed=0)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(0.05)
    assert torch.equal(model(**inputs(bundle))[0], model(**inputs(bundle))[0])
    training_mode(model)
    assert not torch.equal(model(**inputs(bundle))[0], model(**inputs(bundle))[0])


def test_settings_of_the_command_reach_the_adapter() -> None:
    """Alpha is twice the rank unless it is given."""
    assert EventLoraConfig(rank=3).lora() == LoraRecord(rank=3, alpha=6, dropout=0.05)
    assert EventLoraConfig(alpha=5, target_modules=("all-linear",)).lora() == LoraRecord(
        rank=8, alpha=5, dropout=0.05, target_modules=linear_names([ALL_LINEAR])
    )
    assert EventLoraConfig(target_modules=("v_proj", "q_proj")) == EventLoraConfig()
