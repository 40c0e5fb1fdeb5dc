"""A run through NCCL with one process, and one that is stopped and resumed: the same weights in the end."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
import torch.distributed
from gpu_steps.lab import Lab
from safetensors.torch import load_file

from kronos_service.data.sample import write_sample

NUMBERS = 1_000_000
"""About as many as are trained."""
FLAGS = {
    "--train-start": "2021-06-01",
    "--val-start": "2022-06-01",
    "--test-start": "2022-10-01",
    "--test-end": "2022-11-30",
    "--epochs": "1",
    "--batch-size": "4",
    "--checkpoint-every": "2",
    "--promote": "never",
    "--forecast-origins": "0",
    "--tracker": "none",
}


def run(lab: Lab) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    all_reduce(lab)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_sample(directory / "market", seed=3, symbols=2, start=date(2021, 1, 4), end=date(2022, 12, 30))
        resumed_to_the_same(lab, directory)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def all_reduce(lab: Lab) -> None:
    """Record the seconds of the one message of a step."""
    backend = "gloo" if lab.dry_run else "nccl"
    torch.distributed.init_process_group(backend)
    gradients = torch.ones(NUMBERS, device=lab.device)
    torch.distributed.all_reduce(gradients)
    seconds = lab.seconds(lambda: torch.distributed.all_reduce(gradients), repeats=5)
    lab.add(f"sum of all gradients, {backend}, one process", 1000 * seconds, "ms")
    assert bool((gradients == 1).all())
    torch.distributed.destroy_process_group()


def resumed_to_the_same(lab: Lab, directory: Path) -> None:
    """Record how far a stopped and resumed run ends from one that was not."""
    begun = time.monotonic()
    uninterrupted, stopped = job(directory, "whole"), job(directory, "parts")
    checkpoints = directory / "parts" / "checkpoints"
    while not list(checkpoints.glob("step-*[1-9]")):
        assert stopped.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    code = stopped.wait()
    lab.add("exit code of a run stopped by SIGTERM", code, "", "expected 143")
    assert code == 143
    resumed = job(directory, "parts", resume=True)
    assert uninterrupted.wait() == 0
    lab.add("a small run through the process group", time.monotonic() - begun, "s", "beside another")
    assert resumed.wait() == 0
    whole, parts = (
        load_file(directory / run / "trained" / "weights.safetensors") for run in ("whole", "parts")
    )
    furthest = max(float((whole[name] - parts[name]).abs().max()) for name in whole)
    lab.add("weights of a resumed run off those of a whole one", furthest, "", "0: the same bits")
    assert furthest <= 1e-4


def job(directory: Path, run: str, *, resume: bool = False) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "kronos_service.finetune",
        "event-lora",
        "--run-dir",
        str(directory / run),
    ]
    flags = [word for pair in FLAGS.items() for word in pair]
    whole = ["--snapshot", str(directory / "market"), "--no-control", *flags]
    environment = os.environ | {"MASTER_PORT": str(free_port())}
    return subprocess.Popen(
        [*command, "--resume"] if resume else [*command, *whole],
        env=environment,
        cwd=directory,
        stdout=subprocess.DEVNULL,
    )
