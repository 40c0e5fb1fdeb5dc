"""What every training needs first: snapshot, base, device, and the windows of its splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned.config import LONGEST_CONTEXT, EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.splits import (
    Span,
    Splits,
    build_splits,
    require_events,
)
from kronos_service.finetune.event_conditioned.training.distributed import group, local_main_first
from kronos_service.finetune.precision import fast_precision
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.cli import ConfigError
from kronos_shared.progress import working


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Data and base of a training, on its device and in its precision."""

    accelerator: Accelerator
    snapshot: Snapshot
    bundle: Bundle
    context: int
    """Bars in a window."""
    splits: Splits


def prepare_training(config: EventLoraConfig, dates: Mapping[str, Span], runs: Path) -> TrainingSetup:
    """Read what `config` names and cut it into windows, one split for each of `dates`.

    Args:
        runs: the directory of runs, beside which tokens are cached.

    Raises:
        KronosError: snapshot or base cannot be used, or a split has no event day.
    """
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    bundle = load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        device=str(group().device),
        taxonomy=snapshot.taxonomy,
    )
    require_context(config, bundle.context, bundle.base.repo)
    context = config.context or min(bundle.context, LONGEST_CONTEXT)
    precision = fast_precision(config.precision, width=bundle.model.d_model)
    accelerator = Accelerator(mixed_precision=precision)
    with working("encoding events, tokenising windows"), local_main_first():
        splits = build_splits(
            snapshot,
            bundle,
            dates=dates,
            context=context,
            scored=config.targets_per_window,
            cache=runs / "token-cache",
        )
    for name in dates.keys() & {"train", "val"}:
        require_events(splits, name)
    return TrainingSetup(
        accelerator=accelerator, snapshot=snapshot, bundle=bundle, context=context, splits=splits
    )


def require_context(config: EventLoraConfig, longest: int, base: str) -> None:
    """Raise `ConfigError` if windows are asked for that are longer than those of the base."""
    if config.context is not None and config.context > longest:
        raise ConfigError(
            f"--context must be at most {longest}, the longest window that base {base} "
            f"was trained on, got {config.context}"
        )
