"""What makes two trainings the same, and that only whole results count as finished."""

from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.ablation.runs import (
    HASHED,
    LATER,
    RESOLVED,
    UNUSED,
    dependencies,
    directory_of,
    key_of,
    read_result,
    require_current,
)
from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, AblationVariant
from kronos_service.finetune.event_conditioned.config import EventLoraConfig, Recipe, Training
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.run_directory import RunError, RunFingerprint, finish
from kronos_service.finetune.event_conditioned.training.checkpoints import write_verified
from kronos_service.finetune.event_conditioned.training.variants import Variant

CONFIG = EventLoraConfig()
FINGERPRINT = RunFingerprint(
    snapshot="a", base="b", tokenizer="c", processes=1, device="cpu", precision="no", micro_batch=32
)
OTHERWISE: dict[str, Any] = {
    "snapshot": Path("elsewhere"),
    "base_model": "small",
    "revision": "main",
    "tokenizer": "other",
    "tokenizer_revision": "main",
    "run_dir": Path("x"),
    "adapter_store": Path("store"),
    "tracker": "none",
    "checkpoint_every": 7,
    "keep_versions": 3,
    "train_start": date(2021, 1, 2),
    "train_end": date(2024, 12, 30),
    "val_start": date(2025, 1, 2),
    "test_start": date(2025, 7, 2),
    "test_end": date(2026, 3, 30),
    "context": 64,
    "targets_per_window": 16,
    "epochs": 14,
    "batch_size": 16,
    "micro_batch": 8,
    "vram_budget": 4.0,
    "precision": "bf16",
    "learning_rate": 2e-4,
    "event_learning_rate": 1e-3,
    "warmup_steps": 99,
    "weight_decay": 0.02,
    "max_grad_norm": 2.0,
    "rank": 4,
    "alpha": 8,
    "target_modules": ("all-linear",),
    "use_rslora": True,
    "use_dora": True,
    "lora_dropout": 0.1,
    "taps": "input",
    "event_start": "tier1",
    "event_weight": 2.0,
    "blank_probability": 0.2,
    "seed": 1,
    "forecast_origins": 3,
    "forecast_horizon": 1,
    "forecast_paths": 64,
    "recalibrate": True,
    "control": False,
    "placebo": True,
    "promote": "always",
}
"""Another value of every setting."""
EXCLUDED = (
    *("snapshot", "base_model", "revision", "tokenizer", "tokenizer_revision"),
    *("context", "micro_batch", "vram_budget", "precision"),
    *("run_dir", "adapter_store", "checkpoint_every", "keep_versions", "promote", "tracker"),
    *(
        "control",
        "placebo",
        "forecast_origins",
        "forecast_horizon",
        "forecast_paths",
        "recalibrate",
        "test_end",
    ),
)
"""Settings that a key leaves out, each for a reason that `runs` gives."""


def key(
    variant: AblationVariant = VARIANTS["adapter"],
    config: EventLoraConfig = CONFIG,
    fingerprint: RunFingerprint = FINGERPRINT,
    context: int = 72,
) -> str:
    return key_of(dependencies(variant, config, fingerprint, context=context, taxonomy=DEFAULT_TAXONOMY))


def test_every_setting_is_varied_here() -> None:
    assert set(OTHERWISE) == set(EventLoraConfig.model_fields)
    assert set(EXCLUDED) == HASHED | RESOLVED | UNUSED
    assert all(value != getattr(CONFIG, name) for name, value in OTHERWISE.items())


def test_every_setting_of_a_command_of_many_trainings_reaches_each_of_them() -> None:
    for command, shared in ((AblateConfig, Training), (WalkForwardConfig, Recipe)):
        for name in shared.model_fields:
            training = command(**{name: OTHERWISE[name]}).training(3)
            assert training == EventLoraConfig(seed=3, **{name: OTHERWISE[name]})


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_changed_setting_is_another_training_unless_it_is_excluded_by_name(name: str) -> None:
    along: dict[str, Any] = {"promote": "always"} if name == "control" else {}
    changed = CONFIG.replace(**along, **{name: OTHERWISE[name]})
    assert (key(config=changed) == key()) == (name in EXCLUDED)


