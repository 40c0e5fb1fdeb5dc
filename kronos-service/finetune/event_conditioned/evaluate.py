"""An adapter against its base on a split: the losses, over event days, quiet days and families."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import load_snapshot
from kronos_service.finetune.event_conditioned import present
from kronos_service.finetune.event_conditioned.splits import build_splits, require_events
from kronos_service.finetune.event_conditioned.validate import score, summarize, summarize_families
from kronos_service.finetune.options import option, require
from kronos_service.model.adapter import (
    AdapterError,
    attach,
    merge,
    read_adapter,
)
from kronos_service.model.canary import check_canary
from kronos_service.model.factory import load_bundle
from kronos_shared.adapter_store import latest_version


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
    scored: int = option(32, help="targets scored at the end of each window")
    micro_batch: int = option(32, help="windows in memory at once")

    def __post_init__(self) -> None:
        require(self.scored >= 1, f"scored must be at least 1, got {self.scored}")
        require(self.micro_batch >= 1, f"micro_batch must be at least 1, got {self.micro_batch}")


def evaluate(config: EvaluateConfig) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Print and return the summaries of base and adapter on the split, after checking the adapter and its
    canary.
    """
    accelerator = Accelerator()
    directory = (
        config.adapter if (config.adapter / "manifest.json").exists() else latest_version(config.adapter)
    )
    if directory is None:
        raise AdapterError(
            f"{config.adapter} holds no adapter: expected a manifest.json or a LATEST.json; "
            "train one with event-lora"
        )
    adapter = read_adapter(directory)
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        device=str(accelerator.device),
    )
    model = attach(adapter, bundle)
    check_canary(merge(model), adapter.manifest.canary)
    first, last = adapter.manifest.data.splits[config.split]
    splits = build_splits(
        load_snapshot(config.snapshot or sample_snapshot_path()),
        bundle,
        dates={config.split: (np.datetime64(first), np.datetime64(last))},
        context=adapter.manifest.normalization.context,
        scored=config.scored,
        cache=Path("runs") / "token-cache",
    )
    require_events(splits, config.split)
    dataset = splits.dataset(config.split)
    base = score(bundle.model, dataset, accelerator, micro_batch=config.micro_batch, events=False)
    adapted = score(model, dataset, accelerator, micro_batch=config.micro_batch)
    summaries = {"base": summarize(base), "adapter": summarize(adapted)}
    present.console.print(f"adapter {directory}, split {config.split} ({first} to {last})")
    present.loss_table(summaries)
    present.family_table({"base": summarize_families(base), "adapter": summarize_families(adapted)})
    return summaries
