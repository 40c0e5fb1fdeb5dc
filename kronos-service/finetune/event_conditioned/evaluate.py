"""An adapter against its base, baselines and yardsticks on a split: token losses, and scored forecasts.

python -m kronos_service.finetune evaluate --adapter adapters
python -m kronos_service.finetune evaluate --adapter runs/mine/adapter --split test --open-test-split
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned.config import EvaluateConfig
from kronos_service.finetune.event_conditioned.evaluation.forecasts import Forecasts, forecast_split
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import (
    describe_evaluation,
    write_evaluation,
)
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import PathSettings
from kronos_service.finetune.event_conditioned.evaluation.test_split_log import open_test_split
from kronos_service.finetune.event_conditioned.report import terminal
from kronos_service.finetune.event_conditioned.report.document import write_report
from kronos_service.finetune.event_conditioned.run_directory import CONFIG, RUNS
from kronos_service.finetune.event_conditioned.samples.splits import (
    Span,
    Splits,
    build_splits,
    require_events,
)
from kronos_service.finetune.event_conditioned.training.validation import score, summarize, summarize_families
from kronos_service.model.adapter.read import (
    Adapter,
    LoadedAdapter,
    find_adapter,
    kronos_of,
    load_adapter,
    read_adapter,
    require_interval,
)
from kronos_service.model.factory import Bundle, load_bundle
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_manifest import RecalibrationRecord
from kronos_shared.cli import require_writable
from kronos_shared.progress import follow, say


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Check the adapter and its canary, score it on the split, print the tables, and write
    `evaluation-<split>.json`, the parquet files beside it (with forecasts) and `report.html`.

    Returns what the JSON holds.

    Raises:
        KronosError: anything the user can fix, named by its subclass.
    """
    adapter = read_adapter(find_adapter(config.adapter))
    directory = config.out or _home(adapter.directory)
    require_writable(directory, "--out")
    accelerator = Accelerator()
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        device=str(accelerator.device),
        taxonomy=snapshot.taxonomy,
    )
    loaded = load_adapter(adapter, bundle)
    require_interval(adapter.manifest, snapshot.interval, f"snapshot {snapshot.name}")
    splits = _splits(config, adapter, snapshot, bundle)
    about = describe_evaluation(adapter.directory, adapter.manifest, snapshot, config.split)
    if config.split == "test":
        about |= {"openings": _opened(adapter, snapshot, *adapter.manifest.data.splits["test"])}
    dataset = splits.dataset(config.split)
    with follow("scoring base and adapter", unit="windows", total=2 * len(dataset)) as progress:
        scored = partial(
            score,
            dataset=dataset,
            accelerator=accelerator,
            micro_batch=config.micro_batch,
            advance=progress.advance,
        )
        base, adapted = scored(bundle.model, events=False), scored(loaded.attached)
    forecasts = _forecasts(config, adapter, loaded, snapshot, splits, bundle) if config.origins else None
    given = {"adapter": str(config.adapter)} | config.model_dump(mode="json", include=set(config.sources()))
    figures = about | {
        "given": given,
        "losses": {"base": summarize(base), "adapter": summarize(adapted)},
        "family_losses": {
            name: summarize_families(one, snapshot.taxonomy)
            for name, one in (("base", base), ("adapter", adapted))
        },
        "forecasts": forecasts.figures if forecasts else None,
        "why_no_forecasts": None if forecasts else "none were asked for (--origins 0)",
    }
    write_evaluation(directory, figures, forecasts)
    terminal.evaluation(figures)
    terminal.reported(write_report(directory))
    return figures


def _splits(config: EvaluateConfig, adapter: Adapter, snapshot: Snapshot, bundle: Bundle) -> Splits:
    """The one split asked for, by the dates that the adapter was trained with."""
    splits = build_splits(
        snapshot,
        bundle,
        dates={config.split: _dates(adapter, config.split)},
        context=adapter.manifest.normalization.context,
        scored=config.targets_per_window,
        cache=RUNS / "token-cache",
    )
    require_events(splits, config.split)
    return splits


def _dates(adapter: Adapter, split: str) -> Span:
    """A split's target dates as the adapter was trained with."""
    first, last = adapter.manifest.data.splits[split]
    return np.datetime64(first), np.datetime64(last)


def _opened(adapter: Adapter, snapshot: Snapshot, first: str, last: str) -> list[dict[str, Any]]:
    before = open_test_split(
        adapter.directory,
        snapshot=snapshot.name,
        snapshot_sha256=snapshot.sha256,
        first=first,
        last=last,
    )
    for opening in before:
        say(opening.describe(), style="yellow", label="the test split was opened before")
    return [asdict(one) for one in before]


def _forecasts(
    config: EvaluateConfig,
    adapter: Adapter,
    loaded: LoadedAdapter,
    snapshot: Snapshot,
    splits: Splits,
    bundle: Bundle,
) -> Forecasts:
    settings = PathSettings(
        horizon=config.horizon,
        paths=config.paths,
        context=loaded.context,
        sampling=Sampling(temperature=config.temperature, top_p=config.top_p),
        seed=config.seed,
    )
    with terminal.forecasting() as advance:
        return forecast_split(
            snapshot,
            splits,
            config.split,
            _dates(adapter, "train"),
            bundle,
            kronos_of(loaded.attached),
            origins=config.origins,
            settings=settings,
            recalibration=_recalibration(config, adapter),
            advance=advance,
        )


def _recalibration(config: EvaluateConfig, adapter: Adapter) -> RecalibrationRecord | None:
    """The width factors where they can be judged: not on the split that they were found on."""
    is_plain = (config.temperature, config.top_p) == (1.0, 1.0)
    return adapter.manifest.recalibration if is_plain and config.split == "test" else None


def _home(adapter: Path) -> Path:
    """The run that the adapter lies in, or else a directory named after its version."""
    run = adapter.resolve().parent
    return adapter.parent if (run / CONFIG).exists() else RUNS / f"evaluate-{adapter.resolve().name}"
