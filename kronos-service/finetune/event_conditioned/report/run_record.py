"""What a run directory holds, read for its report; what is missing is None or empty.

event-lora:             config.json, results.json, criteria.json, metrics.jsonl, versions.json, finished.json,
                        adapter/manifest.json
event-lora, evaluate:   evaluation-<split>.json, test_opened.jsonl
ablate:                 ablation.json
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kronos_service.finetune.event_conditioned.evaluation.test_split_log import TestSplitUse, read_openings
from kronos_service.finetune.event_conditioned.run_directory import CONFIG, FINISHED
from kronos_service.finetune.event_conditioned.training.tracking import epoch_figures
from kronos_shared.adapter_manifest import MANIFEST
from kronos_shared.errors import KronosError

VARIANTS = ("adapter", "control", "placebo")
SPLITS = ("val", "test", "train")


class ReportError(KronosError):
    """There is nothing to report on, or a file of the run cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The parts of one run, or of one evaluation without a run."""

    directory: Path
    config: Mapping[str, Any] | None
    results: Mapping[str, Any] | None
    criteria: Sequence[Mapping[str, Any]] | None
    finished: Mapping[str, Any] | None
    versions: Mapping[str, str] | None
    manifest: Mapping[str, Any] | None
    ablation: Mapping[str, Any] | None
    epochs: Mapping[str, Sequence[Mapping[str, float]]]
    """Trained variant -> the figures of each epoch, from epoch 0 (untrained) on."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """Split -> what evaluation-<split>.json holds."""
    openings: Sequence[TestSplitUse]


def read_run(directory: Path, *, ablation: Path | None = None) -> RunRecord:
    """Read a run directory; `ablation` is an ablation.json elsewhere.

    Raises:
        ReportError: the directory holds neither a run nor an evaluation, or a file in it is damaged.
    """
    evaluations = {
        split: found for split in SPLITS if (found := _json(directory / f"evaluation-{split}.json"))
    }
    config = _json(directory / CONFIG)
    if config is None and not evaluations:
        raise ReportError(
            f"{directory} holds neither a run of event-lora ({CONFIG}) nor an evaluation "
            "(evaluation-<split>.json): name the directory of one"
        )
    epochs = {name: epoch_figures(directory if name == "adapter" else directory / name) for name in VARIANTS}
    return RunRecord(
        directory=directory,
        config=config,
        results=_json(directory / "results.json"),
        criteria=_json(directory / "criteria.json"),
        finished=_json(directory / FINISHED),
        versions=_json(directory / "versions.json"),
        manifest=_json(directory / "adapter" / MANIFEST),
        ablation=_json(ablation or directory / "ablation.json"),
        epochs={name: found for name, found in epochs.items() if found},
        evaluations=evaluations,
        openings=read_openings(directory / "adapter"),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read ({error}): restore it, or remove it") from None
