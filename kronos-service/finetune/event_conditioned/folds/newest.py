"""The adapter that a walk-forward publishes: trained to the snapshot's end, its evidence the folds'."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from kronos_service.finetune.event_conditioned.audit.audit import require_no_leak
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.folds.pooling import find
from kronos_service.finetune.event_conditioned.provenance import data_record
from kronos_service.finetune.event_conditioned.report.model_card import pooled_card
from kronos_service.finetune.event_conditioned.run_directory import (
    FINISHED,
    fingerprint_of,
    finish,
    read_settings,
    variant_run,
    writing,
)
from kronos_service.finetune.event_conditioned.training.memory_budget import fit
from kronos_service.finetune.event_conditioned.training.setup import prepare_training
from kronos_service.finetune.event_conditioned.training.signals import stop_on_signals
from kronos_service.finetune.event_conditioned.training.variants import ADAPTER, train_variant
from kronos_service.model.adapter.write import save_adapter

NEWEST = "newest"


def train_newest(
    config: EventLoraConfig, window: tuple[date, date], evidence: Mapping[str, Any], directory: Path
) -> Path:
    """Train on all targets of the window (inclusive), with no validation, and return the adapter's directory.

    `evidence` becomes the manifest's `metrics["walk_forward"]`. An interrupted training resumes; a finished
    one is returned as it is.

    Raises:
        RunError: the directory holds a training of other settings or data.
        Stopped, KronosError: as a training does.
    """
    first, last = window
    config = config.replace(run_dir=directory, train_start=first, promote="never", **_after(last))
    if (directory / FINISHED).exists():
        read_settings(directory, dict(config))
        return directory / "adapter"
    setup = prepare_training(config, {"train": (np.datetime64(first), np.datetime64(last))}, directory.parent)
    audit = require_no_leak(setup.snapshot, setup.splits, setup.bundle, seed=config.seed)
    train, model = setup.splits.dataset("train"), setup.bundle.model
    fingerprint = fingerprint_of(setup, fit(config, train, model, setup.accelerator).windows)
    about = {"name": NEWEST, "question": "the adapter that walk-forward publishes"}
    with (
        variant_run(directory, config, about, fingerprint),
        writing(directory, command="the same walk-forward command"),
        stop_on_signals() as stop,
    ):
        trained = train_variant(
            ADAPTER,
            config,
            setup.splits,
            setup.bundle,
            setup.accelerator,
            directory,
            micro_batch=fingerprint.micro_batch,
            tracker=config.tracker,
            stop=stop,
        )
        data = data_record(setup.snapshot, {"train": (str(first), str(last))}, audit)
        gain = find(evidence["gains"], "adapter", "control", "event")
        if not (directory / "adapter").exists():
            save_adapter(
                trained.model,
                setup.bundle,
                directory / "adapter",
                context=setup.context,
                data=data,
                metrics={"walk_forward": evidence},
                gain=gain["gain"] if gain else "unknown",
                card=pooled_card(config, setup.bundle.base.repo, data, evidence),
            )
        finish(directory, {"seconds": trained.seconds})
    return directory / "adapter"


def _after(last: date) -> dict[str, date]:
    """Split dates after the window, which the settings must name and nothing reads."""
    after = last.fromordinal(last.toordinal() + 1)
    test = last.fromordinal(last.toordinal() + 2)
    return {"val_start": after, "test_start": test, "test_end": test}
