"""What is trained, what is frozen, and that a fresh adapter changes nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.training.lora import (
    Part,
    adapt,
    parameter_groups,
    trainable,
    trained_sizes,
    training_mode,
)
from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import LoraRecord
from kronos_shared.lora_targets import linear_names

ALL = linear_names(["all-linear"])


def lora(rank: int, **settings: Any) -> LoraRecord:
    return LoraRecord(**{"rank": rank, "alpha": 2 * rank, "dropout": 0.0, **settings})


@pytest.fixture(scope="module")
def full_size() -> Kronos:
    """Kronos-base's shape without its 400 MB: tensors on the meta device."""
    with torch.device("meta"):
        return Kronos(**PRESETS["base"].predictor).eval()


def expected_names(layers: int) -> set[str]:
    lora = {
        f"base_model.model.transformer.{layer}.self_attn.{projection}.lora_{half}.default.weight"
        for layer in range(layers)
        for projection in ("q_proj", "v_proj")
        for half in "AB"
    }
    event = {
        f"base_model.model.event_emb.{layer}.{kind}"
        for layer in ("fc_in", "fc_out", "to_input", "to_output")
        for kind in ("weight", "bias")
    }
    return lora | event


def test_the_default_trainable_set_of_the_base_preset_is_exactly_the_named_tensors(full_size: Kronos) -> None:
    model = adapt(full_size, lora=lora(8, dropout=0.05), taps="both", seed=0)
    named = dict(trainable(model))
    assert set(named) == expected_names(layers=12)
    assert sum(p.numel() for name, p in named.items() if ".lora_" in name) == 319_488
    assert sum(p.numel() for p in named.values()) == 1_032_128
    assert trained_sizes(model) == (319_488, 712_640)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}  # where the base is


@pytest.mark.parametrize(("taps", "count"), [("input", 284_992), ("output", 498_816), ("both", 712_640)])
def test_a_tap_left_out_is_not_trained(full_size: Kronos, taps: str, count: int) -> None:
    model = adapt(full_size, lora=lora(8, dropout=0.05), taps=taps, seed=0)
    assert sum(p.numel() for name, p in trainable(model) if ".event_emb." in name) == count


@pytest.mark.parametrize(("without", "count"), [("lora", 712_640), ("event_emb", 319_488)])
def test_a_part_left_out_is_not_trained(full_size: Kronos, without: Part, count: int) -> None:
    model = adapt(full_size, lora=lora(8, dropout=0.05), taps="both", seed=0, without=without)
    named = dict(trainable(model))
    assert not any((".lora_" if without == "lora" else ".event_emb.") in name for name in named)
    assert sum(parameter.numel() for parameter in named.values()) == count


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"taps": "both"}, {"taps": "output"}, ".lora_"),
        ({"lora": lora(4)}, {"lora": lora(2)}, ".event_emb."),
        ({"lora": lora(2, target_modules=ALL)}, {}, ".event_emb."),
        ({}, {"without": "event_emb"}, ".lora_"),
        ({}, {"without": "lora"}, ".event_emb."),
    ],
)
def test_adapters_that_differ_in_one_part_start_from_the_same_other_part(
    bundle: Bundle, one: dict[str, Any], other: dict[str, Any], shared: str
) -> None:
    settings = {"lora": lora(2), "taps": "both", "seed": 1}
    first, second = (
        {name: p for name, p in trainable(adapt(bundle.model, **{**settings, **changes})) if shared in name}
        for changes in (one, other)
    )
    assert first
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def inputs(model: Kronos, seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    s1, s2, s1_targets = (torch.randint(0, 2**model.s1_bits, (2, 20), generator=rng) for _ in range(3))
    return {
        "s1_ids": s1,
        "s2_ids": s2,
        "stamp": torch.ones(2, 20, 5, dtype=torch.int64),
        "events": 5 * torch.randn(2, 20, 20, generator=rng),
        "s1_targets": s1_targets,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("without", [None, "lora", "event_emb"])
def test_at_step_0_the_wrapped_model_equals_the_base_bit_for_bit(
    bundle: Bundle, seed: int, without: Part | None
) -> None:
    given = inputs(bundle.model, seed)
    wrapped = adapt(bundle.model, lora=lora(8, dropout=0.05), taps="both", seed=seed, without=without)
    expected = bundle.model(**{**given, "events": None})
    for got, wanted in zip(wrapped(**given), expected, strict=True):
        assert torch.equal(got, wanted)


def test_the_base_keeps_its_tensors_and_gets_no_event_embedding(bundle: Bundle) -> None:
    wrapped = adapt(bundle.model, lora=lora(2), taps="both", seed=0)
    assert bundle.model.event_emb is None
    shared = {p.data_ptr() for p in bundle.model.parameters()}
    assert {p.data_ptr() for p in wrapped.parameters() if not p.requires_grad} == shared


def test_one_step_moves_the_trainable_tensors_and_no_frozen_bit(bundle: Bundle) -> None:
    model = adapt(bundle.model, lora=lora(2, dropout=0.05), taps="both", seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate=1e-2, event_learning_rate=1e-2))
    training_mode(model)
    for step in range(3):
        s1_logits, s2_logits = model(**inputs(bundle.model, step))
        (s1_logits.square().mean() + s2_logits.square().mean()).backward()
        with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
        assert with_gradient == {name for name, _ in trainable(model)}
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, _ in trainable(model)}


