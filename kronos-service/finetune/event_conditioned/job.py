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
from peft import PeftModel

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned import present
from kronos_service.finetune.event_conditioned.audit import require_no_leak
from kronos_service.finetune.event_conditioned.checkpoint import publish, save_adapter
from kronos_service.finetune.event_conditioned.config import LONGEST_CONTEXT, EventLoraConfig
from kronos_service.finetune.event_conditioned.criteria import Criterion, RunFigures, judge, may_promote
from kronos_service.finetune.event_conditioned.gain import Gain, paired_gain
from kronos_service.finetune.event_conditioned.lora import adapt, trainable
from kronos_service.finetune.event_conditioned.metrics import MetricLog
from kronos_service.finetune.event_conditioned.series import Conditioning
from kronos_service.finetune.event_conditioned.splits import (
    Splits,
    build_splits,
    dead_channels,
    require_events,
)
from kronos_service.finetune.event_conditioned.train import train
from kronos_service.finetune.event_conditioned.validate import score, summarize, summarize_families
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.adapter_manifest import FILES, MANIFEST, AuditRecord, DataRecord
from kronos_shared.atomic import replace_file
from kronos_shared.errors import KronosError

ARM_NAMES: dict[Conditioning, str] = {"real": "adapter", "zeroed": "control", "permuted": "placebo"}

FIXED_SUBSET = 64
"""Train windows whose loss in eval mode is followed from epoch to epoch."""


