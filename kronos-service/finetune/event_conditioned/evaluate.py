"""An adapter against its base and two baselines on a split: token losses, and scored forecasts.

kronos-finetune evaluate --adapter adapters
kronos-finetune evaluate --adapter runs/mine/adapter --split test --open-test-split
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned.evaluation.forecasts import Forecasts, forecast_split
from kronos_service.finetune.event_conditioned.evaluation.metrics import FEWEST_PATHS
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import (
    describe_evaluation,
    write_evaluation,
)
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import PathSettings
from kronos_service.finetune.event_conditioned.evaluation.test_split_log import open_test_split
from kronos_service.finetune.event_conditioned.report import terminal
from kronos_service.finetune.event_conditioned.report.document import write_report
from kronos_service.finetune.event_conditioned.run_directory import CONFIG, RUNS
from kronos_service.finetune.event_conditioned.samples.splits import Splits, build_splits, require_events
from kronos_service.finetune.event_conditioned.training.validation import score, summarize, summarize_families
from kronos_service.model.adapter.read import (
    Adapter,
    LoadedAdapter,
    find_adapter,
    kronos_of,
    load_adapter,
    read_adapter,
)
from kronos_service.model.factory import Bundle, load_bundle
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.options import option, require


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score an adapter against its base on one split of a snapshot."""

    adapter: Path = option(
        Path("adapters"), help="an adapter directory, or a directory of published adapters (its LATEST)"
    )
    snapshot: Path | None = option(
        None, help="directory of a snapshot or of tables; the embedded sample if left out"
    )
    base_model: str = option("kronos-nano", help="the base that the adapter was trained on")
    revision: str | None = option(None, help="hub revision of the base; pinned for the released models")
    tokenizer: str | None = option(
        None, help="hub id or directory of the tokenizer, where it does not follow from the base"
    )
    tokenizer_revision: str | None = option(None, help="hub revision of the tokenizer")
    split: str = option(
        "val", choices=("train", "val", "test"), help="which of the adapter's splits, by target date"
    )
    open_test_split: bool = option(
        False, help="look at the test split, once everything is decided; each look is written down"
    )
    out: Path | None = option(
        None,
        help="where figures and report go; the adapter's own run directory, or runs/evaluate-<version>, if "
        "left out",
    )
    scored: int = option(32, help="targets scored at the end of each window")
    micro_batch: int = option(32, help="windows in memory at once")
    origins: int = option(
        120, help="bars to forecast from, drawn from the split by the seed; 0 scores token losses only"
    )
    horizon: int = option(10, help="bars ahead")
    paths: int = option(64, help="sample paths from each origin")
    temperature: float = option(1.0, help="how tokens are drawn; 1 is the model's own distribution")
    top_p: float = option(1.0, help="share of probability that tokens are drawn from; below 1 cuts tails")
    seed: int = option(0, help="seed of origins, paths and intervals")

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        require(self.scored >= 1, f"scored must be at least 1, got {self.scored}")
        require(self.micro_batch >= 1, f"micro_batch must be at least 1, got {self.micro_batch}")
        require(self.origins >= 0, f"origins must not be negative, got {self.origins}")
        require(self.horizon >= 1, f"horizon must be at least 1, got {self.horizon}")
        require(
            self.paths >= FEWEST_PATHS,
            f"paths must be at least {FEWEST_PATHS}, or the 5 % quantile lies outside them, got {self.paths}",
        )
        require(
            self.split != "test" or self.open_test_split,
            "the test split stays closed until everything is decided: whatever is chosen after a look at it "
            "makes its figures too good; add --open-test-split to look, and it will be remembered",
        )
        require(
            self.split == "test" or not self.open_test_split,
            f"--open-test-split belongs to --split test, got --split {self.split}",
        )


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Check the adapter and its canary, score it on the split, print the tables, and write
    `evaluation-<split>.json`, `evaluation-<split>.parquet` (with forecasts) and `report.html`.

    Returns what the JSON holds.

    Raises:
        KronosError: anything the user can mend, named by its subclass.
    """
    accelerator = Accelerator()
    adapter = read_adapter(find_adapter(config.adapter))
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        device=str(accelerator.device),
    )
    loaded = load_adapter(adapter, bundle)
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    splits = _splits(config, adapter, snapshot, bundle)
    about = describe_evaluation(adapter.directory, adapter.manifest, snapshot, config.split)
    if config.split == "test":
        about |= {"openings": _opened(adapter, snapshot, *adapter.manifest.data.splits["test"])}
    dataset = splits.dataset(config.split)
    base = score(bundle.model, dataset, accelerator, micro_batch=config.micro_batch, events=False)
    adapted = score(loaded.attached, dataset, accelerator, micro_batch=config.micro_batch)
    forecasts = _forecasts(config, loaded, snapshot, splits, bundle) if config.origins else None
    figures = about | {
        "losses": {"base": summarize(base), "adapter": summarize(adapted)},
        "family_losses": {"base": summarize_families(base), "adapter": summarize_families(adapted)},
        "forecasts": forecasts.figures if forecasts else None,
        "why_no_forecasts": None if forecasts else "none were asked for (--origins 0)",
    }
    directory = config.out or _home(adapter.directory)
    write_evaluation(directory, figures, forecasts)
    terminal.evaluation(figures)
    terminal.reported(write_report(directory))
    return figures


def _splits(config: EvaluateConfig, adapter: Adapter, snapshot: Snapshot, bundle: Bundle) -> Splits:
    """The one split asked for, by the dates that the adapter was trained with."""
    first, last = adapter.manifest.data.splits[config.split]
    splits = build_splits(
        snapshot,
        bundle,
        dates={config.split: (np.datetime64(first), np.datetime64(last))},
        context=adapter.manifest.normalization.context,
        scored=config.scored,
        cache=RUNS / "token-cache",
    )
    require_events(splits, config.split)
    return splits


def _opened(adapter: Adapter, snapshot: Snapshot, first: str, last: str) -> list[dict[str, Any]]:
    before = open_test_split(
        adapter.directory,
        snapshot=snapshot.name,
        snapshot_sha256=snapshot.sha256,
        first=first,
        last=last,
    )
    for opening in before:
        terminal.console.print(f"[yellow]the test split was opened before[/]: {opening.describe()}")
    return [asdict(one) for one in before]


def _forecasts(
    config: EvaluateConfig, loaded: LoadedAdapter, snapshot: Snapshot, splits: Splits, bundle: Bundle
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
            bundle,
            kronos_of(loaded.attached),
            origins=config.origins,
            settings=settings,
            advance=advance,
        )


def _home(adapter: Path) -> Path:
    """The run that the adapter lies in, or else a directory named after its version."""
    run = adapter.resolve().parent
    return adapter.parent if (run / CONFIG).exists() else RUNS / f"evaluate-{adapter.resolve().name}"
