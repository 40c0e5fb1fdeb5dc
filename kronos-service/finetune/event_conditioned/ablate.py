"""The ablate command: train the adapter with one thing changed at a time, and compare target by target.

Within a seed, every variant starts from the same initial weights and sees the same targets in the same order,
so differences are paired. The test split is not read. In the output directory:

    ablation.json                    figures, rewritten after every training (layout below)
    ablation.png                     the same as a forest plot
    <variant>-seed-<n>-<key>/        a run directory per training (ablation/runs.py)

The same command resumes after a stop, and trains only what it does not find.

ablation.json holds
    snapshot, base            name and sha256 of the data, repo and sha256 of the base
    split, context, scored    first and last validation target date; bars in a window, targets scored in it
    settings                  the command's settings
    seeds, unfinished         seeds asked for; [variant, seed] pairs that are not trained yet
    arms                      list of {name, question, seeds, trainable, seconds, event, quiet}, one per
                              variant; `base` is the untrained base
    criteria                  list of {name, wanted, figure, detail, verdict}, as in a run's criteria.json

`event` and `quiet` (non-event targets) hold {loss, over_adapter, over_control, by_seed}: the mean loss in
nats per target; gains {nats, low, high, percent, targets, dates}, positive where the variant is better, null
where it would be compared with itself; and per seed its loss and gains in nats.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.ablation.runs import (
    dependencies,
    directory_of,
    key_of,
    read_result,
    require_current,
)
from kronos_service.finetune.event_conditioned.ablation.table import (
    BySeed,
    VariantResult,
    gain_between,
    table,
)
from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, AblationVariant, chosen
from kronos_service.finetune.event_conditioned.audit.audit import require_no_leak
from kronos_service.finetune.event_conditioned.evaluation.criteria import Criterion, rank_criterion
from kronos_service.finetune.event_conditioned.report import figures, tables, terminal
from kronos_service.finetune.event_conditioned.run_directory import (
    RunError,
    RunFingerprint,
    fingerprint_of,
    finish,
    variant_run,
    write_json,
    writing,
)
from kronos_service.finetune.event_conditioned.training.lora import trainable
from kronos_service.finetune.event_conditioned.training.memory_budget import fit
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup, prepare_training
from kronos_service.finetune.event_conditioned.training.signals import stop_on_signals
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.finetune.event_conditioned.training.variants import train_variant
from kronos_shared.atomic import replace_file
from kronos_shared.cli import require_writable
from kronos_shared.progress import console, follow, working
from kronos_shared.ray_cluster import cluster, run_tasks, workers

BASE = "base"
FIGURES = "ablation.json"

Training = tuple[AblationVariant, int]
"""A variant and the seed it is trained from."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What all trainings of an ablation share."""

    config: AblateConfig
    setup: TrainingSetup
    fingerprint: RunFingerprint
    base: VariantResult
    """The untrained base."""

    def key(self, variant: AblationVariant, seed: int) -> str:
        """The name of everything that this training depends on."""
        config = self.config.training(seed)
        return key_of(
            dependencies(
                variant,
                config,
                self.fingerprint,
                context=self.setup.context,
                taxonomy=self.setup.snapshot.taxonomy,
            )
        )

    def directory(self, variant: AblationVariant, seed: int) -> Path:
        """The run directory of this training."""
        return directory_of(self.config.out, variant, seed, self.key(variant, seed))

    def finished(self, variant: AblationVariant) -> BySeed:
        """The results of a variant so far."""
        found = {seed: read_result(self.directory(variant, seed)) for seed in self.config.seeds}
        return {seed: result for seed, result in found.items() if result is not None}


def ablate(config: AblateConfig) -> dict[str, Any]:
    """Train what is missing, write the figures after each training, and return what ablation.json holds.

    Raises:
        Stopped: SIGTERM or SIGINT came; the same call resumes.
        KronosError: anything that the user can fix, named by its subclass.
    """
    require_current(config.out)
    require_writable(config.out, "--out")
    ablation = _prepare(config)
    variants = _distinct(ablation, chosen(config.variants, config.vary))
    finished = {variant.name: ablation.finished(variant) for variant in variants}
    missing = [
        (variant, seed) for seed in config.seeds for variant in variants if seed not in finished[variant.name]
    ]
    if missing:
        setup = ablation.setup
        with working("auditing: was anything known before its time?"):
            require_no_leak(setup.snapshot, setup.splits, setup.bundle, seed=config.seeds[0])
    left, found = list(missing), _write(ablation, variants, missing)
    for trained in _train_all(ablation, missing):
        left.remove(trained)
        found = _write(ablation, variants, left)
        done = f"{len(missing) - len(left)} of {len(missing)} trained: {trained[0].name}, seed {trained[1]}"
        console.print(done + (_time_left(found, len(left)) if config.engine == "local" else ""))
    for group in ("event", "quiet"):
        terminal.show(tables.ablation(found, group))
    terminal.show(tables.criteria(found["criteria"]))
    console.print(f"{FIGURES}, ablation.png and a run directory per training are in {config.out}")
    return found


def _setup(config: AblateConfig) -> TrainingSetup:
    common = config.training(config.seeds[0])
    spans = {name: span for name, span in common.split_dates().items() if name != "test"}
    return prepare_training(common, spans, config.out.parent)


