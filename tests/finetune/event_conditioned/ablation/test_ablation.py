"""The command on the small market: it resumes after a kill, mixes nothing, and says what it found."""

import json
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.ablate import ablate
from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.training import loop
from kronos_service.finetune.event_conditioned.training.signals import Stopped
from kronos_service.finetune.event_conditioned.training.variants import train_variant
from kronos_shared.cli import ConfigError

TRAIN_VARIANT = "kronos_service.finetune.event_conditioned.ablate.train_variant"


class Killed(BaseException):
    """The end of the process, as far as the command can tell."""


@pytest.fixture(scope="module")
def config(market_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AblateConfig:
    return AblateConfig(
        out=tmp_path_factory.mktemp("ablation") / "out",
        snapshot=market_path,
        base_model=str(base_path),
        train_start=date(2022, 1, 3),
        val_start=date(2022, 6, 1),
        test_start=date(2022, 10, 1),
        context=72,
        targets_per_window=8,
        epochs=1,
        warmup_steps=2,
        batch_size=16,
        seeds=(0, 1),
        variants=("rank-4", "taps-both"),
    )


def figures(out: Path) -> dict[str, Any]:
    """ablation.json without how long things took and where they lie."""
    content: dict[str, Any] = json.loads((out / "ablation.json").read_bytes())
    del content["settings"]
    for arm in content["arms"]:
        del arm["seconds"]
    return content


@pytest.fixture(scope="module")
def whole(config: AblateConfig) -> dict[str, Any]:
    ablate(config)
    return figures(config.out)


def test_what_was_asked_for_is_trained_where_it_was_asked_for(
    config: AblateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster here, where Ray is not installed; the list of what is to be trained comes first."""
    monkeypatch.setitem(sys.modules, "ray", None)
    asked: dict[str, Any] = {"variants": ("rank-4",), "vary": ("weight_decay=0.5",), "seeds": (7,)}
    with pytest.raises(ConfigError, match="ray is not installed"):
        ablate(config.replace(out=tmp_path / "out", engine="ray", **asked))
    unfinished = json.loads((tmp_path / "out" / "ablation.json").read_bytes())["unfinished"]
    assert unfinished == [[name, 7] for name in ("adapter", "control", "rank-4", "weight_decay=0.5")]


def test_the_table_holds_base_reference_control_and_what_was_asked_for(whole: dict[str, Any]) -> None:
    arms = {arm["name"]: arm for arm in whole["arms"]}
    # taps-both is the default: the same training as the adapter, not a row of its own
    assert list(arms) == ["base", "adapter", "control", "rank-4"]
    assert whole["unfinished"] == []
    assert whole["split"] == ["2022-06-01", "2022-09-30"]
    for group in ("event", "quiet"):
        assert arms["control"][group]["over_control"] is None
        assert arms["rank-4"][group]["over_adapter"]["targets"] > 0
        losses = [arms["adapter"][group]["by_seed"][seed]["loss"] for seed in ("0", "1")]
        assert losses[0] != losses[1]
        assert arms["adapter"][group]["loss"] == pytest.approx(sum(losses) / 2)
        over_base = arms["base"][group]["over_adapter"]["nats"]
        assert over_base == pytest.approx(arms["adapter"][group]["loss"] - arms["base"][group]["loss"])
    (rank,) = whole["criteria"]
    eight_over_four = -arms["rank-4"]["event"]["over_adapter"]["nats"]
    assert rank["figure"] == pytest.approx(100 * eight_over_four / arms["rank-4"]["event"]["loss"])
    assert rank["verdict"] == "fail"


def test_trainable_parameters_follow_the_rank(whole: dict[str, Any]) -> None:
    arms = {arm["name"]: arm["trainable"] for arm in whole["arms"]}
    layers, width, projections = 2, 32, 2
    assert arms["base"] == 0
    assert arms["adapter"] == arms["control"]
    assert arms["adapter"] - arms["rank-4"] == 4 * layers * projections * 2 * width


@pytest.mark.usefixtures("whole")
def test_a_picture_lies_beside_the_table(config: AblateConfig) -> None:
    assert (config.out / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_trains_nothing_and_says_the_same(
    config: AblateConfig, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRAIN_VARIANT, None)
    ablate(config)
    assert figures(config.out) == whole


@pytest.mark.soak
def test_a_killed_run_resumes_to_the_same_table(
    config: AblateConfig, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = config.replace(out=tmp_path / "out")
    calls: list[tuple[Any, ...]] = []

    def killed(*args: Any, **keywords: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise Killed
        return train_variant(*args, **keywords)

    monkeypatch.setattr(TRAIN_VARIANT, killed)
    with pytest.raises(Killed):
        ablate(stopped)
    half = figures(stopped.out)
    assert [arm["name"] for arm in half["arms"]] == ["base", "adapter", "control"]
    assert half["unfinished"] == [["rank-4", 0], ["adapter", 1], ["control", 1], ["rank-4", 1]]
    ablate(stopped)
    assert len(calls) == 3 + 4
    assert figures(stopped.out) == whole


def runs(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_dir()}


def test_a_changed_setting_trains_anew_and_leaves_the_old_runs(
    config: AblateConfig, whole: dict[str, Any]
) -> None:
    before = runs(config.out)
    found = ablate(config.replace(seeds=(0,), variants=("adapter",), weight_decay=0.5))
    assert len(runs(config.out) - before) == 2  # adapter and control; the base is not trained
    assert before < runs(config.out)
    assert [arm["name"] for arm in found["arms"]] == ["base", "adapter", "control"]
    by_seed = {arm["name"]: arm["event"]["by_seed"] for arm in whole["arms"]}
    assert found["arms"][1]["event"]["by_seed"]["0"]["loss"] != by_seed["adapter"]["0"]["loss"]


def test_each_training_is_an_ordinary_run(
    config: AblateConfig, whole: dict[str, Any], tmp_path: Path
) -> None:
    (directory,) = config.out.glob("rank-4-seed-1-*")
    settings = json.loads((directory / "config.json").read_bytes())
    assert (settings["rank"], settings["seed"]) == (4, 1)
    assert json.loads((directory / "settled.json").read_bytes())["micro_batch"] == 16
    assert json.loads((directory / "variant.json").read_bytes())["name"] == "rank-4"
    losses = pd.read_parquet(directory / "trained" / "val_losses.parquet")
    by_seed = next(arm for arm in whole["arms"] if arm["name"] == "rank-4")["event"]["by_seed"]
    assert losses.loc[losses["is_event"], "total"].mean() == by_seed["1"]["loss"]
    copy = shutil.copytree(directory, tmp_path / "run")
    assert main(["report", str(copy)]) == 0
    assert "validation, event days" in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.soak
def test_a_stopped_training_resumes_from_its_checkpoint(
    config: AblateConfig,
    whole: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal in the middle of the second training; event-lora leaves the ablation's run alone."""
    stopped = config.replace(out=tmp_path / "out")
    step = loop.Loop.step
    done: list[int] = []

    def counted(self: loop.Loop, number: int, windows: Sequence[int]) -> dict[str, float]:
        done.append(number)
        if len(done) == stop_after:
            signal.raise_signal(signal.SIGTERM)
        return step(self, number, windows)

    finished, *_ = config.out.glob("adapter-seed-0-*/metrics.jsonl")
    steps = sum("train/loss" in line for line in finished.read_text().splitlines())
    stop_after = steps + 2
    monkeypatch.setattr(loop.Loop, "step", counted)
    with pytest.raises(Stopped, match=r"after step 2 of .* with the same ablate command"):
        ablate(stopped)
    (directory,) = stopped.out.glob("control-seed-0-*")
    assert (directory / "checkpoints" / "step-00000002").is_dir()
    assert main(["event-lora", "--resume", "--run-dir", str(directory)]) == 2
    assert "resume it with the ablate command" in capsys.readouterr().err
    done.clear()
    stop_after = -1
    ablate(stopped)
    assert done[: steps - 2] == list(range(2, steps))
    assert figures(stopped.out) == whole


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vary", "targets-per-window=3"], "NAME=VALUE"),
        (["--arms", "rank-16"], "'events-only' or 'lora-only', got rank-16"),
        (["--epochs", "0"], "--epochs must be greater than or equal to 1, got 0"),
        (["--seeds", "-1"], "--seeds must be greater than or equal to 0, got -1"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
