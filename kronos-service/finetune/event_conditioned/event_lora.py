"""The event-lora job: from a snapshot and a base to an adapter that is judged and perhaps promoted."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_service.events.taxonomy import TIER1
from kronos_service.finetune.event_conditioned.audit.audit import require_no_leak
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import (
    Gain,
    family_gains,
    gains_over_control,
    paired_gain,
)
from kronos_service.finetune.event_conditioned.evaluation.criteria import (
    Criterion,
    RunFigures,
    judge,
    obstacles,
)
from kronos_service.finetune.event_conditioned.evaluation.incumbent import (
    Comparison,
    Incumbent,
    compare,
    find_incumbent,
    score_incumbent,
)
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import evaluate_run
from kronos_service.finetune.event_conditioned.provenance import versions
from kronos_service.finetune.event_conditioned.report import terminal
from kronos_service.finetune.event_conditioned.report.document import write_report
from kronos_service.finetune.event_conditioned.report.model_card import model_card
from kronos_service.finetune.event_conditioned.run_directory import (
    RunError,
    RunFingerprint,
    finish,
    new_run,
    read_fingerprint,
    record_fingerprint,
    resume_command,
    unfinished_run,
    write_json,
    writing,
)
from kronos_service.finetune.event_conditioned.samples.splits import dead_channels
from kronos_service.finetune.event_conditioned.training import memory_budget
from kronos_service.finetune.event_conditioned.training.distributed import group, on_main, require_same
from kronos_service.finetune.event_conditioned.training.lora import trainable
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup, prepare_training
from kronos_service.finetune.event_conditioned.training.signals import stop_on_signals
from kronos_service.finetune.event_conditioned.training.tracking import require_tracker
from kronos_service.finetune.event_conditioned.training.validation import score, summarize, summarize_families
from kronos_service.finetune.event_conditioned.training.variants import (
    TrainedVariant,
    train_variants,
)
from kronos_service.finetune.progress import console, follow, working
from kronos_service.model.adapter.write import save_adapter
from kronos_shared.adapter_manifest import (
    FILES,
    MANIFEST,
    AdapterManifest,
    AuditRecord,
    DataRecord,
    Latest,
)
from kronos_shared.adapter_store import StoreError, latest, publish, published_as
from kronos_shared.atomic import remove, why_not_writable

INCUMBENT = "incumbent"
"""Where a manifest's metrics hold the comparison with the adapter that served before, or null."""


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


def _require_means(config: EventLoraConfig) -> None:
    """What a night of training would otherwise end without: the tracker, and a store to publish to.

    Raises:
        TrackerError, StoreError: it is missing, damaged or not writable.
    """
    require_tracker(config.tracker)
    on_main(lambda: _require_store(config.adapter_store))


def _require_store(store: Path) -> None:
    latest(store)
    if why := why_not_writable(store):
        raise StoreError(f"cannot publish in {store}: {why}; name another --adapter-store")


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
        comparison = _against_latest(run, trained["adapter"].records)
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
    bundle, accelerator = setup.bundle, setup.accelerator
    fingerprint = RunFingerprint(
        snapshot=setup.snapshot.sha256,
        base=bundle.base.content_sha256,
        tokenizer=bundle.tokenizer_print.content_sha256,
        processes=accelerator.num_processes,
        device=accelerator.device.type,
        precision=accelerator.mixed_precision,
        micro_batch=_micro_batch(config, before, setup),
    )
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


def _against_latest(run: Run, records: pd.DataFrame) -> Comparison | None:
    """The adapter against the one that it would replace, both on this run's validation targets; None where
    nothing has been published. All processes score, only the main one has the store.

    A run that was killed after it had published finds what it compared then in its own manifest.
    """
    config, saved = run.config, run.directory / "adapter"
    bundle, splits = run.setup.bundle, run.setup.splits

    def look() -> Comparison | Incumbent | None:
        if saved.exists() and published_as(saved, config.adapter_store):
            return _recorded(saved)
        return find_incumbent(config.adapter_store, bundle, splits.splits["val"])

    found = on_main(look)
    if found is None or isinstance(found, Comparison):
        return found
    earlier = None
    if found.adapter is not None:
        with follow("scoring LATEST", unit="windows", total=len(splits.dataset("val"))) as progress:
            earlier = score_incumbent(
                found.adapter,
                run.setup,
                scored=config.targets_per_window,
                micro_batch=run.micro_batch,
                cache=run.directory.parent / "token-cache",
                advance=progress.advance,
            )
    return compare(found, earlier, records, config.seed)


