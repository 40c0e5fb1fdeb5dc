"""The event-lora job: snapshot and base in, a judged and perhaps promoted adapter out."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned import present
from kronos_service.finetune.event_conditioned.arms import Arm, gains_over_control, train_arms
from kronos_service.finetune.event_conditioned.audit.job import require_no_leak
from kronos_service.finetune.event_conditioned.checkpoint import save_adapter
from kronos_service.finetune.event_conditioned.config import LONGEST_CONTEXT, EventLoraConfig
from kronos_service.finetune.event_conditioned.criteria import Criterion, RunFigures, judge, may_promote
from kronos_service.finetune.event_conditioned.gain import Gain
from kronos_service.finetune.event_conditioned.lora import trainable
from kronos_service.finetune.event_conditioned.splits import (
    Splits,
    build_splits,
    dead_channels,
    require_events,
)
from kronos_service.finetune.event_conditioned.validate import score, summarize, summarize_families
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.adapter_manifest import FILES, MANIFEST, AuditRecord, DataRecord
from kronos_shared.adapter_store import publish
from kronos_shared.atomic import replace_file
from kronos_shared.errors import KronosError


class RunError(KronosError):
    """The run directory cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that is settled before the first step."""

    config: EventLoraConfig
    directory: Path
    accelerator: Accelerator
    snapshot: Snapshot
    bundle: Bundle
    context: int
    splits: Splits
    audit: AuditRecord


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves behind."""

    run_dir: Path
    criteria: list[Criterion]
    gains: dict[str, Gain]
    """Event-day and quiet-day gains over the control, of the adapter and of the placebo."""
    promoted: str | None
    """The version made LATEST, or None."""


def event_lora(config: EventLoraConfig) -> Result:
    """Train an adapter (and its control and placebo, where asked), judge it, and promote it if it may be.

    Raises:
        KronosError: anything the user can mend, named by its subclass.
    """
    started = time.monotonic()
    run = prepare(config)
    base = score(
        run.bundle.model,
        run.splits.dataset("val"),
        run.accelerator,
        micro_batch=config.windows_at_once,
        events=False,
    )
    arms = train_arms(
        config,
        run.splits,
        run.bundle,
        run.accelerator,
        run.directory,
        micro_batch=config.windows_at_once,
    )
    gains = gains_over_control(arms, config.seed)
    figures = val_figures({"base": base} | {name: arm.records for name, arm in arms.items()}, gains)
    _save(run, arms["adapter"], figures, gains)
    criteria = judge(_run_figures(run, arms["adapter"], figures, gains))
    promoted = None
    if config.force or may_promote(criteria, require_gain=config.require_gain):
        promoted = publish(run.directory / "adapter", config.adapters, keep=config.keep_versions).version
    _write_results(run.directory, criteria, figures, base, arms)
    result = Result(run_dir=run.directory, criteria=criteria, gains=gains, promoted=promoted)
    _show(config, result, figures, time.monotonic() - started)
    return result


def prepare(config: EventLoraConfig) -> Run:
    """Read the snapshot and the base, build the splits, show them, and audit them for leaks."""
    directory = _new_directory(config)
    accelerator = _accelerator()
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        device=str(accelerator.device),
    )
    context = config.context or min(bundle.context, LONGEST_CONTEXT)
    with present.status("encoding events, tokenising windows"):
        splits = build_splits(
            snapshot,
            bundle,
            dates=config.split_dates(),
            context=context,
            scored=config.scored,
            cache=directory.parent / "token-cache",
        )
    for name in ("train", "val"):
        require_events(splits, name)
    present.data_table(snapshot, bundle, splits, dead_channels(splits.dataset("train")))
    with present.status("auditing: was anything known before its time?"):
        audit = require_no_leak(snapshot, splits, bundle, seed=config.seed)
    return Run(
        config=config,
        directory=directory,
        accelerator=accelerator,
        snapshot=snapshot,
        bundle=bundle,
        context=context,
        splits=splits,
        audit=audit,
    )


def val_figures(records: dict[str, pd.DataFrame], gains: dict[str, Gain]) -> dict[str, Any]:
    """Validation means per model, over event, quiet and all targets and per family, and the gains."""
    return {
        "val": {name: summarize(one) for name, one in records.items()},
        "val_families": {name: summarize_families(one) for name, one in records.items()},
        "gains": {name: asdict(one) for name, one in gains.items()},
    }


def _accelerator() -> Accelerator:
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return Accelerator(mixed_precision="bf16" if bf16 else "no")


def _new_directory(config: EventLoraConfig) -> Path:
    """Create the run directory and write the configuration before anything is trained."""
    directory = config.run_dir or Path("runs") / f"event-lora-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    try:
        if directory.exists() and any(directory.iterdir()):
            raise RunError(f"{directory} is not empty: choose another --run-dir, or remove it")
        _write_json(directory / "config.json", asdict(config))
    except OSError as error:
        raise RunError(f"cannot write to the run directory {directory}: {error.strerror}") from None
    return directory


def _save(run: Run, arm: Arm, figures: dict[str, Any], gains: dict[str, Gain]) -> None:
    gain = gains.get("adapter_event")
    data = DataRecord(
        snapshot=run.snapshot.name,
        sha256=run.snapshot.sha256,
        has_manifest=not run.snapshot.flagged,
        splits={name: (str(split.first), str(split.last)) for name, split in run.splits.splits.items()},
        audit=run.audit,
    )
    save_adapter(
        arm.model,
        run.bundle,
        run.directory / "adapter",
        context=run.context,
        data=data,
        metrics=figures,
        gain=asdict(gain) if gain else "unknown",
        card=present.model_card(run.config, run.bundle, run.snapshot, figures["val"], gain),
    )


def _run_figures(run: Run, arm: Arm, figures: dict[str, Any], gains: dict[str, Gain]) -> RunFigures:
    return RunFigures(
        fixed_losses=arm.fixed_losses,
        base=figures["val"]["base"],
        adapted=figures["val"]["adapter"],
        gain=gains.get("adapter_event"),
        trainable=sum(parameter.numel() for _, parameter in trainable(arm.model)),
        peak_bytes=arm.peak_bytes,
        seconds=arm.seconds,
        adapter_bytes=sum((run.directory / "adapter" / name).stat().st_size for name in (*FILES, MANIFEST)),
        audit=run.audit,
    )


def _write_results(
    directory: Path,
    criteria: list[Criterion],
    figures: dict[str, Any],
    base: pd.DataFrame,
    arms: dict[str, Arm],
) -> None:
    _write_json(directory / "criteria.json", [asdict(one) for one in criteria])
    _write_json(directory / "results.json", figures)
    records = {"base": base} | {name: arm.records for name, arm in arms.items()}
    losses = pd.concat([one.assign(model=name) for name, one in records.items()], ignore_index=True)
    losses.to_parquet(directory / "val_losses.parquet", index=False)


def _write_json(path: Path, content: object) -> None:
    replace_file(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def _show(config: EventLoraConfig, result: Result, figures: dict[str, Any], seconds: float) -> None:
    present.loss_table(figures["val"])
    present.family_table(figures["val_families"])
    present.gain_table(result.gains)
    present.criteria_table(result.criteria)
    present.closing(config, result, seconds)
