"""Two gloo processes and one: the same run; and where one of them dies, all end."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes under /proc"),
]

SETTINGS = {
    "--epochs": "1",
    "--targets-per-window": "8",
    "--context": "72",
    "--batch-size": "9",
    "--micro-batch": "2",
    "--warmup-steps": "2",
    "--rank": "2",
    "--lora-dropout": "0",
    "--checkpoint-every": "4",
    "--train-start": "2021-06-01",
    "--val-start": "2022-06-01",
    "--test-start": "2022-10-01",
    "--test-end": "2023-03-31",
}
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]


def start(directory: Path, *arguments: str, processes: int) -> subprocess.Popen[bytes]:
    launcher = [*LAUNCH, "--mixed_precision", "no", "--dynamo_backend", "no"] if processes > 1 else []
    port = ["--main_process_port", "0"] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, *port, "-m", "kronos_service.finetune", "event-lora", *arguments],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=(directory / "out.txt").open("wb"),
        stderr=subprocess.STDOUT,
    )


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def settings(market: Path, base: Path, run: str) -> list[str]:
    named = {"--snapshot": str(market), "--base-model": str(base), **SETTINGS, "--run-dir": run}
    return [*itertools.chain(*named.items()), "--no-control", "--promote", "always"]


def figures(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, two: Path) -> None:
    """The loss curve to 1e-4, the weights to 1e-3 relative, and each target scored once."""
    curve, other = figures(one), figures(two)
    assert [(line["epoch"], line["step"]) for line in curve] == [(li["epoch"], li["step"]) for li in other]
    for line, same in zip(curve, other, strict=True):
        assert line == pytest.approx(same, abs=1e-4)
    expected, got = (load_file(run / "trained" / "weights.safetensors") for run in (one, two))
    for name, value in expected.items():
        assert (got[name] - value).norm() <= 1e-3 * value.norm(), name
    scored, again = (pd.read_parquet(run / "val_losses.parquet") for run in (one, two))
    assert not again.duplicated(["model", "symbol", "date"]).any()
    pd.testing.assert_frame_equal(again, scored, check_exact=False, atol=1e-4)


def test_two_processes_and_one_are_the_same_run(market_path: Path, base_path: Path, tmp_path: Path) -> None:
    for name, processes in (("one", 1), ("two", 2)):
        process = start(tmp_path, *settings(market_path, base_path, name), processes=processes)
        assert process.wait() == 0, (tmp_path / "out.txt").read_text()
        assert json.loads((tmp_path / name / "settled.json").read_text())["processes"] == processes
    shown = (tmp_path / "out.txt").read_text()
    assert shown.count("Success criteria") == 1
    assert "2 processes on cpu" in shown
    assert_same_run(tmp_path / "one", tmp_path / "two")

    process = start(tmp_path, *settings(market_path, base_path, "killed"), processes=2)
    while not (tmp_path / "killed" / "checkpoints" / "step-00000004").exists():
        assert process.poll() is None, (tmp_path / "out.txt").read_text()
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (tmp_path / "killed" / "finished.json").exists()

    process = start(tmp_path, "--resume", "--run-dir", "killed", processes=1)
    assert process.wait() == 2
    assert "began with processes 2, but now it is 1" in (tmp_path / "out.txt").read_text()
    process = start(tmp_path, "--resume", "--run-dir", "killed", processes=2)
    assert process.wait() == 0, (tmp_path / "out.txt").read_text()
    assert figures(tmp_path / "killed") == figures(tmp_path / "two")


def test_a_mistake_ends_all_processes_and_is_told_once(
    market_path: Path, base_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    process = start(tmp_path, *settings(market_path, base_path, "full"), processes=2)
    assert process.wait(timeout=60) != 0
    assert (tmp_path / "out.txt").read_text().count("full is not empty") == 1
