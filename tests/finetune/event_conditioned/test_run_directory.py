"""Runs as a user starts, stops and resumes them: what goes on, what is refused, what is not done twice."""

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned import event_lora as job
from kronos_service.finetune.event_conditioned.config import EventLoraConfig, current
from kronos_service.finetune.event_conditioned.run_directory import (
    RunError,
    RunFingerprint,
    record_fingerprint,
)
from kronos_service.finetune.event_conditioned.training import loop
from kronos_shared import adapter_store

SPLITS = {
    "train_start": "2021-06-01",
    "val_start": "2022-06-01",
    "test_start": "2022-10-01",
    "test_end": "2023-03-31",
}
TINY = {
    "epochs": 1,
    "targets_per_window": 8,
    "context": 72,
    "warmup_steps": 2,
    "rank": 2,
    "batch_size": 24,
    "promote": "always",
    "forecast_origins": 2,
    "forecast_horizon": 2,
    "forecast_paths": 20,
    **SPLITS,
}


def flags(settings: dict[str, Any]) -> list[str]:
    return [text for name, value in settings.items() for text in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture
def argv(market_path: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a tiny run, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    given = flags({"snapshot": market_path, "base_model": base_path, **TINY})
    return ["event-lora", *given, "--no-control"]


def only_run() -> Path:
    (run,) = Path("runs").glob("event-lora-*")
    return run


def steps(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "train/loss" in line]


def stop_after(step: int, number: signal.Signals, patch: pytest.MonkeyPatch) -> None:
    """The signal comes in the middle of a step."""
    whole = loop.Loop.step

    def stopped(self: loop.Loop, at: int, windows: Sequence[int]) -> dict[str, float]:
        if at == step:
            os.kill(os.getpid(), number)
        return whole(self, at, windows)

    patch.setattr(loop.Loop, "step", stopped)


@pytest.mark.soak  # four runs; test_training_resume.py cuts a training at each step, by default
def test_a_stopped_run_resumes_by_itself_to_the_same_bits(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--run-dir", "whole", "--control"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stop_after(2, signal.SIGTERM, patch)
        assert main([*argv, "--control"]) == 143
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "stopped by SIGTERM after step 3 of 6; a checkpoint is written" in error
    assert f"--resume --run-dir {only_run()}" in error
    with monkeypatch.context() as patch:
        stop_after(4, signal.SIGINT, patch)
        assert main(["event-lora", "--resume"]) == 130
    assert steps(only_run()) == [1, 2, 3, 4, 5]
    assert main(["event-lora", "--resume", "--epochs", "1"]) == 0
    for arm in ("", "control"):
        assert steps(only_run() / arm) == steps(Path("whole", arm)) == [1, 2, 3, 4, 5, 6]
        got, expected = (
            load_file(run / arm / "trained" / "weights.safetensors") for run in (only_run(), Path("whole"))
        )
        assert all(torch.equal(value, got[name]) for name, value in expected.items())
    assert (only_run() / "results.json").read_text() == Path("whole/results.json").read_text()
    pointer = adapter_store.latest(Path("adapters"))
    assert pointer is not None
    assert pointer.generation == 2

    capsys.readouterr()
    assert main(["event-lora", "--resume", "--run-dir", str(only_run())]) == 2
    assert "has finished: there is nothing to resume" in capsys.readouterr().err
    assert main(["event-lora", "--resume"]) == 2
    assert "no unfinished run under" in capsys.readouterr().err


def test_a_run_that_dies_after_it_has_published_publishes_no_second_time(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(job, "_write_results", die)
        with pytest.raises(Died):
            main([*argv, "--forecast-origins", "0"])
    other = Path(shutil.copytree(only_run() / "adapter", "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "metrics": {}}))
    newer = adapter_store.publish(other, Path("adapters"), keep=10)
    assert newer.generation == 2
    assert main(["event-lora", "--resume"]) == 0
    assert adapter_store.latest(Path("adapters")) == newer
    assert len(adapter_store.published(Path("adapters"))) == 2


@pytest.mark.parametrize("given", [["--snapshot", "nowhere"], ["--context", "600"]])
def test_a_start_that_fails_leaves_nothing_to_resume(
    argv: list[str], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, *given]) == 2
    assert not list(Path("runs").glob("event-lora-*"))
    Path("mine").mkdir()
    assert main([*argv, *given, "--run-dir", "mine"]) == 2
    assert not list(Path("mine").iterdir())
    capsys.readouterr()
    assert main(["event-lora", "--resume"]) == 2
    assert "no unfinished run under" in capsys.readouterr().err


@pytest.mark.parametrize("damaged", [False, True])
def test_a_store_that_cannot_be_published_to_is_refused_before_the_training(
    argv: list[str], damaged: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if damaged:
        Path("store").mkdir()
        Path("store/LATEST.json").write_text("{")
    else:
        Path("store").touch()
    assert main([*argv, "--adapter-store", "store"]) == 2
    assert ("not a valid pointer" if damaged else "store is not a directory") in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_start_that_the_audit_ends_leaves_nothing_to_resume(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(*_: object, **__: object) -> None:
        raise RunError("a leak")

    monkeypatch.setattr(job, "require_no_leak", leak)
    assert main([*argv, "--run-dir", "leaky"]) == 2
    assert not Path("leaky").exists()


def test_a_run_that_another_process_has_just_started_is_left_alone(argv: list[str]) -> None:
    Path("mine").mkdir()
    with FileLock("mine/.lock"):
        assert main([*argv, "--run-dir", "mine"]) == 2
        assert Path("mine/.lock").exists()


def begin(directory: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped before its first step."""
    with monkeypatch.context() as patch:
        patch.setattr(job, "_run", lambda *_: None)
        assert main([*argv, "--run-dir", str(directory)]) == 0


def resumed(monkeypatch: pytest.MonkeyPatch, *argv: str) -> tuple[EventLoraConfig, Path]:
    """What `--resume` would carry out."""
    got: list[tuple[EventLoraConfig, Path]] = []
    with monkeypatch.context() as patch:
        patch.setattr(job, "_run", lambda config, directory: got.append((config, directory)))
        assert main(["event-lora", "--resume", *argv]) == 0
    return got[0]


def test_resume_finds_the_newest_unfinished_run_that_nobody_works_in(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b", "a", "c", "d"):
        begin(Path("runs", name), argv, monkeypatch)
        time.sleep(0.01)
    (Path("runs/d") / "finished.json").write_text("{}")
    with FileLock("runs/c/.lock"):
        config, directory = resumed(monkeypatch)
        assert directory == Path("runs/a")
        assert main(["event-lora", "--resume", "--run-dir", "runs/c"]) == 2
        assert "another process is training in runs/c" in capsys.readouterr().err
    assert resumed(monkeypatch)[1] == Path("runs/c")
    assert config.epochs == 1
    assert str(config.val_start) == "2022-06-01"


def test_a_resumed_run_keeps_its_settings_and_says_which_flag_contradicts_them(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(Path("runs/a"), argv, monkeypatch)
    capsys.readouterr()
    assert main(["event-lora", "--resume", "--epochs", "15", "--rank", "2", "--placebo"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--epochs is 15 but the run began with 1" in error
    assert "--placebo is True but the run began with False" in error
    assert "--rank" not in error
    config, _ = resumed(monkeypatch, "--epochs", "1", "--checkpoint-every", "7", "--promote", "if-better")
    assert (config.epochs, config.checkpoint_every, config.promote) == (1, 7, "if-better")
    assert main(["event-lora", "--resume", "--run-dir", "nowhere"]) == 2
    assert "nowhere holds no run to resume" in capsys.readouterr().err


def test_settings_survive_their_file() -> None:
    config = EventLoraConfig(run_dir=Path("x/y"), lora_dropout=0.0, micro_batch=4, placebo=True)
    assert EventLoraConfig(**current(json.loads(config.model_dump_json()))) == config


BEFORE_THE_RENAMES = {
    **{"snapshot": None, "base_model": "kronos-nano", "revision": None, "tokenizer": None},
    **{"tokenizer_revision": None, "run_dir": "runs/old", "adapters": "store", "checkpoint_every": 50},
    **{"keep_versions": 10, "train_start": "2021-01-01", "val_start": "2025-01-01"},
    **{"test_start": "2025-07-01", "test_end": "2026-03-31", "context": None, "scored": 16, "epochs": 10},
    **{"batch_size": 32, "micro_batch": None, "vram_budget": 6.0, "precision": "auto"},
    **{"learning_rate": 0.0001, "event_learning_rate": 0.0003, "warmup_steps": 100, "weight_decay": 0.01},
    **{"clip": 2.0, "rank": 8, "lora_dropout": 0.05, "taps": "both", "event_oversample": 4.0},
    **{"blank_probability": 0.15, "seed": 0, "forecast_origins": 24, "control": True, "placebo": False},
}
"""config.json as the first version wrote it, but for the two settings that decided on promotion."""


@pytest.mark.parametrize(
    ("force", "require_gain", "promote"),
    [
        (False, False, "if-better"),
        (False, True, "if-gain"),
        (True, False, "always"),
        (True, True, "always"),
    ],
)
def test_a_run_that_began_before_settings_were_renamed_resumes_with_the_same_ones(
    force: bool, require_gain: bool, promote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = BEFORE_THE_RENAMES | {"force": force, "require_gain": require_gain}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config, _ = resumed(monkeypatch, "--run-dir", str(tmp_path))
    assert (config.targets_per_window, config.max_grad_norm, config.event_weight) == (16, 2.0, 4.0)
    assert (config.adapter_store, config.promote, config.epochs) == (Path("store"), promote, 10)
    same = json.loads(config.model_dump_json())
    assert {name: same[name] for name in stored if name in same and name != "run_dir"} == {
        name: value for name, value in stored.items() if name in same and name != "run_dir"
    }


def test_a_stored_setting_of_no_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BEFORE_THE_RENAMES | {"epoch": 3}))
    assert main(["event-lora", "--resume", "--run-dir", str(tmp_path)]) == 2
    assert "unknown setting epoch, did you mean epochs?" in capsys.readouterr().err


def test_what_numbers_depend_on_may_not_change_between_starts(tmp_path: Path) -> None:
    began = RunFingerprint(
        snapshot="s", base="b", tokenizer="t", processes=1, device="cpu", precision="no", micro_batch=8
    )
    record_fingerprint(tmp_path, began)
    record_fingerprint(tmp_path, began)
    with pytest.raises(RunError, match="began with processes 1, but now it is 2"):
        record_fingerprint(tmp_path, replace(began, processes=2))