class RunError(KronosError):
    """The run directory cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training: its model, the figures of its epochs, and its validation losses per target."""

    model: PeftModel
    history: list[dict[str, float | None]]
    records: pd.DataFrame


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
    """Train an adapter (and its control and placebo, where asked), judge it, write the run, and promote
    it if it may be.

    Raises:
        KronosError: anything the user can mend, named by its subclass.
    """
    started = time.monotonic()
    accelerator = _accelerator()
    run_dir = _new_run(config)
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
            cache=run_dir.parent / "token-cache",
        )
    for name in ("train", "val"):
        require_events(splits, name)
    present.data_table(snapshot, bundle, splits, dead_channels(splits.dataset("train")))
    with present.status("auditing: was anything known before its time?"):
        audited = require_no_leak(snapshot, splits, bundle, seed=config.seed)

    val_set = splits.dataset("val")
    base = score(bundle.model, val_set, accelerator, micro_batch=_micro_batch(config), events=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained_from = time.monotonic()
    arm = _train_arm("real", config, splits, bundle, accelerator, run_dir)
    seconds = time.monotonic() - trained_from
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    others: dict[str, Arm] = {}
    if config.control:
        others["control"] = _train_arm("zeroed", config, splits, bundle, accelerator, run_dir)
    if config.placebo:
        others["placebo"] = _train_arm("permuted", config, splits, bundle, accelerator, run_dir)

    gains = _gains(arm, others, config.seed)
    summaries = {"base": summarize(base), "adapter": summarize(arm.records)}
    families = {"base": summarize_families(base), "adapter": summarize_families(arm.records)}
    gain = gains.get("adapter_event")
    metrics = {
        "val": summaries,
        "val_families": families,
        "control": summarize(others["control"].records) if config.control else None,
        "gains": {name: asdict(one) for name, one in gains.items()},
    }
    save_adapter(
        arm.model,
        bundle,
        run_dir / "adapter",
        context=context,
        data=_data_record(snapshot, splits, audited),
        metrics=metrics,
        gain=asdict(gain) if gain else "unknown",
        card=present.model_card(config, bundle, snapshot, summaries, gain),
    )
    criteria = judge(
        RunFigures(
            fixed_losses=[float(epoch["train/fixed_loss"] or "nan") for epoch in arm.history],
            base=summaries["base"],
            adapted=summaries["adapter"],
            gain=gain,
            trainable=sum(parameter.numel() for _, parameter in trainable(arm.model)),
            peak_bytes=peak,
            seconds=seconds,
            adapter_bytes=sum((run_dir / "adapter" / name).stat().st_size for name in (*FILES, MANIFEST)),
            audit=audited,
        )
    )
    promoted = None
    if config.force or may_promote(criteria, require_gain=config.require_gain):
        promoted = publish(run_dir / "adapter", config.adapters, keep=config.keep_versions).version
    _write_results(
        run_dir,
        criteria,
        metrics,
        {"base": base, "adapter": arm.records} | {k: v.records for k, v in others.items()},
    )
    result = Result(run_dir=run_dir, criteria=criteria, gains=gains, promoted=promoted)
    present.loss_table(summaries)
    present.family_table(families)
    present.gain_table(gains)
    present.criteria_table(criteria)
    present.closing(config, result, time.monotonic() - started)
    return result


def _accelerator() -> Accelerator:
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return Accelerator(mixed_precision="bf16" if bf16 else "no")


def _micro_batch(config: EventLoraConfig) -> int:
    return config.micro_batch or config.batch_size


def _new_run(config: EventLoraConfig) -> Path:
    """Create the run directory and write the configuration before anything is trained."""
    run_dir = config.run_dir or Path("runs") / f"event-lora-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    try:
        if run_dir.exists() and any(run_dir.iterdir()):
            raise RunError(f"{run_dir} is not empty: choose another --run-dir, or remove it")
        run_dir.mkdir(parents=True, exist_ok=True)
        replace_file(
            run_dir / "config.json", (json.dumps(asdict(config), indent=2, default=str) + "\n").encode()
        )
    except OSError as error:
        raise RunError(f"cannot write to the run directory {run_dir}: {error.strerror}") from None
    return run_dir


def _train_arm(
    conditioning: Conditioning,
    config: EventLoraConfig,
    splits: Splits,
    bundle: Bundle,
    accelerator: Accelerator,
    run_dir: Path,
) -> Arm:
    name = ARM_NAMES[conditioning]
    conditioned = splits.conditioned(conditioning, config.seed)
    train_set = conditioned.dataset(
        "train", oversample=config.event_oversample, blank=config.blank_probability, seed=config.seed
    )
    val_set = conditioned.dataset("val")
    model = adapt(
        bundle.model, rank=config.rank, dropout=config.lora_dropout, taps=config.taps, seed=config.seed
    )
    log = MetricLog(run_dir if conditioning == "real" else run_dir / name)
    try:
        with present.training(name, len(train_set), config.epochs) as progress:
            history = train(
                model,
                train_set,
                fixed_set=conditioned.dataset(
                    "train", oversample=config.event_oversample, seed=config.seed, at_most=FIXED_SUBSET
                ),
                val_set=val_set,
                config=config,
                accelerator=accelerator,
                log=log,
                progress=progress,
            )
    finally:
        log.close()
    return Arm(
        model=model,
        history=history,
        records=score(model, val_set, accelerator, micro_batch=_micro_batch(config)),
    )


def _gains(arm: Arm, others: dict[str, Arm], seed: int) -> dict[str, Gain]:
    if "control" not in others:
        return {}
    reference = others["control"].records
    compared = {"adapter": arm.records} | (
        {"placebo": others["placebo"].records} if "placebo" in others else {}
    )
    return {
        f"{name}_{group}": paired_gain(reference, records, on_event=group == "event", seed=seed)
        for name, records in compared.items()
        for group in ("event", "quiet")
    }


def _data_record(snapshot: Snapshot, splits: Splits, audited: AuditRecord) -> DataRecord:
    return DataRecord(
        snapshot=snapshot.name,
        sha256=snapshot.sha256,
        has_manifest=not snapshot.flagged,
        splits={name: (str(split.first), str(split.last)) for name, split in splits.splits.items()},
        audit=audited,
    )


def _write_results(
    run_dir: Path, criteria: list[Criterion], metrics: dict[str, Any], records: dict[str, pd.DataFrame]
) -> None:
    for name, content in (("criteria.json", [asdict(one) for one in criteria]), ("results.json", metrics)):
        replace_file(run_dir / name, (json.dumps(content, indent=2) + "\n").encode())
    losses = pd.concat([one.assign(model=name) for name, one in records.items()], ignore_index=True)
    losses.to_parquet(run_dir / "val_losses.parquet", index=False)
