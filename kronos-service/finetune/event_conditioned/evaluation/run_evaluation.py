"""One adapter on one split: what was scored, by which forecasts, and the files it leaves behind.

`evaluation-<split>.json` holds the figures, `evaluation-<split>.parquet` the scores of every forecast, and
`evaluation-<split>-next-bar.parquet` those of the next bar, yardsticks among them.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from kronos_service.data.sample import is_synthetic
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.forecasts import Forecasts, forecast_split
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import PathSettings
from kronos_service.finetune.event_conditioned.provenance import out_of_sample, versions
from kronos_service.finetune.event_conditioned.run_directory import write_json
from kronos_service.finetune.event_conditioned.samples.splits import SplitError, Splits
from kronos_service.model.adapter.read import kronos_of, load_adapter, read_adapter
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_manifest import MANIFEST, AdapterManifest


def describe_evaluation(
    adapter: Path, manifest: AdapterManifest, snapshot: Snapshot, split: str
) -> dict[str, Any]:
    """Which adapter is scored, on which targets, and whether they are new to its base."""
    first, last = manifest.data.splits[split]
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "adapter": adapter.resolve().name,
        "manifest_sha256": hashlib.sha256((adapter / MANIFEST).read_bytes()).hexdigest(),
        "base": manifest.base.repo,
        "snapshot": snapshot.name,
        "snapshot_sha256": snapshot.sha256,
        "trained_on_this_snapshot": snapshot.sha256 == manifest.data.sha256,
        "split": split,
        "first": first,
        "last": last,
        "versions": versions(),
        "out_of_sample": out_of_sample(manifest.base.repo, date.fromisoformat(first)),
        "conditioning_gain": manifest.conditioning_gain,
        "audit": manifest.data.audit and manifest.data.audit.model_dump(),
        "synthetic": snapshot.is_sample or is_synthetic(manifest.data.sha256, marked=manifest.data.synthetic),
    }


def write_evaluation(directory: Path, figures: Mapping[str, Any], forecasts: Forecasts | None) -> None:
    """Put the figures of one split, and the forecasts' scores, into a directory; earlier ones go."""
    name = f"evaluation-{figures['split']}"
    directory.mkdir(parents=True, exist_ok=True)
    records, next_bar = directory / f"{name}.parquet", directory / f"{name}-next-bar.parquet"
    records.unlink(missing_ok=True)
    next_bar.unlink(missing_ok=True)
    if forecasts is not None:
        forecasts.records.to_parquet(records, index=False)
        forecasts.next_bar.to_parquet(next_bar, index=False)
    write_json(directory / f"{name}.json", figures)


def evaluate_run(
    directory: Path,
    snapshot: Snapshot,
    splits: Splits,
    bundle: Bundle,
    results: Mapping[str, Any],
    *,
    origins: int,
    horizon: int,
    paths: int,
    seed: int,
    advance: Callable[[int, int], object],
) -> None:
    """Forecast from a few validation bars with the adapter as a run saved it, and write the evaluation
    beside the run's own results. With `origins` 0, or no bar to forecast from, it holds no forecasts.
    """
    adapter = read_adapter(directory / "adapter")
    settings = PathSettings(
        horizon=horizon,
        paths=paths,
        context=adapter.manifest.normalization.context,
        sampling=Sampling(top_p=1.0),
        seed=seed,
    )
    forecasts, why = None, "none were asked for (event-lora --forecast-origins 0)"
    if origins:
        try:
            model = kronos_of(load_adapter(adapter, bundle).attached)
            train = splits.splits["train"]
            forecasts = forecast_split(
                snapshot,
                splits,
                "val",
                (train.first, train.last),
                bundle,
                model,
                origins=origins,
                settings=settings,
                advance=advance,
            )
        except SplitError as error:
            why = str(error)
    figures = describe_evaluation(directory / "adapter", adapter.manifest, snapshot, "val") | {
        "losses": {name: results["val"][name] for name in ("base", "adapter")},
        "family_losses": {name: results["val_families"][name] for name in ("base", "adapter")},
        "forecasts": forecasts.figures if forecasts else None,
        "why_no_forecasts": None if forecasts else why,
    }
    write_evaluation(directory, figures, forecasts)
