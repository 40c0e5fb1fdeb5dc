"""The walk-forward command: train and score one period after another, each by what came before it.

    python -m kronos_service.finetune walk-forward --snapshot data/snapshots/2026-11 --base-model BASE

One window of validation cannot show an effect of events: a date's gain scatters far more than it amounts to.
Here the targets of several folds are pooled, and every figure comes with the smallest gain that so many dates
could show. In the output directory:

    walk_forward.json, .png, .html    figures, rewritten after every run (layout below)
    <first date>-seed-<n>/            an ordinary run per fold and seed, with its control
    <first date>-inner-seed-<n>/      with --choose-epochs: the run within the fold's training dates

The same command resumes after a stop, and trains only what it does not find.

walk_forward.json holds
    snapshot, base         name and sha256 of the data, repo and sha256 of the base
    seen                   per fold, a warning where the base's own pretraining reaches into it, else null
    settings, seeds        the command's settings
    unfinished             [fold, seed] pairs that are not trained yet
    folds                  list of {name, train_first, train_last, first, last, epochs}
    gains                  list of {model, over, by, group, gain, detectable}: pooling.GroupGain
    yardsticks             HAR, HAR with events and GARCH on every target: next_bar.summarize_next_bars
    not_measured           yardsticks that could not be, such as garch without its extra
    next_bar               the same of models and yardsticks on the drawn origins, first seed; null without
    published              the version made LATEST, or null
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig, Recipe
from kronos_service.finetune.event_conditioned.evaluation.next_bar import summarize_next_bars
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import YARDSTICKS as NAMES
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import fit_yardsticks, score_yardsticks
from kronos_service.finetune.event_conditioned.event_lora import event_lora_at
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.folds.dates import ONE_DAY, Fold, plan_folds, train_first
from kronos_service.finetune.event_conditioned.folds.newest import NEWEST, train_newest
from kronos_service.finetune.event_conditioned.folds.pooling import (
    find,
    mean_over_seeds,
    pool,
    pooled_gains,
)
from kronos_service.finetune.event_conditioned.provenance import seen_by
from kronos_service.finetune.event_conditioned.report import figures, forecast_tables, tables, terminal
from kronos_service.finetune.event_conditioned.report.next_step import as_given
from kronos_service.finetune.event_conditioned.report.walk_forward import forest, page, warnings
from kronos_service.finetune.event_conditioned.run_directory import FINISHED, require_inputs, write_json
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series, calendar_covers
from kronos_service.finetune.event_conditioned.training.tracking import epoch_figures
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.adapter_store import publish, published_as, version_in
from kronos_shared.atomic import replace_file
from kronos_shared.progress import console, say, working
from kronos_shared.ray_cluster import cluster, run_tasks, workers

FIGURES = "walk_forward.json"
YARDSTICKS = "yardsticks.parquet"


@dataclass(frozen=True, kw_only=True)
class WalkForward:
    """What all runs share."""

    config: WalkForwardConfig
    snapshot: Snapshot
    bundle: Bundle
    end: date
    """The last date that can be scored."""
    folds: Sequence[Fold]

    @cached_property
    def series(self) -> Sequence[Series]:
        """Every tradable symbol's bars, for the yardsticks."""
        return build_series(self.snapshot)

    def directory(self, fold: Fold, seed: int) -> Path:
        """The run directory of a fold and seed."""
        return self.config.out / f"{fold.name}-seed-{seed}"

    def finished(self, fold: Fold) -> list[int]:
        """The seeds whose run of this fold has finished."""
        return [seed for seed in self.config.seeds if (self.directory(fold, seed) / FINISHED).exists()]


class FoldRun(NamedTuple):
    """One run of a walk-forward."""

    settings: EventLoraConfig
    directory: Path
    about: str


def walk_forward(config: WalkForwardConfig) -> dict[str, Any]:
    """Train what is missing, write the figures after each run, and return what walk_forward.json holds.

    Raises:
        FoldError: the snapshot holds no such folds.
        Stopped: SIGTERM or SIGINT came; the same call resumes.
        KronosError: anything else that the user can fix, named by its subclass.
    """
    walk = _plan(config)
    epochs = _epochs(walk)
    runs = [(fold, seed) for fold in walk.folds for seed in config.seeds]
    trainings = [
        FoldRun(
            _run(walk, fold, seed, epochs[fold.name]),
            walk.directory(fold, seed),
            f"targets {fold.first} to {fold.last}, seed {seed}",
        )
        for fold, seed in runs
    ]
    for place in _train(walk, trainings):
        fold, seed = runs[place]
        if seed == config.seeds[0]:
            _measure_yardsticks(walk, fold)
        found = _write(walk, epochs, published=None)
    _show(found)
    if config.publish:
        version = _publish(walk, median_low(epochs.values()), found["gains"])
        found = _write(walk, epochs, published=version)
    console.print(f"{FIGURES}, walk_forward.html and a run directory per fold and seed are in {config.out}")
    return found


