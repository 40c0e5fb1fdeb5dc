"""The variants differ from the adapter in what they say, and in nothing else."""

from typing import get_args

import pytest

from kronos_service.finetune.event_conditioned.ablation.config import VARIABLE, AblateConfig, VariantName
from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, chosen, varied
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_shared.cli import ConfigError

COMMON = EventLoraConfig(rank=6, alpha=7, taps="input", epochs=3, seed=5)
CHANGES: dict[str, dict[str, object]] = {
    "adapter": {},
    "control": {"conditioning": "zeroed"},
    "placebo": {"conditioning": "permuted"},
    "rank-8": {"rank": 8},
    "rank-4": {"rank": 4},
    "all-linear": {"target_modules": ("all-linear",)},
    "all-linear-rank-2": {"target_modules": ("all-linear",), "rank": 2},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "taps-input": {},
    "taps-output": {"taps": "output"},
    "taps-both": {"taps": "both"},
    "calendar-only": {"conditioning": "calendar"},
    "leaders-only": {"conditioning": "leaders"},
    "events-only": {"without": "lora"},
    "lora-only": {"without": "event_emb"},
}
"""Variant -> what it changes of the settings and of the training."""


def difference(name: str) -> dict[str, object]:
    variant = VARIANTS[name]
    changed = variant.config(COMMON).model_dump()
    settings = {key: value for key, value in changed.items() if value != COMMON.model_dump()[key]}
    parts = {"conditioning": variant.variant.conditioning, "without": variant.variant.without}
    return settings | {key: value for key, value in parts.items() if value not in ("real", None)}


@pytest.mark.parametrize(("name", "expected"), CHANGES.items())
def test_a_variant_changes_what_it_says(name: str, expected: dict[str, object]) -> None:
    assert difference(name) == expected


def test_every_variant_is_offered_and_says_what_it_changes() -> None:
    assert tuple(VARIANTS) == get_args(VariantName)
    assert set(VARIANTS) == set(CHANGES)


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("blank_probability=0.5", "blank_probability", 0.5),
        ("rank=2", "rank", 2),
        ("alpha=4", "alpha", 4),
        ("target_modules=k_proj,w1", "target_modules", ("k_proj", "w1")),
        ("taps=both", "taps", "both"),
    ],
)
def test_a_varied_setting_is_a_variant_of_its_own(assignment: str, name: str, value: object) -> None:
    variant = varied(assignment)
    assert variant.name == assignment
    assert variant.config(COMMON).model_dump() == COMMON.model_dump() | {name: value}


@pytest.mark.parametrize("name", VARIABLE)
def test_every_variable_setting_can_be_parsed(name: str) -> None:
    value = getattr(COMMON, name)
    text = ",".join(value) if isinstance(value, tuple) else value
    changed = varied(f"{name.replace('_', '-')}={text}").config(COMMON)
    assert changed == COMMON
    assert type(getattr(changed, name)) is type(value)


@pytest.mark.parametrize(
    "assignment", ["targets_per_window=8", "rank", "rank=", "rank=many", "seed=1", "test_end=2020-01-01"]
)
def test_what_cannot_be_varied_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--vary"):
        varied(assignment)


def test_adapter_and_control_are_always_there_and_all_variants_are_the_default() -> None:
    assert [one.name for one in chosen((), ())] == list(VARIANTS)
    assert [one.name for one in chosen(("rank-4", "adapter"), ())] == ["adapter", "control", "rank-4"]
    named = [one.name for one in chosen((), ("max-grad-norm=2",))]
    assert named == ["adapter", "control", "max_grad_norm=2.0"]


def test_the_common_settings_reach_every_training_and_their_ranges_are_checked_at_once() -> None:
    config = AblateConfig(epochs=3, blank_probability=0.4, targets_per_window=16, context=100)
    assert config.training(7) == EventLoraConfig(
        epochs=3, blank_probability=0.4, targets_per_window=16, context=100, seed=7
    )
    with pytest.raises(ConfigError, match="blank_probability"):
        AblateConfig(vary=("blank_probability=1.5",))
    with pytest.raises(ConfigError, match="seeds"):
        AblateConfig(seeds=())