def _recorded(adapter: Path) -> Comparison | None:
    """The comparison that a saved adapter's manifest holds; earlier versions recorded none."""
    metrics = AdapterManifest.from_bytes((adapter / MANIFEST).read_bytes()).metrics
    record = metrics.get(INCUMBENT)
    return Comparison.from_record(record) if record else None


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
    gains = _gains(records, config.seed)
    records = {"base": base, **records}
    figures = val_figures(records, gains, config.seed)
    _save(run, adapter, figures, gains, comparison)
    criteria = judge(_run_figures(run, adapter, figures, gains, comparison))
    against = obstacles(criteria, require_gain=config.promote == "if-gain")
    promoted = None
    if config.promote == "always" or not against:
        promoted = _promote(run.directory, config, comparison)
    _write_results(run.directory, criteria, figures, records)
    result = Result(run_dir=run.directory, criteria=criteria, gains=gains, promoted=promoted)
    _show(config, result, figures, against, time.monotonic() - started)
    finish(run.directory, {"promoted": promoted})
    _report(run, figures)
    return result


def _promote(directory: Path, config: EventLoraConfig, comparison: Comparison | None) -> str:
    """Make the adapter LATEST, unless this run did so before it was killed.

    Raises:
        RunError: another adapter was published since this one was compared with LATEST.
    """
    judged_against = comparison.version if comparison else None

    def require_judged(before: Latest | None) -> None:
        now = before.version if before else None
        if config.promote != "always" and now != judged_against:
            raise RunError(
                f"{config.adapter_store} now serves {now}, but this adapter was compared with "
                f"{judged_against or 'none'}: compare it again with {resume_command(directory)}"
            )

    before = published_as(directory / "adapter", config.adapter_store)
    return (
        before
        or publish(
            directory / "adapter",
            config.adapter_store,
            keep=config.keep_versions,
            require=require_judged,
        ).version
    )


def _gains(records: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Gain]:
    """Gains over the control; empty where none was trained, without `tier1` where no release of it fell."""
    gains = gains_over_control(records, seed)
    tier1 = {name: one[one[list(TIER1)].any(axis=1)] for name, one in records.items()}
    if gains and len(tier1["control"]):
        gains |= {
            f"{name}_tier1": paired_gain(tier1["control"], one, on_event=True, seed=seed)
            for name, one in tier1.items()
            if name != "control"
        }
    return dict(sorted(gains.items(), key=lambda item: item[0].split("_")[0]))


def val_figures(records: dict[str, pd.DataFrame], gains: dict[str, Gain], seed: int) -> dict[str, Any]:
    """Validation means per model (over event days, non-event days, all targets, and per family), gains over
    the control, the adapter's gains per family over base and control, and on how many dates they rest.
    """
    on_event = records["base"]["is_event"]
    references = [name for name in ("base", "control") if name in records]
    return {
        "val": {name: summarize(one) for name, one in records.items()},
        "val_families": {name: summarize_families(one) for name, one in records.items()},
        "val_dates": {
            "event": int(records["base"]["date"][on_event].nunique()),
            "quiet": int(records["base"]["date"][~on_event].nunique()),
        },
        "gains": {name: asdict(one) for name, one in gains.items()},
        "family_gains": {
            name: {
                family: asdict(gain)
                for family, gain in family_gains(records[name], records["adapter"], seed=seed).items()
            }
            for name in references
        },
    }


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
        recorded = _recorded(directory)
        if (recorded and recorded.version) == (comparison and comparison.version):
            return
        remove(directory)
    gain = gains.get("adapter_event")
    snapshot, splits = run.setup.snapshot, run.setup.splits.splits
    data = DataRecord(
        snapshot=snapshot.name,
        sha256=snapshot.sha256,
        has_manifest=not snapshot.flagged,
        splits={name: (str(split.first), str(split.last)) for name, split in splits.items()},
        audit=run.audit,
    )
    save_adapter(
        variant.model,
        run.setup.bundle,
        directory,
        context=run.setup.context,
        data=data,
        metrics=figures | {INCUMBENT: comparison.record() if comparison else None},
        gain=asdict(gain) if gain else "unknown",
        card=model_card(run.config, run.setup.bundle.base.repo, data, figures),
    )


def _run_figures(
    run: Run,
    variant: TrainedVariant,
    figures: dict[str, Any],
    gains: dict[str, Gain],
    comparison: Comparison | None,
) -> RunFigures:
    return RunFigures(
        fixed_losses=variant.fixed_losses,
        base=figures["val"]["base"],
        adapted=figures["val"]["adapter"],
        gain=gains.get("adapter_event"),
        tier1_gain=gains.get("adapter_tier1"),
        trainable=sum(parameter.numel() for _, parameter in trainable(variant.model)),
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


def _report(run: Run, figures: dict[str, Any]) -> None:
    """Forecast from a few validation bars, and write the report."""
    write_json(run.directory / "versions.json", versions())
    with terminal.forecasting() as advance:
        evaluate_run(
            run.directory,
            run.setup.snapshot,
            run.setup.splits,
            run.setup.bundle,
            figures,
            origins=run.config.forecast_origins,
            seed=run.config.seed,
            advance=advance,
        )
    terminal.reported(write_report(run.directory))


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