def _snapshot(config: Recipe) -> Snapshot:
    return load_snapshot(config.snapshot or sample_snapshot_path())


def _bundle(config: Recipe, snapshot: Snapshot) -> Bundle:
    return load_bundle(
        config.base_model,
        tokenizer=config.tokenizer,
        revision=config.revision,
        tokenizer_revision=config.tokenizer_revision,
        taxonomy=snapshot.taxonomy,
    )


def _plan(config: WalkForwardConfig) -> WalkForward:
    snapshot = _snapshot(config)
    snapshot.require_daily("walk-forward, whose folds and yardsticks are of days,")
    bundle = _bundle(config, snapshot)
    last_bar: date = snapshot.bars["ts"].max().date()
    covered: date = calendar_covers(snapshot).astype("datetime64[D]").item()
    end = min(last_bar, covered, config.last_val or last_bar)
    walk = WalkForward(
        config=config, snapshot=snapshot, bundle=bundle, end=end, folds=plan_folds(config, end)
    )
    for fold in walk.folds:
        console.print(
            f"fold {fold.name}: train {fold.train_first} to {fold.train_last}, "
            f"score {fold.first} to {fold.last}"
        )
        if warning := seen_by(bundle, fold.first, fold.last):
            say(warning, style="yellow")
    return walk


def _run(walk: WalkForward, fold: Fold, seed: int, epochs: int, **settings: Any) -> EventLoraConfig:
    """The settings of one run: nothing is promoted, and its test split is a day that nobody looks at."""
    config = walk.config
    after = fold.last + ONE_DAY
    defaults = {
        "control": True,
        "placebo": config.placebo,
        "promote": "never",
        "forecast_origins": config.origins if seed == config.seeds[0] else 0,
        "forecast_horizon": config.horizon,
        "forecast_paths": config.paths,
    }
    return config.training(
        seed,
        epochs=epochs,
        train_start=fold.train_first,
        train_end=fold.train_last,
        val_start=fold.first,
        test_start=after,
        test_end=after,
        **(defaults | settings),
    )


def _epochs(walk: WalkForward) -> dict[str, int]:
    """Each fold's number of epochs: the setting, or the one with the lowest loss on the inner dates, which
    lie before the fold; the mean over the seeds decides.
    """
    config = walk.config
    if not config.choose_epochs:
        return {fold.name: config.epochs for fold in walk.folds}
    inner = {fold.name: [_inner(walk, fold, seed) for seed in config.seeds] for fold in walk.folds}
    for _ in _train(walk, [training for trainings in inner.values() for training in trainings]):
        pass
    chosen = {}
    for name, trainings in inner.items():
        curves = [[epoch["val/all_total"] for epoch in epoch_figures(one.directory)[1:]] for one in trainings]
        chosen[name] = int(np.argmin(np.mean(curves, axis=0))) + 1
        console.print(f"fold {name}: {chosen[name]} of {config.epochs} epochs")
    return chosen


def _inner(walk: WalkForward, fold: Fold, seed: int) -> FoldRun:
    """The training whose loss after each epoch chooses the fold's epochs."""
    inner = fold.inner(walk.config.horizon)
    only = {"control": False, "placebo": False, "forecast_origins": 0}
    return FoldRun(
        _run(walk, inner, seed, walk.config.epochs, **only),
        walk.config.out / f"{fold.name}-inner-seed-{seed}",
        f"choosing epochs on {inner.first} to {inner.last}, seed {seed}",
    )


def _train(walk: WalkForward, trainings: Sequence[FoldRun]) -> Iterator[int]:
    """Train what has not finished, one after another or on a cluster; yields the place of each training."""
    total = len(trainings)
    if walk.config.engine == "local":
        for place, one in enumerate(trainings):
            console.print(f"run {place + 1} of {total}: {one.about}")
            event_lora_at(one.settings, one.directory, walk.snapshot, walk.bundle)
            yield place
        return
    with cluster():
        console.print(f"{total} runs on a Ray cluster, up to {workers()} at once")
        arguments = [(one.settings, one.directory) for one in trainings]
        for number, place in enumerate(run_tasks(_train_there, arguments), start=1):
            console.print(f"{number} of {total} finished: {trainings[place].about}")
            yield place


def _train_there(settings: EventLoraConfig, directory: Path) -> None:
    """One training in a process that holds neither data nor base."""
    snapshot = _snapshot(settings)
    event_lora_at(settings, directory, snapshot, _bundle(settings, snapshot))


def _measure_yardsticks(walk: WalkForward, fold: Fold) -> None:
    """Fit the yardsticks to the fold's training dates and score them on all of its targets, once."""
    path = walk.directory(fold, walk.config.seeds[0]) / YARDSTICKS
    if path.exists():
        return
    with working("fitting the yardsticks"):
        train_first, train_last, first, last = map(
            np.datetime64, (fold.train_first, fold.train_last, fold.first, fold.last)
        )
        yardsticks = fit_yardsticks(walk.snapshot, walk.series, first=train_first, last=train_last)
        scored = score_yardsticks(yardsticks, walk.series, first=first, last=last)
    for name, why in yardsticks.not_measured.items():
        say(why, style="yellow", label=f"{name} not measured")
    replace_file(path, scored.to_parquet(index=False))


