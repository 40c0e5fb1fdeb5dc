"""The trainings of an ablation on disk: each is a run directory, named after everything its losses depend on.

<out>/<variant>-seed-<n>-<key>/
    config.json, settled.json, finished.json   as in any run; variant.json says which variant it is
    metrics.jsonl, tensorboard/, checkpoints/  as in any training
    trained/                                   weights and validation losses
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.ablation.table import VariantResult
from kronos_service.finetune.event_conditioned.ablation.variants import AblationVariant
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.run_directory import (
    FINISHED,
    MAY_DIFFER,
    RunError,
    RunFingerprint,
)
from kronos_service.finetune.event_conditioned.training.checkpoints import read_verified
from kronos_service.finetune.event_conditioned.training.variants import RECORDS
from kronos_shared.lora_targets import DEFAULT_TARGETS

LAYOUT = 2
"""Raise it when a change of the code makes earlier trainings incomparable."""

HASHED = frozenset({"snapshot", "base_model", "revision", "tokenizer", "tokenizer_revision"})
"""Names of contents: the key holds the contents' hashes."""
RESOLVED = frozenset({"context", "micro_batch", "vram_budget", "precision"})
"""May be left to the program: the key holds what it chose."""
UNUSED = MAY_DIFFER | {
    "adapter_store",
    "control",
    "placebo",
    "forecast_origins",
    "forecast_horizon",
    "forecast_paths",
    "recalibrate",
    "test_end",
}
"""Change no loss of the one training: an ablation publishes, forecasts and tests nothing."""
LATER: Mapping[str, Any] = {
    "train_end": None,
    "event_start": "all",
    "alpha": None,
    "target_modules": DEFAULT_TARGETS,
    "use_rslora": False,
    "use_dora": False,
}
"""Settings that came later, with the value that every earlier training had: it leaves the key as it was."""


def dependencies(
    variant: AblationVariant,
    config: EventLoraConfig,
    fingerprint: RunFingerprint,
    *,
    context: int,
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    """Everything that the losses of a training depend on: all settings but those that are named above, so
    that a new setting counts without being listed.
    """
    settings = variant.config(config).model_dump()
    return {
        **{
            name: value
            for name, value in settings.items()
            if name not in HASHED | RESOLVED | UNUSED and (name, value) not in LATER.items()
        },
        **asdict(fingerprint),
        "context": context,
        "conditioning": variant.variant.conditioning,
        "without": variant.variant.without,
        "channels": taxonomy.sha256,
        "torch": torch.__version__,
        "layout": LAYOUT,
    }


def key_of(depends_on: dict[str, Any]) -> str:
    """A short name of these dependencies; variants that come to the same training share it."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:16]


def directory_of(out: Path, variant: AblationVariant, seed: int, key: str) -> Path:
    """Where the training with this key is, under whatever name, or else is to be."""
    started = sorted(out.glob(f"*-{key}"))
    return started[0] if started else out / f"{variant.name}-seed-{seed}-{key}"


def read_result(directory: Path) -> VariantResult | None:
    """The result of a training that has finished, or None.

    Raises:
        RunError: its files are damaged.
    """
    if not (directory / FINISHED).exists():
        return None
    try:
        finished = json.loads((directory / FINISHED).read_bytes())
        records = pd.read_parquet(io.BytesIO(read_verified(directory / "trained")[RECORDS]))
    except (OSError, ValueError) as error:
        raise RunError(f"{directory} is damaged ({error}): remove it to train this variant again") from None
    return VariantResult(records=records, trainable=finished["trainable"], seconds=finished["seconds"])


def require_current(out: Path) -> None:
    """Refuse a directory whose trainings an earlier version stored in its own way, under records/.

    Raises:
        RunError: with what to do.
    """
    if (out / "records").is_dir():
        raise RunError(
            f"{out} holds an ablation by an earlier version (records/), which can be neither resumed nor "
            "extended: choose another --out, where every variant is trained again; its figures stay in "
            f"{out / 'ablation.json'}"
        )
