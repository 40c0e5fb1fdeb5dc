"""The ablate command: train the adapter with one thing changed at a time, and compare target by target.

Within a seed, every arm starts from the same initial weights and sees the same targets in the same order, so
differences are paired. The test split is not read. In the output directory:

    ablation.json     figures, rewritten after every training (layout below)
    ablation.png      the same as a forest plot
    records/          per training `<key>.parquet` (loss of every validation target) and `<key>.json`
    training/         per training what `arms` describes: it goes on from there after a stop

ablation.json holds
    snapshot, base            name and sha256 of the data, repo and sha256 of the base
    split, context, scored    first and last validation target date; bars in a window, targets scored in it
    settings                  the command's settings
    seeds, unfinished         seeds asked for; [arm, seed] pairs that are not trained yet
    arms                      list of {name, question, seeds, trainable, seconds, event, quiet}; `base` is
                              the untrained base
    criteria                  list of {name, wanted, figure, detail, verdict}, as in a run's criteria.json

`event` and `quiet` hold {loss, over_adapter, over_control, by_seed}: the mean loss in nats per target; gains
{nats, low, high, percent, targets, dates}, positive where the arm is better, null where it would be compared
with itself; and per seed its loss and gains in nats.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kronos_service.finetune.event_conditioned.ablation import store
from kronos_service.finetune.event_conditioned.ablation.figure import forest_plot, png
from kronos_service.finetune.event_conditioned.ablation.present import announce, show
from kronos_service.finetune.event_conditioned.ablation.table import Row, gain_between, table
from kronos_service.finetune.event_conditioned.ablation.variants import VARIANTS, AblationVariant, chosen
from kronos_service.finetune.event_conditioned.audit.audit import require_no_leak
from kronos_service.finetune.event_conditioned.config import AblateConfig
from kronos_service.finetune.event_conditioned.evaluation.criteria import Criterion, rank_criterion
from kronos_service.finetune.event_conditioned.training.lora import trainable
from kronos_service.finetune.event_conditioned.training.memory_budget import fit
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup, prepare_training
from kronos_service.finetune.event_conditioned.training.signals import Stop, stop_on_signals
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.finetune.event_conditioned.training.variants import train_variant
from kronos_service.finetune.progress import working
from kronos_shared.atomic import replace_file

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trainings of an ablation share."""

    config: AblateConfig
    material: TrainingSetup
    micro_batch: int
    """Windows in memory at once."""

    def matters(self, arm: AblationVariant | None, seed: int) -> dict[str, Any]:
        """Everything that decides the losses of an arm; None is the base."""
        return store.what_matters(
            arm,
            self.config.training(seed),
            snapshot_sha256=self.material.snapshot.sha256,
            bundle=self.material.bundle,
            context=self.material.context,
            micro_batch=self.micro_batch,
            precision=self.material.accelerator.mixed_precision,
        )


def ablate(config: AblateConfig) -> list[Row]:
    """Train what is missing, write the table after each training, and return it.

    Raises:
        Stopped: SIGTERM or SIGINT came; the same call goes on from there.
        KronosError: anything the user can mend, named by its subclass.
    """
    setting = _prepare(config)
    arms = _distinct(setting, chosen(config.arms, config.vary))
    missing = [(arm, seed) for seed in config.seeds for arm in arms if _load(setting, arm, seed) is None]
    _score_base(setting)
    if missing:
        material = setting.material
        with working("auditing: was anything known before its time?"):
            require_no_leak(material.snapshot, material.splits, material.bundle, seed=config.seeds[0])
    rows = _write(setting, arms, missing)
    for number, (arm, seed) in enumerate(missing):
        announce(arm.name, seed, number, len(missing), rows)
        with stop_on_signals() as stop:
            _train(setting, arm, seed, stop)
        rows = _write(setting, arms, missing[number + 1 :])
    show(rows, _criteria(setting), config.out)
    return rows