def test_only_the_lora_dropout_is_active_while_training(bundle: Bundle) -> None:
    model = adapt(bundle.model, lora=lora(2, dropout=0.05), taps="both", seed=0)
    training_mode(model)
    active = {name for name, module in model.named_modules() if module.training}
    assert active
    assert all(".lora_dropout" in name for name in active)


def test_dora_drops_inputs_while_training_alone_and_trains_its_magnitudes(bundle: Bundle) -> None:
    model = adapt(bundle.model, lora=lora(2, dropout=0.5, use_dora=True), taps="both", seed=0)
    magnitudes = [p for name, p in trainable(model) if ".lora_magnitude_vector." in name]
    assert magnitudes
    rated = parameter_groups(model, learning_rate=1.0, event_learning_rate=2.0)[0]["params"]
    assert isinstance(rated, list)
    assert all(any(one is parameter for parameter in rated) for one in magnitudes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    given = inputs(bundle.model, 0)
    for mode, drops in ((training_mode, True), (torch.nn.Module.eval, False)):
        mode(model)
        first, second = (model(**given)[0] for _ in range(2))
        assert torch.equal(first, second) != drops


def test_the_event_embedding_hears_each_channel_of_its_taxonomy(bundle: Bundle) -> None:
    one_more = replace(DEFAULT_TAXONOMY, families=(*DEFAULT_TAXONOMY.families, "harvest"))
    model = adapt(bundle.model, lora=lora(2), taps="both", seed=0, taxonomy=one_more)
    widths = {name: p.shape[1] for name, p in trainable(model) if name.endswith(".fc_in.weight")}
    assert list(widths.values()) == [len(one_more.channels)] != [len(DEFAULT_TAXONOMY.channels)]


def test_no_two_parts_of_any_two_seeds_are_drawn_from_one_stream(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    begin = torch.manual_seed

    def counted(seed: int) -> torch.Generator:
        drawn.append(seed)
        return begin(seed)

    monkeypatch.setattr(torch, "manual_seed", counted)
    for seed in range(4):
        adapt(bundle.model, lora=lora(2), taps="both", seed=seed)
    assert len(drawn) == len(set(drawn)) == 8


def test_initial_weights_follow_the_seed(bundle: Bundle) -> None:
    first, again, other = (
        dict(trainable(adapt(bundle.model, lora=lora(2), taps="both", seed=seed))) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_start_from_tier_one_ties_its_families_and_hears_nothing_else(bundle: Bundle) -> None:
    def first_layer(start: str) -> torch.Tensor:
        named = dict(adapt(bundle.model, lora=lora(4), taps="both", seed=0, start=start).named_parameters())
        return named["base_model.model.event_emb.fc_in.weight"]

    every, tier1 = first_layer("all"), first_layer("tier1")
    columns = [DEFAULT_TAXONOMY.channels.index(name) for name in ("fomc_rate", "cpi", "nfp")]
    others = [number for number in range(len(DEFAULT_TAXONOMY.channels)) if number not in columns]

    assert torch.equal(tier1[:, columns], every[:, columns[:1]].expand(-1, 3))
    assert (tier1[:, others] == 0).all()
    assert (every != 0).all()