@pytest.mark.parametrize("name", [name for name in OTHERWISE if name not in EXCLUDED])
def test_a_variant_of_any_setting_is_not_taken_for_the_adapter(name: str) -> None:
    """Also of one that `--vary` does not offer."""
    variant = AblationVariant(variant=Variant(name="new"), question="?", changes={name: OTHERWISE[name]})
    assert key(variant) != key()


@pytest.mark.parametrize("name", [item.name for item in fields(RunFingerprint)])
def test_other_data_base_or_machine_is_another_training(name: str) -> None:
    other: Any = 2 if isinstance(getattr(FINGERPRINT, name), int) else "other"
    assert key(fingerprint=replace(FINGERPRINT, **{name: other})) != key()


def test_another_context_or_conditioning_is_another_training() -> None:
    others = ("control", "placebo", "calendar-only", "leaders-only", "events-only", "lora-only")
    keys = [key(), key(context=71), *(key(VARIANTS[name]) for name in others)]
    assert len(set(keys)) == len(keys)


def test_variants_that_come_to_the_same_settings_are_one_training() -> None:
    assert key(VARIANTS["taps-both"]) == key(config=CONFIG.replace(taps="both"))
    assert key(VARIANTS["rank-4"]) == key(config=CONFIG.replace(rank=4))


def test_a_training_is_found_under_the_name_it_was_started_with(tmp_path: Path) -> None:
    named = directory_of(tmp_path, VARIANTS["rank-4"], 1, "abc")
    assert named == tmp_path / "rank-4-seed-1-abc"
    (tmp_path / "rank=4-seed-1-abc").mkdir()
    assert directory_of(tmp_path, VARIANTS["rank-4"], 1, "abc") == tmp_path / "rank=4-seed-1-abc"


RECORDS = pd.DataFrame(
    {"symbol": ["A"], "date": pd.to_datetime(["2025-01-02"]), "is_event": [True], "total": [1.0 / 3.0]}
)


def finished(directory: Path) -> Path:
    """A run directory whose training has ended."""
    write_verified(directory / "trained", {"val_losses.parquet": RECORDS.to_parquet(index=False)})
    finish(directory, {"trainable": 12, "seconds": 1.5})
    return directory


def test_what_was_written_comes_back_to_the_bit(tmp_path: Path) -> None:
    found = read_result(finished(tmp_path / "run"))
    assert found is not None
    pd.testing.assert_frame_equal(found.records, RECORDS, check_exact=True)
    assert (found.trainable, found.seconds) == (12, 1.5)


def test_a_training_that_was_cut_off_has_no_result(tmp_path: Path) -> None:
    assert read_result(tmp_path / "none") is None
    directory = finished(tmp_path / "run")
    (directory / "finished.json").unlink()
    assert read_result(directory) is None


def flip_a_bit(directory: Path) -> None:
    path = directory / "trained" / "val_losses.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(directory: Path) -> None:
    (directory / "finished.json").write_text("{")


def lose(directory: Path) -> None:
    (directory / "trained" / "sha256.json").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut, lose])
def test_damaged_files_are_named_and_not_used(tmp_path: Path, damage: Any) -> None:
    directory = finished(tmp_path / "run")
    damage(directory)
    with pytest.raises(RunError, match=r"run is damaged .* remove it to train this variant again"):
        read_result(directory)


def test_an_ablation_by_an_earlier_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "ablation.json").write_text("{}")
    with pytest.raises(RunError, match=r"earlier version .* choose another --out"):
        require_current(tmp_path)
    assert (tmp_path / "ablation.json").read_text() == "{}"


def test_the_key_depends_on_the_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert key() != before


def test_settings_that_came_later_leave_the_names_of_earlier_trainings_as_they_were() -> None:
    settings = CONFIG.model_dump()
    assert all(settings[name] == value for name, value in LATER.items())
    depends_on = dependencies(VARIANTS["adapter"], CONFIG, FINGERPRINT, context=72, taxonomy=DEFAULT_TAXONOMY)
    assert not depends_on.keys() & LATER.keys()
