"""The command on the small market: each fold learns from what came before it, and a kill changes no bit."""

import json
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned import event_lora
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.run_directory import RunError
from kronos_service.finetune.event_conditioned.training.tracking import epoch_figures
from kronos_service.finetune.event_conditioned.walk_forward import _plan, _publish, walk_forward
from kronos_service.model.adapter.read import read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_store import latest_version, publish
from kronos_shared.cli import ConfigError


@pytest.fixture(scope="module")
def config(
    market_path: Path,
    base_path: Path,
    adapter_of: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> WalkForwardConfig:
    out = tmp_path_factory.mktemp("walk")
    for seed in (1, 2):
        publish(adapter_of(seed), out / "adapters", keep=2)
    return WalkForwardConfig(
        out=out / "folds",
        adapter_store=out / "adapters",
        snapshot=market_path,
        base_model=str(base_path),
        train_start=date(2022, 1, 3),
        first_val=date(2022, 6, 1),
        last_val=date(2022, 9, 30),
        fold="2m",
        context=72,
        targets_per_window=8,
        epochs=1,
        warmup_steps=2,
        batch_size=32,
        seeds=(0,),
        origins=0,
        publish=True,
        keep_versions=1,
        promote="always",
    )


@pytest.fixture(scope="module")
def found(config: WalkForwardConfig) -> dict[str, Any]:
    return walk_forward(config)


def test_each_fold_is_a_run_of_its_own_that_learned_from_earlier_targets(
    config: WalkForwardConfig, found: dict[str, Any]
) -> None:
    assert [fold["name"] for fold in found["folds"]] == ["2022-06-01", "2022-08-01"]
    assert found["unfinished"] == []
    for fold in found["folds"]:
        run = config.out / f"{fold['name']}-seed-0"
        stored = json.loads((run / "config.json").read_bytes())
        assert stored["train_end"] == fold["train_last"] < fold["first"]
        assert (run / "control" / "trained").is_dir()
        scored = pd.read_parquet(run / "val_losses.parquet")["date"]
        assert (str(scored.min().date()), str(scored.max().date())) >= (fold["first"], fold["first"])
        assert str(scored.max().date()) <= fold["last"]
    runs = [
        pd.read_parquet(config.out / f"{fold['name']}-seed-0" / "val_losses.parquet")
        for fold in found["folds"]
    ]
    (everything,) = (
        one["gain"]
        for one in found["gains"]
        if (one["model"], one["over"], one["group"]) == ("adapter", "control", "all")
    )
    assert everything["targets"] == sum((run["model"] == "base").sum() for run in runs)


def test_each_run_has_the_settings_of_the_command(
    config: WalkForwardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[EventLoraConfig] = []

    def first_only(settings: EventLoraConfig, *_: object) -> None:
        ran.append(settings)
        raise RunError("one is enough")

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.walk_forward.event_lora_at", first_only)
    asked: dict[str, Any] = {"seeds": (3,), "placebo": True, "checkpoint_every": 9}
    forecasts = {"origins": 7, "horizon": 2, "paths": 21}
    with pytest.raises(RunError, match="one is enough"):
        walk_forward(config.replace(out=tmp_path, **asked, **forecasts))
    (run,) = ran
    assert (run.seed, run.placebo, run.checkpoint_every) == (3, True, 9)
    assert (run.forecast_origins, run.forecast_horizon, run.forecast_paths) == (7, 2, 21)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="ray is not installed"):
        walk_forward(config.replace(out=tmp_path, engine="ray"))


def test_the_epochs_are_those_of_the_lowest_loss_on_dates_before_the_fold(
    config: WalkForwardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.replace(out=tmp_path, epochs=2, choose_epochs=True, fold="4m", publish=False)
    ran: list[EventLoraConfig] = []
    at = event_lora.event_lora_at

    def inner_only(settings: EventLoraConfig, directory: Path, snapshot: Snapshot, bundle: Bundle) -> None:
        ran.append(settings)
        if "inner" not in directory.name:
            raise RunError("the fold itself is not needed here")
        at(settings, directory, snapshot, bundle)

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.walk_forward.event_lora_at", inner_only)
    with pytest.raises(RunError, match="not needed"):
        walk_forward(config)

    inner, fold = ran
    losses = [epoch["val/all_total"] for epoch in epoch_figures(tmp_path / "2022-06-01-inner-seed-0")[1:]]
    assert fold.epochs == int(np.argmin(losses)) + 1
    scored = pd.read_parquet(tmp_path / "2022-06-01-inner-seed-0" / "val_losses.parquet")["date"]
    assert inner.epochs == 2
    assert inner.train_end is not None
    assert str(inner.train_end) < str(scored.min().date()) < str(scored.max().date()) < "2022-06-01"


def test_the_published_adapter_was_trained_to_the_end_and_carries_the_evidence(
    config: WalkForwardConfig, found: dict[str, Any]
) -> None:
    directory = latest_version(config.adapter_store)
    assert directory is not None
    assert directory == config.out.parent / "adapters" / "versions" / found["published"]
    assert {path.name[:6] for path in directory.parent.iterdir()} == {"000002", "000003"}
    manifest = read_adapter(directory).manifest
    assert manifest.data.splits == {"train": ("2022-01-03", "2022-09-30")}
    evidence = manifest.metrics["walk_forward"]
    assert evidence["epochs"] == 1
    assert {one["group"] for one in evidence["gains"]} == {"tier1", "event", "quiet", "all"}


def test_without_a_gain_an_adapter_is_published_where_it_always_is(
    config: WalkForwardConfig, found: dict[str, Any]
) -> None:
    assert _publish(_plan(config), 1, gains=[]) == found["published"]
    assert _publish(_plan(config.replace(promote="if-gain")), 1, gains=[]) is None


def test_a_base_that_may_have_seen_a_fold_is_named_on_every_figure(
    config: WalkForwardConfig, found: dict[str, Any]
) -> None:
    warning = "base tiny does not say until when it was pretrained: it may have seen these targets"
    assert set(found["seen"].values()) == {warning}
    assert warning in (config.out / "walk_forward.html").read_text()
    directory = latest_version(config.adapter_store)
    assert directory is not None
    assert warning in (directory / "README.md").read_text()


@pytest.mark.usefixtures("found")
def test_the_same_command_again_trains_nothing_and_changes_nothing(
    config: WalkForwardConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (config.out / "walk_forward.json").read_bytes()

    def untrained(*_: object, **__: object) -> None:
        raise AssertionError("a training began")

    for name in ("event_lora", "resume_event_lora"):
        monkeypatch.setattr(f"kronos_service.finetune.event_conditioned.event_lora.{name}", untrained)
    walk_forward(config)

    assert (config.out / "walk_forward.json").read_bytes() == before


@pytest.mark.usefixtures("found")
def test_settings_that_differ_from_those_of_a_finished_run_are_refused(config: WalkForwardConfig) -> None:
    with pytest.raises(RunError, match="--rank is 4 but the run began with 8"):
        walk_forward(config.replace(rank=4))


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("run", ["2022-08-01-seed-0", "newest"])
def test_a_finished_run_from_other_data_is_refused(
    config: WalkForwardConfig, tmp_path: Path, run: str
) -> None:
    shutil.copytree(config.out, tmp_path / "folds")
    inputs = tmp_path / "folds" / run / "settled.json"
    inputs.write_text(json.dumps(json.loads(inputs.read_bytes()) | {"snapshot": "0" * 64}))
    with pytest.raises(RunError, match="began with snapshot 0000"):
        walk_forward(config.replace(out=tmp_path / "folds"))


@pytest.mark.usefixtures("found")
def test_a_run_has_forecast_before_it_counts_as_finished(
    config: WalkForwardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a kill between the two would leave a fold without forecasts, and nothing would make them."""

    def finish(directory: Path, _: object) -> None:
        assert (directory / "evaluation-val.json").exists()
        raise RunError("finished")

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.event_lora.finish", finish)
    with pytest.raises(RunError, match="finished"):
        walk_forward(config.replace(out=tmp_path / "folds", fold="4m"))
