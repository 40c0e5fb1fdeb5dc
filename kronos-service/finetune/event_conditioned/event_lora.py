"""The event-lora job: from a snapshot and a base to an adapter that is judged and perhaps promoted."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.audit.audit import require_no_leak
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.criteria import (
    Criterion,
    RunFigures,
    fitting_rank,
    judge,
    may_promote,
    obstacles,
)
from kronos_service.finetune.event_conditioned.evaluation.incumbent import INCUMBENT, Comparison
from kronos_service.finetune.event_conditioned.evaluation.recalibration import recalibrate
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import evaluate_run
from kronos_service.finetune.event_conditioned.evaluation.run_results import all_gains, val_figures
from kronos_service.finetune.event_conditioned.promotion import (
    against_latest,
    promote,
    recorded,
    require_store,
)
from kronos_service.finetune.event_conditioned.provenance import data_record, versions
from kronos_service.finetune.event_conditioned.report import terminal
from kronos_service.finetune.event_conditioned.report.document import write_report
from kronos_service.finetune.event_conditioned.report.model_card import model_card
from kronos_service.finetune.event_conditioned.run_directory import (
    CONFIG,
    FINISHED,
    RunFingerprint,
    fingerprint_of,
    finish,
    new_run,
    read_fingerprint,
    read_settings,
    record_fingerprint,
    require_inputs,
    unfinished_run,
    write_json,
    writing,
)
from kronos_service.finetune.event_conditioned.samples.splits import dead_channels
from kronos_service.finetune.event_conditioned.training import memory_budget
from kronos_service.finetune.event_conditioned.training.distributed import group, on_main, require_same
from kronos_service.finetune.event_conditioned.training.lora import trained_sizes
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup, prepare_training
from kronos_service.finetune.event_conditioned.training.signals import stop_on_signals
from kronos_service.finetune.event_conditioned.training.tracking import require_tracker
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.finetune.event_conditioned.training.variants import (
    TrainedVariant,
    train_variants,
)
from kronos_service.model.adapter.read import merge
from kronos_service.model.adapter.write import save_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import (
    FILES,
    MANIFEST,
    AuditRecord,
)
from kronos_shared.atomic import remove
from kronos_shared.progress import console, follow, working


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that is fixed before the first step."""

    config: EventLoraConfig
    directory: Path
    setup: TrainingSetup
    audit: AuditRecord
    micro_batch: int
    """Windows in memory at once; a resumed run keeps it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves behind."""

    run_dir: Path
    criteria: list[Criterion]
    gains: dict[str, Gain]
    """Gains over the control on event days, on those of the first tier and on non-event days, of the adapter
    and of the placebo.
    """
    promoted: str | None
    """The version made LATEST, or None."""


def event_lora(config: EventLoraConfig) -> Result:
    """Train an adapter (and its control and placebo, where asked), judge it, and promote it if it may be.

    Raises:
        Stopped: SIGTERM or SIGINT came; a checkpoint is written.
        KronosError: anything that the user can fix, named by its subclass.
    """
    _require_means(config)
    with new_run(config) as directory:
        return _run(config, directory)


def resume_event_lora(given: Mapping[str, Any]) -> Result:
    """Resume the unfinished run that `given["run_dir"]` names, or the newest one under runs/, to the result
    it would have had; `given` holds only the settings that the user names again.

    Raises:
        RunError: there is no such run, or a setting contradicts it.
        Stopped, KronosError: as `event_lora` does.
    """
    with unfinished_run(given) as (directory, config):
        _require_means(config)
        return _run(config, directory)


def event_lora_at(config: EventLoraConfig, directory: Path, snapshot: Snapshot, bundle: Bundle) -> None:
    """Begin the run in this directory, resume it, or leave it as it is if it has finished.

    Raises:
        RunError: a run with other settings, or from other data or another base, is there.
        Stopped, KronosError: as `event_lora` does.
    """
    config = config.replace(run_dir=directory)
    if not (directory / CONFIG).exists():
        event_lora(config)
        return
    read_settings(directory, dict(config))
    require_inputs(directory, snapshot, bundle)
    if not (directory / FINISHED).exists():
        resume_event_lora(dict(config))


