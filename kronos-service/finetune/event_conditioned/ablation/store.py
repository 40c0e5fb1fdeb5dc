"""Finished trainings of an ablation on disk, each under a hash of everything that made it what it is."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kronos_service.events.taxonomy import channel_hash
from kronos_service.finetune.event_conditioned.ablation.variants import AblationVariant
from kronos_service.finetune.event_conditioned.config import RENAMED, VARIABLE, EventLoraConfig
from kronos_service.model.factory import Bundle
from kronos_shared.atomic import replace_file

LAYOUT = 1
"""Raise it when a change of the code makes older records incomparable."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What is kept of one arm trained from one seed."""

    records: pd.DataFrame
    """Validation losses per target, as `validate.score` gives them."""
    trainable: int
    seconds: float
    fixed_losses: list[float]
    """Loss on the fixed train subset: untrained, then after each epoch."""


def what_matters(
    arm: AblationVariant | None,
    config: EventLoraConfig,
    *,
    snapshot_sha256: str,
    bundle: Bundle,
    context: int,
    micro_batch: int,
    precision: str,
) -> dict[str, Any]:
    """Everything that decides the losses of an arm (None: the base itself), except for its name."""
    data = {
        "layout": LAYOUT,
        "snapshot": snapshot_sha256,
        "base": bundle.base.content_sha256,
        "tokenizer": bundle.tokenizer_print.content_sha256,
        "channels": channel_hash(),
        "context": context,
        "precision": precision,
        "scored": config.targets_per_window,
        "train_start": str(config.train_start),
        "val_start": str(config.val_start),
        "test_start": str(config.test_start),
    }
    if arm is None:
        return data
    settings = arm.config(config)
    before = {new: old for old, new in RENAMED.items()}  # the names that finished trainings are kept under
    return data | {
        "conditioning": arm.variant.conditioning,
        "without": arm.variant.without,
        "seed": config.seed,
        "micro_batch": micro_batch,
        "torch": torch.__version__,
        **{before.get(name, name): getattr(settings, name) for name in VARIABLE},
    }


def key_of(matters: Mapping[str, Any]) -> str:
    """The name under which a training with these settings is kept."""
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()[:16]


def load(directory: Path, key: str) -> Finished | None:
    """The finished training of that key; None where there is none, or its records are damaged."""
    try:
        about = json.loads((directory / f"{key}.json").read_bytes())
        content = (directory / f"{key}.parquet").read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != about["records_sha256"]:
        return None
    return Finished(
        records=pd.read_parquet(io.BytesIO(content)),
        trainable=about["trainable"],
        seconds=about["seconds"],
        fixed_losses=about["fixed_losses"],
    )


def save(directory: Path, matters: Mapping[str, Any], name: str, finished: Finished) -> None:
    """Keep a training: first its records, then the json that makes it count as finished."""
    key = key_of(matters)
    content = finished.records.to_parquet(index=False)
    about = {
        "arm": name,
        "settings": dict(matters),
        "trainable": finished.trainable,
        "seconds": finished.seconds,
        "fixed_losses": finished.fixed_losses,
        "records_sha256": hashlib.sha256(content).hexdigest(),
    }
    replace_file(directory / f"{key}.parquet", content)
    replace_file(directory / f"{key}.json", (json.dumps(about, indent=2) + "\n").encode())
