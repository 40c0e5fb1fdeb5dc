"""SIGKILLs at random points of `walk-forward` as a user runs it; SOAK=10 runs the full count."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX"),
]

KILLS = 2 * int(os.environ.get("SOAK", "1"))
SETTINGS = {
    "--train-start": "2021-06-01",
    "--first-val": "2022-06-01",
    "--last-val": "2022-09-30",
    "--fold": "2m",
    "--context": "72",
    "--targets-per-window": "8",
    "--epochs": "2",
    "--warmup-steps": "2",
    "--batch-size": "12",
    "--lora-dropout": "0.2",
    "--checkpoint-every": "3",
    "--origins": "4",
    "--paths": "20",
    "--out": "folds",
}


def start(directory: Path, market: Path, base: Path) -> subprocess.Popen[str]:
    settings = {"--snapshot": str(market), "--base-model": str(base), **SETTINGS}
    flags = [text for pair in settings.items() for text in pair]
    command = [sys.executable, "-m", "kronos_service.finetune", "walk-forward", *flags, "--seeds", "0"]
    return subprocess.Popen(
        [*command, "--choose-epochs", "--publish", "--promote", "always"],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(directory: Path) -> tuple[dict[str, object], dict[str, dict[str, torch.Tensor]]]:
    """walk_forward.json without the version's name, which holds the time, and all trained weights."""
    figures = json.loads((directory / "folds" / "walk_forward.json").read_bytes())
    assert figures.pop("published")
    weights = sorted((directory / "folds").glob("**/trained/weights.safetensors"))
    return figures, {str(path.relative_to(directory)): load_file(path) for path in weights}


def test_a_walk_forward_that_is_killed_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, market_path: Path, base_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for directory in (whole, killed):
        directory.mkdir()
    begun = time.monotonic()
    assert start(whole, market_path, base_path).wait() == 0
    seconds = time.monotonic() - begun
    expected, weights = outcome(whole)
    assert len(weights) == 2 * 2 + 2 + 1
    rng, kills, finished = random.Random(0), 0, 0
    while kills < KILLS or not finished:
        process = start(killed, market_path, base_path)
        try:
            process.wait(rng.uniform(0.1, 0.6) * seconds if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
        finished += 1
        got, resumed = outcome(killed)
        assert got == expected
        assert resumed.keys() == weights.keys()
        for name, tensors in weights.items():
            assert all(torch.equal(value, resumed[name][key]) for key, value in tensors.items())
        shutil.rmtree(killed / "folds")  # what kills are left fall on another walk
