"""The shapes of the released models, by their published sizes."""

import re
from typing import get_args

import pytest
import torch
from tiny_models import count_parameters

from kronos_service.finetune.config import PretrainConfig
from kronos_service.finetune.event_conditioned.config import AuditConfig, EvaluateConfig, EventLoraConfig
from kronos_service.inference.settings import ForecastConfig
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import load_bundle
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import BASES, PRESETS, PresetName
from kronos_service.model.tokenizer import KronosTokenizer


@pytest.mark.parametrize(
    ("name", "predictor", "tokenizer", "context"),
    [
        ("mini", 4_108_032, 3_958_042, 2048),
        ("small", 24_741_376, 3_958_042, 512),
        ("base", 102_310_592, 3_958_042, 512),
    ],
)
def test_presets_have_the_published_sizes(name: str, predictor: int, tokenizer: int, context: int) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        assert count_parameters(Kronos(**preset.predictor)) == predictor
        assert count_parameters(KronosTokenizer(**preset.tokenizer)) == tokenizer
    assert preset.context == context


def test_nano_is_small_enough_to_ship() -> None:
    nano = PRESETS["nano"]
    total = count_parameters(Kronos(**nano.predictor)) + count_parameters(KronosTokenizer(**nano.tokenizer))
    assert total * 4 < 4_000_000  # bytes in fp32


def test_tokenizers_differ_by_group_size_and_every_pair_agrees_on_bits() -> None:
    sizes = {name: preset.tokenizer["group_size"] for name, preset in PRESETS.items()}
    assert sizes == {"nano": 4, "mini": 5, "small": 4, "base": 4}
    for preset in PRESETS.values():
        for bits in ("s1_bits", "s2_bits"):
            assert preset.tokenizer[bits] == preset.predictor[bits]


def test_only_mini_has_no_pinned_revision() -> None:
    hub = {name: preset for name, preset in PRESETS.items() if preset.hub_id}
    unpinned = [name for name, p in hub.items() if not (p.hub_revision and p.tokenizer_revision)]
    assert unpinned == ["mini"]


def test_there_is_one_list_of_names() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    assert get_args(PretrainConfig.model_fields["preset"].annotation) == get_args(PresetName)
    for settings in (EventLoraConfig, EvaluateConfig, AuditConfig, ForecastConfig):
        assert BASES in str(settings.model_fields["base_model"].description)
    with pytest.raises(BaseModelError, match=re.escape(f"expected {BASES}; got 'huge'")):
        load_bundle("huge")