def _require_means(config: EventLoraConfig) -> None:
    """What a night of training would otherwise end without: the tracker, and a store to publish to.

    Raises:
        TrackerError, StoreError: it is missing, damaged or not writable.
    """
    require_tracker(config.tracker)
    on_main(lambda: require_store(config.adapter_store))


def _run(config: EventLoraConfig, directory: Path) -> Result:
    started = time.monotonic()
    run = prepare(config, directory)
    splits, bundle, accelerator = run.setup.splits, run.setup.bundle, run.setup.accelerator
    validation = splits.dataset("val")
    with follow("scoring the base", unit="windows", total=len(validation)) as progress:
        base = score(
            bundle.model,
            validation,
            accelerator,
            micro_batch=run.micro_batch,
            events=False,
            advance=progress.advance,
        )
    with writing(directory):
        with stop_on_signals() as stop:
            trained = train_variants(
                config,
                splits,
                bundle,
                accelerator,
                directory,
                micro_batch=run.micro_batch,
                tracker=config.tracker,
                stop=stop,
            )
        comparison = against_latest(
            config,
            directory,
            run.setup,
            trained["adapter"].records,
            micro_batch=run.micro_batch,
        )
        return on_main(lambda: _conclude(run, base, trained, comparison, started))


def prepare(config: EventLoraConfig, directory: Path) -> Run:
    """Read the snapshot and the base, build the splits, show them, and audit them for leaks."""
    console.quiet = not group().is_main_process
    setup = prepare_training(config, config.split_dates(), directory.parent)
    train = setup.splits.dataset("train")
    terminal.data_table(setup.snapshot, setup.bundle, setup.splits, dead_channels(train))
    micro_batch = _fix_numbers(config, directory, setup)
    terminal.machine(setup.accelerator, micro_batch)
    with working("auditing: was anything known before its time?"):
        audit = on_main(lambda: require_no_leak(setup.snapshot, setup.splits, setup.bundle, seed=config.seed))
    return Run(config=config, directory=directory, setup=setup, audit=audit, micro_batch=micro_batch)


def _fix_numbers(config: EventLoraConfig, directory: Path, setup: TrainingSetup) -> int:
    """Record what the numbers depend on, and return the micro-batch: this run's own, or a new choice."""
    before = on_main(lambda: read_fingerprint(directory))
    fingerprint = fingerprint_of(setup, _micro_batch(config, before, setup))
    require_same(asdict(fingerprint))
    on_main(lambda: record_fingerprint(directory, fingerprint))
    return fingerprint.micro_batch


def _micro_batch(config: EventLoraConfig, before: RunFingerprint | None, setup: TrainingSetup) -> int:
    """The choice recorded for this run, or else of the main process; then each process fits itself to it."""
    train, model = setup.splits.dataset("train"), setup.bundle.model

    def fit(windows: int | None) -> int:
        asked = config.replace(micro_batch=windows)
        return memory_budget.fit(asked, train, model, setup.accelerator).windows

    return fit(before.micro_batch if before else on_main(lambda: fit(config.micro_batch)))


def _conclude(
    run: Run,
    base: pd.DataFrame,
    trained: dict[str, TrainedVariant],
    comparison: Comparison | None,
    started: float,
) -> Result:
    """Judge the adapter, promote it if it may be, and write the results.

    A run that is resumed here finds the adapter that it had saved, and does not publish it twice.
    """
    config, adapter = run.config, trained["adapter"]
    records = {name: variant.records for name, variant in trained.items()}
    taxonomy = run.setup.snapshot.taxonomy
    gains = all_gains(records, taxonomy, config.seed)
    records = {"base": base, **records}
    figures = val_figures(records, gains, taxonomy, config.seed)
    _save(run, adapter, figures, gains, comparison)
    criteria = judge(_run_figures(run, adapter, figures, gains, comparison))
    require_gain = config.promote == "if-gain"
    against = obstacles(criteria, require_gain=require_gain)
    promoted = None
    allowed = config.promote == "always" or may_promote(criteria, require_gain=require_gain)
    if allowed and config.promote != "never":
        promoted = promote(run.directory, config, comparison)
    _write_results(run.directory, criteria, figures, records)
    result = Result(run_dir=run.directory, criteria=criteria, gains=gains, promoted=promoted)
    _show(config, result, figures, against, time.monotonic() - started)
    _forecast(run, figures)  # before the end: walk-forward pools what a finished run has forecast
    finish(run.directory, {"promoted": promoted})
    terminal.reported(write_report(run.directory))
    return result