def _next_bars(walk: WalkForward, name: str) -> dict[str, Any] | None:
    """The next bars of the finished folds' first seed, from a file of that name in their runs."""
    paths = [walk.directory(fold, walk.config.seeds[0]) / name for fold in walk.folds]
    frames = [pd.read_parquet(path) for path in paths if path.exists()]
    return summarize_next_bars(pd.concat(frames, ignore_index=True), seed=0) if frames else None


def _write(walk: WalkForward, epochs: Mapping[str, int], *, published: str | None) -> dict[str, Any]:
    """Write the figures of the runs that are finished."""
    config = walk.config
    folds = {fold.name: walk.finished(fold) for fold in walk.folds}
    records = {
        fold.name: mean_over_seeds(
            [pd.read_parquet(walk.directory(fold, seed) / "val_losses.parquet") for seed in folds[fold.name]],
            walk.snapshot.taxonomy,
        )
        for fold in walk.folds
        if folds[fold.name]
    }
    asset_class = dict(
        zip(walk.snapshot.symbols["symbol"], walk.snapshot.symbols["asset_class"], strict=True)
    )
    gains = pooled_gains(pool(records, asset_class), walk.snapshot.taxonomy)
    yardsticks = _next_bars(walk, YARDSTICKS)
    measured = {name for group in (yardsticks or {"groups": []})["groups"] for name in group["models"]}
    found: dict[str, Any] = {
        "snapshot": walk.snapshot.record(),
        "base": {"repo": walk.bundle.base.repo, "sha256": walk.bundle.base.content_sha256},
        "seen": {fold.name: seen_by(walk.bundle, fold.first, fold.last) for fold in walk.folds},
        "settings": config.model_dump(mode="json"),
        "seeds": list(config.seeds),
        "unfinished": [
            [fold.name, seed] for fold in walk.folds for seed in config.seeds if seed not in folds[fold.name]
        ],
        "folds": [
            {
                "name": fold.name,
                **{key: str(day) for key, day in asdict(fold).items()},
                "epochs": epochs.get(fold.name),
            }
            for fold in walk.folds
        ],
        "gains": [asdict(gain) for gain in gains],
        "yardsticks": yardsticks,
        "not_measured": [name for name in NAMES if name not in measured],
        "next_bar": _next_bars(walk, "evaluation-val-next-bar.parquet"),
        "published": published,
    }
    write_json(config.out / FIGURES, found)
    replace_file(config.out / "walk_forward.png", figures.forest_png(forest(found), warnings(found)))
    replace_file(
        config.out / "walk_forward.html", page(found, as_given(WalkForwardConfig, found["settings"])).encode()
    )
    return found


def _publish(walk: WalkForward, epochs: int, gains: Sequence[Mapping[str, Any]]) -> str | None:
    """Train the adapter on the newest window, and make it LATEST where the pooled gain allows it."""
    config = walk.config
    window = train_first(config, walk.end + ONE_DAY), walk.end
    console.print(f"training the adapter to publish: {epochs} epochs, targets {window[0]} to {window[1]}")
    evidence = {
        "folds": [str(fold.first) for fold in walk.folds] + [str(walk.end)],
        "seeds": list(config.seeds),
        "epochs": epochs,
        "gains": [one for one in gains if one["by"] == "day"],
        "seen": [warning for fold in walk.folds if (warning := seen_by(walk.bundle, fold.first, fold.last))],
    }
    directory = config.out / NEWEST
    if (directory / FINISHED).exists():
        require_inputs(directory, walk.snapshot, walk.bundle)
    adapter = train_newest(config.training(config.seeds[0], epochs=epochs), window, evidence, directory)
    gain = find(gains, "adapter", "control", "event")
    if config.promote != "always" and (gain is None or gain["gain"]["low"] <= 0):
        say(
            "the pooled gain's interval on event days does not lie above 0 (--promote always ignores that); "
            f"the adapter is in {adapter}",
            style="yellow",
            label="not promoted",
        )
        return None
    before = published_as(adapter, config.adapter_store)
    version = before or publish(adapter, config.adapter_store, keep=config.keep_versions).version
    say(f"{version_in(config.adapter_store, version)} is now LATEST", style="green", label="promoted")
    return version


def _show(found: Mapping[str, Any]) -> None:
    for by in ("day", "year"):
        terminal.show(tables.pooled_gains(found["gains"], by))
    if found["next_bar"]:
        terminal.show(forecast_tables.next_bar_scores(found["next_bar"]))
        terminal.show(forecast_tables.against_yardstick(found["next_bar"]))
        console.print(forecast_tables.yardstick_verdict(found), style="bold", soft_wrap=True)