def _prepare(config: AblateConfig) -> Ablation:
    common, setup = config.training(config.seeds[0]), _setup(config)
    bundle, accelerator, validation = setup.bundle, setup.accelerator, setup.splits.dataset("val")
    micro_batch = fit(common, setup.splits.dataset("train"), bundle.model, accelerator).windows
    with follow("scoring the base", unit="windows", total=len(validation)) as progress:
        records = score(
            bundle.model,
            validation,
            accelerator,
            micro_batch=micro_batch,
            events=False,
            advance=progress.advance,
        )
    return Ablation(
        config=config,
        setup=setup,
        fingerprint=fingerprint_of(setup, micro_batch),
        base=VariantResult(records=records, trainable=0, seconds=0.0),
    )


def _distinct(ablation: Ablation, variants: Sequence[AblationVariant]) -> list[AblationVariant]:
    """Without variants that come to the same training as an earlier one, such as the default `taps`."""
    seed = ablation.config.seeds[0]
    first: dict[str, AblationVariant] = {}
    for variant in variants:
        first.setdefault(ablation.key(variant, seed), variant)
    return list(first.values())


def _time_left(found: dict[str, Any], trainings: int) -> str:
    """From the mean duration of what is finished."""
    seconds = [one["seconds"] for one in found["arms"] if one["trainable"]]
    return f", about {trainings * sum(seconds) / len(seconds) / 60:.0f} min left" if trainings else ""


def _train_all(ablation: Ablation, trainings: Sequence[Training]) -> Iterator[Training]:
    """Train one after another, or on a cluster; yields each that has finished."""
    config, setup, fingerprint = ablation.config, ablation.setup, ablation.fingerprint
    if config.engine == "local":
        for variant, seed in trainings:
            console.print(f"training {variant.name}, seed {seed}")
            _train(setup, fingerprint, config, variant, seed, ablation.directory(variant, seed))
            yield variant, seed
        return
    with cluster():
        console.print(f"{len(trainings)} trainings on a Ray cluster, up to {workers()} at once")
        arguments = [
            (fingerprint, config, variant, seed, ablation.directory(variant, seed))
            for variant, seed in trainings
        ]
        for place in run_tasks(_train_there, arguments):
            yield trainings[place]


def _train_there(
    fingerprint: RunFingerprint, config: AblateConfig, variant: AblationVariant, seed: int, directory: Path
) -> None:
    """One training in a process that holds neither data nor base."""
    setup = _setup(config)
    found = fingerprint_of(setup, fingerprint.micro_batch)
    if found != fingerprint:
        raise RunError(f"a node has other data, another base or another device: {found}, not {fingerprint}")
    _train(setup, fingerprint, config, variant, seed, directory)


def _train(
    setup: TrainingSetup,
    fingerprint: RunFingerprint,
    ablation: AblateConfig,
    variant: AblationVariant,
    seed: int,
    directory: Path,
) -> None:
    """Train one variant in its run directory, or resume it there."""
    config = variant.config(ablation.training(seed))
    about = {**asdict(variant.variant), "question": variant.question}
    with (
        variant_run(directory, config, about, fingerprint),
        writing(directory, command="the same ablate command"),
        stop_on_signals() as stop,
    ):
        trained = train_variant(
            variant.variant,
            config,
            setup.splits,
            setup.bundle,
            setup.accelerator,
            directory,
            micro_batch=fingerprint.micro_batch,
            stop=stop,
        )
        size = sum(parameter.numel() for _, parameter in trainable(trained.model))
        finish(directory, {"trainable": size, "seconds": trained.seconds})


def _write(
    ablation: Ablation, variants: Sequence[AblationVariant], missing: Sequence[Training]
) -> dict[str, Any]:
    """Write ablation.json and ablation.png from the trainings that are finished."""
    config, setup = ablation.config, ablation.setup
    split = setup.splits.splits["val"]
    results: dict[str, BySeed] = {BASE: dict.fromkeys(config.seeds, ablation.base)}
    results |= {variant.name: ablation.finished(variant) for variant in variants}
    rows = table(results, {BASE: "untrained"} | {one.name: one.question for one in variants})
    content = {
        "snapshot": {"name": setup.snapshot.name, "sha256": setup.snapshot.sha256},
        "base": {"repo": setup.bundle.base.repo, "sha256": setup.bundle.base.content_sha256},
        "split": [str(split.first), str(split.last)],
        "context": setup.context,
        "scored": config.targets_per_window,
        "settings": config.model_dump(mode="json"),
        "seeds": list(config.seeds),
        "unfinished": [[variant.name, seed] for variant, seed in missing],
        "arms": [asdict(row) for row in rows],
        "criteria": [asdict(_rank_criterion(ablation))],
    }
    write_json(config.out / FIGURES, content)
    found: dict[str, Any] = json.loads((config.out / FIGURES).read_bytes())
    replace_file(config.out / "ablation.png", figures.ablation_png(found))
    return found


def _rank_criterion(ablation: Ablation) -> Criterion:
    eight, four = (ablation.finished(VARIANTS[name]) for name in ("rank-8", "rank-4"))
    return rank_criterion(gain_between(four, eight, on_event=True))