def _save(
    run: Run,
    variant: TrainedVariant,
    figures: dict[str, Any],
    gains: dict[str, Gain],
    comparison: Comparison | None,
) -> None:
    """Write the adapter, unless this run did so before it was killed and LATEST is what it was then."""
    directory = run.directory / "adapter"
    if directory.exists():
        before = recorded(directory)
        if (before and before.version) == (comparison and comparison.version):
            return
        remove(directory)
    gain = gains.get("adapter_event")
    spans = {name: (str(split.first), str(split.last)) for name, split in run.setup.splits.splits.items()}
    data = data_record(run.setup.snapshot, spans, run.audit)
    save_adapter(
        variant.model,
        run.setup.bundle,
        directory,
        context=run.setup.context,
        data=data,
        metrics=figures | {INCUMBENT: comparison.record() if comparison else None},
        gain=asdict(gain) if gain else "unknown",
        card=model_card(run.config, run.setup.bundle.base.repo, data, figures),
        recalibration=recalibrate(run.config, run.setup, merge(variant.model))
        if run.config.recalibrate
        else None,
    )


def _run_figures(
    run: Run,
    variant: TrainedVariant,
    figures: dict[str, Any],
    gains: dict[str, Gain],
    comparison: Comparison | None,
) -> RunFigures:
    lora, event_emb = trained_sizes(variant.model)
    return RunFigures(
        fixed_losses=variant.fixed_losses,
        base=figures["val"]["base"],
        adapted=figures["val"]["adapter"],
        gain=gains.get("adapter_event"),
        tier1=run.setup.snapshot.taxonomy.tier1,
        tier1_gain=gains.get("adapter_tier1"),
        trainable=lora + event_emb,
        fitting_rank=fitting_rank(lora=lora, event_emb=event_emb, rank=run.config.rank),
        peak_bytes=variant.peak_bytes,
        seconds=variant.seconds,
        adapter_bytes=sum((run.directory / "adapter" / name).stat().st_size for name in (*FILES, MANIFEST)),
        audit=run.audit,
        comparison=comparison,
    )


def _write_results(
    directory: Path,
    criteria: list[Criterion],
    figures: dict[str, Any],
    records: Mapping[str, pd.DataFrame],
) -> None:
    write_json(directory / "criteria.json", [asdict(one) for one in criteria])
    write_json(directory / "results.json", figures)
    losses = pd.concat([one.assign(model=name) for name, one in records.items()], ignore_index=True)
    losses.to_parquet(directory / "val_losses.parquet", index=False)


def _forecast(run: Run, figures: dict[str, Any]) -> None:
    """Forecast from a few validation bars, for the report."""
    write_json(run.directory / "versions.json", versions())
    with terminal.forecasting() as advance:
        evaluate_run(
            run.directory,
            run.setup.snapshot,
            run.setup.splits,
            run.setup.bundle,
            figures,
            origins=run.config.forecast_origins,
            horizon=run.config.forecast_horizon,
            paths=run.config.forecast_paths,
            seed=run.config.seed,
            advance=advance,
        )


def _show(
    config: EventLoraConfig,
    result: Result,
    figures: dict[str, Any],
    against: list[Criterion],
    seconds: float,
) -> None:
    terminal.results(figures, [asdict(one) for one in result.criteria])
    terminal.closing(
        config, result.run_dir, result.promoted, [f"{one.name}: {one.detail}" for one in against], seconds
    )