def _prepare(config: AblateConfig) -> Setting:
    common = config.training(config.seeds[0])
    spans = {name: span for name, span in common.split_dates().items() if name != "test"}
    material = prepare_training(common, spans, config.out.parent)
    train, model = material.splits.dataset("train"), material.bundle.model
    windows = fit(common, train, model, material.accelerator).windows
    return Setting(config=config, material=material, micro_batch=windows)


def _distinct(setting: Setting, arms: Sequence[AblationVariant]) -> list[AblationVariant]:
    """Without arms that come to the same training as an earlier one, such as the default taps."""
    seed = setting.config.seeds[0]
    first: dict[str, AblationVariant] = {}
    for arm in arms:
        first.setdefault(store.key_of(setting.matters(arm, seed)), arm)
    return list(first.values())


def _records(setting: Setting) -> Path:
    return setting.config.out / "records"


def _load(setting: Setting, arm: AblationVariant | None, seed: int) -> store.Finished | None:
    return store.load(_records(setting), store.key_of(setting.matters(arm, seed)))


def _score_base(setting: Setting) -> None:
    if _load(setting, None, 0) is None:
        with working("scoring the base"):
            records = score(
                setting.material.bundle.model,
                setting.material.splits.dataset("val"),
                setting.material.accelerator,
                micro_batch=setting.micro_batch,
                events=False,
            )
        untrained = store.Finished(records=records, trainable=0, seconds=0.0, fixed_losses=[])
        store.save(_records(setting), setting.matters(None, 0), BASE, untrained)


def _train(setting: Setting, arm: AblationVariant, seed: int, stop: Stop) -> None:
    matters = setting.matters(arm, seed)
    config = arm.config(setting.config.training(seed))
    trained = train_variant(
        arm.variant,
        config,
        setting.material.splits,
        setting.material.bundle,
        setting.material.accelerator,
        setting.config.out / "training" / f"{arm.name}-seed{seed}-{store.key_of(matters)}",
        micro_batch=setting.micro_batch,
        stop=stop,
    )
    finished = store.Finished(
        records=trained.records,
        trainable=sum(parameter.numel() for _, parameter in trainable(trained.model)),
        seconds=trained.seconds,
        fixed_losses=trained.fixed_losses,
    )
    store.save(_records(setting), matters, arm.name, finished)


def _by_seed(setting: Setting, arm: AblationVariant) -> dict[int, store.Finished]:
    found = {seed: _load(setting, arm, seed) for seed in setting.config.seeds}
    return {seed: one for seed, one in found.items() if one is not None}


def _criteria(setting: Setting) -> list[Criterion]:
    eight, four = (_by_seed(setting, VARIANTS[name]) for name in ("rank-8", "rank-4"))
    return [rank_criterion(gain_between(four, eight, on_event=True))]


def _write(
    setting: Setting, arms: Sequence[AblationVariant], missing: Sequence[tuple[AblationVariant, int]]
) -> list[Row]:
    config, material = setting.config, setting.material
    split = material.splits.splits["val"]
    base = _load(setting, None, 0)
    assert base is not None
    results = {BASE: dict.fromkeys(config.seeds, base)} | {arm.name: _by_seed(setting, arm) for arm in arms}
    rows = table(results, {BASE: "untrained"} | {arm.name: arm.question for arm in arms})
    content = {
        "snapshot": {"name": material.snapshot.name, "sha256": material.snapshot.sha256},
        "base": {"repo": material.bundle.base.repo, "sha256": material.bundle.base.content_sha256},
        "split": [str(split.first), str(split.last)],
        "context": material.context,
        "scored": config.targets_per_window,
        "settings": config.model_dump(mode="json"),
        "seeds": list(config.seeds),
        "unfinished": [[arm.name, seed] for arm, seed in missing],
        "arms": [row.as_json() for row in rows],
        "criteria": [asdict(one) for one in _criteria(setting)],
    }
    replace_file(config.out / "ablation.json", (json.dumps(content, indent=2, default=str) + "\n").encode())
    replace_file(config.out / "ablation.png", png(forest_plot(rows)))
    return rows
