"""The adapter that LATEST names, scored again on the validation targets of the run that would replace it.

Losses in two manifests cannot be compared: they are means over the targets of two snapshots and splits. So
both adapters are scored here on the same targets, where that is fair: on the same base and tokenizer, under
the same channels, and on targets that the earlier one was not trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from kronos_service.events.sessions import Interval
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain, paired_gain
from kronos_service.finetune.event_conditioned.samples.splits import Split, Splits, build_splits
from kronos_service.finetune.event_conditioned.training.distributed import local_main_first
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import Adapter, attach, read_adapter, require_interval
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_store import latest, latest_version

INCUMBENT: Final = "incumbent"
"""Where a manifest's metrics hold the comparison with the adapter that served before, or null."""


@dataclass(frozen=True, kw_only=True)
class Incumbent:
    """The adapter that serves until now."""

    version: str
    manifest_sha256: str
    adapter: Adapter | None
    """None where it cannot be compared."""
    why_not: str | None = None
    """Why it cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A new adapter against the one that it would replace, on the same targets."""

    version: str
    manifest_sha256: str
    """Of the adapter that LATEST names."""
    event: Gain | None
    quiet: Gain | None
    """How much lower the new adapter's loss is on event and on non-event targets; None if not compared."""
    why_not: str | None
    """Why they were not compared."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What `asdict` made of a comparison."""
        gains = {name: Gain(**record[name]) if record[name] else None for name in ("event", "quiet")}
        return cls(**{**record, **gains})

    def record(self) -> dict[str, Any]:
        """The comparison as a manifest holds it."""
        return asdict(self)


def find_incumbent(
    store: Path | StoreUrl, bundle: Bundle, validation: Split, interval: Interval
) -> Incumbent | None:
    """The adapter that LATEST names, and why it cannot be compared if it cannot; None where nothing has been
    published.

    Raises:
        StoreError: LATEST cannot be read.
    """
    pointer, directory = latest(store), latest_version(store)
    if pointer is None or directory is None:
        return None
    adapter = None
    try:
        adapter = read_adapter(directory, digest=pointer.manifest_sha256)
        attach(adapter, bundle)
        require_interval(adapter.manifest, interval, "this run")
        why_not = _seen_by(adapter, validation)
    except AdapterError as error:
        why_not = str(error)
    return Incumbent(
        version=pointer.version,
        manifest_sha256=pointer.manifest_sha256,
        adapter=None if why_not else adapter,
        why_not=why_not,
    )


def _seen_by(adapter: Adapter, validation: Split) -> str | None:
    """Why the comparison would favour an adapter that was trained on some of the targets."""
    _, last = adapter.manifest.data.splits.get("train", ("", ""))
    if not last or np.datetime64(last) < validation.first:
        return None
    return f"it was trained on targets up to {last}, and these validation targets begin on {validation.first}"


def score_incumbent(
    adapter: Adapter,
    setup: TrainingSetup,
    *,
    scored: int,
    micro_batch: int,
    cache: Path,
    advance: Callable[[int], object],
) -> pd.DataFrame:
    """Losses of an earlier adapter on the validation targets, in windows of the context that it was trained
    with; all processes get all rows.
    """
    splits = setup.splits
    context = adapter.manifest.normalization.context
    if context != setup.context:
        splits = _splits(setup, context, scored, cache)
    model = attach(adapter, setup.bundle)
    return score(model, splits.dataset("val"), setup.accelerator, micro_batch=micro_batch, advance=advance)


def compare(incumbent: Incumbent, earlier: pd.DataFrame | None, new: pd.DataFrame, seed: int) -> Comparison:
    """How much better the new adapter is, from the losses of both per target."""
    event = quiet = None
    if earlier is not None:
        event, quiet = (paired_gain(earlier, new, on_event=one, seed=seed) for one in (True, False))
    return Comparison(
        version=incumbent.version,
        manifest_sha256=incumbent.manifest_sha256,
        event=event,
        quiet=quiet,
        why_not=incumbent.why_not,
    )


def _splits(setup: TrainingSetup, context: int, scored: int, cache: Path) -> Splits:
    """The same validation targets in windows of another context, which holds at least two bars before them:
    one alone has no spread to normalise by.
    """
    validation = setup.splits.splits["val"]
    with local_main_first():
        return build_splits(
            setup.snapshot,
            setup.bundle,
            dates={"val": (validation.first, validation.last)},
            context=context,
            scored=min(scored, context - 1),
            cache=cache,
        )
