"""What makes two trainings the same, and that only whole records count as finished."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_service.finetune.event_conditioned.ablation.store import (
    Finished,
    key_of,
    load,
    save,
    what_matters,
)
from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, AblationVariant
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.model.factory import Bundle

CONFIG = EventLoraConfig()
FINISHED = Finished(
    records=pd.DataFrame(
        {"symbol": ["A"], "date": pd.to_datetime(["2025-01-02"]), "is_event": [True], "total": [1.0 / 3.0]}
    ),
    trainable=12,
    seconds=1.5,
    fixed_losses=[2.0, 1.0],
)


def key(
    bundle: Bundle,
    arm: AblationVariant | None = VARIANTS["adapter"],
    config: EventLoraConfig = CONFIG,
    snapshot: str = "a",
    context: int = 72,
    micro_batch: int = 32,
    precision: str = "no",
) -> str:
    matters = what_matters(
        arm,
        config,
        snapshot_sha256=snapshot,
        bundle=bundle,
        context=context,
        micro_batch=micro_batch,
        precision=precision,
    )
    return key_of(matters)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 14},
        {"seed": 1},
        {"blank_probability": 0.2},
        {"weight_decay": 0.02},
        {"event_learning_rate": 1e-3},
        {"rank": 4},
        {"taps": "input"},
        {"batch_size": 16},
        {"targets_per_window": 16},
        {"event_weight": 2.0},
        {"lora_dropout": 0.1},
    ],
    ids=str,
)
def test_a_changed_setting_is_another_training(bundle: Bundle, change: dict[str, Any]) -> None:
    assert key(bundle, config=CONFIG.replace(**change)) != key(bundle)


def test_other_data_context_base_or_conditioning_is_another_training(bundle: Bundle) -> None:
    other_base = replace(bundle, base=replace(bundle.base, content_sha256="0" * 64))
    keys = [
        key(bundle),
        key(bundle, snapshot="b"),
        key(bundle, context=71),
        key(bundle, micro_batch=16),
        key(bundle, precision="bf16"),
        key(other_base),
        *(key(bundle, VARIANTS[name]) for name in ("control", "placebo", "calendar-only", "events-only")),
        key(bundle, None),
    ]
    assert len(set(keys)) == len(keys)


def test_arms_that_come_to_the_same_settings_are_one_training(bundle: Bundle) -> None:
    assert key(bundle, VARIANTS["taps-both"]) == key(bundle, VARIANTS["adapter"], CONFIG.replace(taps="both"))
    assert key(bundle, VARIANTS["rank-4"]) == key(bundle, VARIANTS["adapter"], CONFIG.replace(rank=4))


def test_what_does_not_touch_the_losses_is_the_same_training(bundle: Bundle) -> None:
    assert key(bundle, config=CONFIG.replace(run_dir=Path("x"), promote="always")) == key(bundle)


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    assert load(tmp_path, key_of({"a": 1})) is None
    save(tmp_path, {"a": 1}, "adapter", FINISHED)
    found = load(tmp_path, key_of({"a": 1}))
    assert found is not None
    pd.testing.assert_frame_equal(found.records, FINISHED.records, check_exact=True)
    assert replace(found, records=FINISHED.records) == FINISHED


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_training_with_a_file_missing_is_not_finished(tmp_path: Path, suffix: str) -> None:
    save(tmp_path, {"a": 1}, "adapter", FINISHED)
    (tmp_path / f"{key_of({'a': 1})}.{suffix}").unlink()
    assert load(tmp_path, key_of({"a": 1})) is None


def test_damaged_records_are_not_finished(tmp_path: Path) -> None:
    save(tmp_path, {"a": 1}, "adapter", FINISHED)
    path = tmp_path / f"{key_of({'a': 1})}.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load(tmp_path, key_of({"a": 1})) is None
