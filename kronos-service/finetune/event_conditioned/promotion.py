"""Whether a trained adapter may replace the one that serves, and its publication."""

from pathlib import Path

import pandas as pd

from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.incumbent import (
    INCUMBENT,
    Comparison,
    Incumbent,
    compare,
    find_incumbent,
    score_incumbent,
)
from kronos_service.finetune.event_conditioned.run_directory import RunError, resume_command
from kronos_service.finetune.event_conditioned.training.distributed import on_main
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import MANIFEST, AdapterManifest, Latest
from kronos_shared.adapter_store import StoreError, latest, publish, published_as
from kronos_shared.atomic import why_not_writable
from kronos_shared.progress import follow

ADAPTER = "adapter"
"""Where a run directory holds its adapter."""


def require_store(store: Path | StoreUrl) -> None:
    """Check that an adapter could be published; whether a bucket can be written to is seen then.

    Raises:
        StoreError: LATEST is damaged or cannot be read, or nothing can be written there.
    """
    if isinstance(store, Path) and (why := why_not_writable(store)):
        raise StoreError(f"cannot publish in {store}: {why}; name another --adapter-store")
    latest(store)


def against_latest(
    config: EventLoraConfig,
    directory: Path,
    setup: TrainingSetup,
    records: pd.DataFrame,
    *,
    micro_batch: int,
) -> Comparison | None:
    """The adapter against the one that it would replace, both on this run's validation targets; None where
    nothing has been published. All processes score, only the main one has the store.

    A run that was killed after it had published finds what it compared then in its own manifest.
    """
    saved, splits = directory / ADAPTER, setup.splits

    def look() -> Comparison | Incumbent | None:
        if saved.exists() and published_as(saved, config.adapter_store):
            return recorded(saved)
        return find_incumbent(
            config.adapter_store, setup.bundle, splits.splits["val"], setup.snapshot.interval
        )

    found = on_main(look)
    if found is None or isinstance(found, Comparison):
        return found
    earlier = None
    if found.adapter is not None:
        with follow("scoring LATEST", unit="windows", total=len(splits.dataset("val"))) as progress:
            earlier = score_incumbent(
                found.adapter,
                setup,
                scored=config.targets_per_window,
                micro_batch=micro_batch,
                cache=directory.parent / "token-cache",
                advance=progress.advance,
            )
    return compare(found, earlier, records, config.seed)


def recorded(adapter: Path) -> Comparison | None:
    """The comparison that a saved adapter's manifest holds; earlier versions recorded none."""
    metrics = AdapterManifest.from_bytes((adapter / MANIFEST).read_bytes()).metrics
    record = metrics.get(INCUMBENT)
    return Comparison.from_record(record) if record else None


def promote(directory: Path, config: EventLoraConfig, comparison: Comparison | None) -> str:
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

    before = published_as(directory / ADAPTER, config.adapter_store)
    return (
        before
        or publish(
            directory / ADAPTER,
            config.adapter_store,
            keep=config.keep_versions,
            require=require_judged,
        ).version
    )
