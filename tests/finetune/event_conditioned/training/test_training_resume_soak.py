"""SIGKILLs, a full disk and signals against `event-lora` as a user runs it; SOAK=10 runs the full counts."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kronos_service.finetune.__main__ import main
from kronos_shared import adapter_store

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX"),
]

TIMES = int(os.environ.get("SOAK", "1"))
SETTINGS = {
    "--epochs": "4",
    "--targets-per-window": "8",
    "--context": "72",
    "--batch-size": "12",
    "--warmup-steps": "2",
    "--rank": "2",
    "--lora-dropout": "0.2",
    "--checkpoint-every": "3",
    "--train-start": "2021-06-01",
    "--val-start": "2022-06-01",
    "--test-start": "2022-10-01",
    "--test-end": "2023-03-31",
    "--run-dir": "runs/night",
}
LIMITED = """
import resource, sys
from kronos_service.finetune.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Command:
    """`event-lora` in a working directory of its own."""

    directory: Path
    market: Path
    base: Path

    @property
    def run(self) -> Path:
        return self.directory / "runs" / "night"

    def first(self) -> list[str]:
        settings = {"--snapshot": str(self.market), "--base-model": str(self.base), **SETTINGS}
        return ["event-lora", *itertools.chain(*settings.items()), "--control", "--promote", "always"]

    def start(self, arguments: list[str], code: str | None = None) -> subprocess.Popen[str]:
        program = ["-c", code] if code else ["-m", "kronos_service.finetune"]
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=self.directory,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def next(self) -> list[str]:
        """What a user types after a kill."""
        begun = (self.run / "config.json").exists()
        return ["event-lora", "--resume"] if begun else self.first()


@pytest.fixture
def command(tmp_path: Path, market_path: Path, base_path: Path) -> Command:
    return Command(tmp_path, market_path, base_path)


def steps(directory: Path) -> list[int]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "train/loss" in line]


@dataclass(frozen=True)
class Whole:
    """The run that nobody disturbed."""

    directory: Path
    seconds: float
    """From the first figure to the end."""

    def assert_equal(self, run: Path) -> None:
        for arm in (".", "control"):
            expected, got = (
                load_file(one / arm / "trained" / "weights.safetensors") for one in (self.directory, run)
            )
            assert expected.keys() == got.keys()
            assert all(torch.equal(value, got[name]) for name, value in expected.items())
            assert steps(run / arm) == steps(self.directory / arm)
            assert steps(run / arm) == list(range(1, len(steps(run / arm)) + 1))
            assert not (run / arm / "checkpoints").exists()
        for name in ("metrics.jsonl", "control/metrics.jsonl", "results.json"):
            assert (run / name).read_bytes() == (self.directory / name).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, market_path: Path, base_path: Path) -> Whole:
    command = Command(tmp_path_factory.mktemp("whole"), market_path, base_path)
    process = command.start(command.first())
    wait_for_figures(command.run, process)
    begun = time.monotonic()
    assert process.wait() == 0, process.stderr and process.stderr.read()
    return Whole(command.run, time.monotonic() - begun)


def wait_for_figures(run: Path, process: subprocess.Popen[str]) -> None:
    """Until this process has written a line of figures, or has ended."""
    logs = [run / "metrics.jsonl", run / "control" / "metrics.jsonl"]

    def written() -> int:
        return max((log.stat().st_mtime_ns for log in logs if log.exists()), default=0)

    before = written()
    while written() == before and process.poll() is None:
        time.sleep(0.01)


def assert_published_once(command: Command) -> None:
    pointer = adapter_store.latest(command.directory / "adapters")
    assert pointer is not None
    assert pointer.generation == 1
    manifest = command.run / "adapter" / "manifest.json"
    assert pointer.manifest_sha256 == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert adapter_store.published(command.directory / "adapters") == [pointer.version]


@pytest.mark.timeout(3600)
def test_kills_at_random_moments_change_no_bit(command: Command, whole: Whole) -> None:
    """Four in five while it trains, the others at any moment from the start of the process on."""
    rng = random.Random(0)
    kills = round_ = 0
    per_run = 5
    while kills < 5 * TIMES:
        now = Command(command.directory / str(round_), command.market, command.base)
        now.directory.mkdir()
        round_ += 1
        killed_here = 0
        while True:
            process = now.start(now.next())
            if killed_here < per_run:
                if rng.random() < 0.8:
                    wait_for_figures(now.run, process)
                    time.sleep(rng.uniform(0, 1.6 * whole.seconds / per_run))
                else:
                    time.sleep(rng.uniform(0, 5))
                process.kill()
                killed_here += process.wait() == -signal.SIGKILL
            assert process.wait() in (0, -signal.SIGKILL), process.stderr and process.stderr.read()
            if (now.run / "finished.json").exists():  # a kill may come after it
                break
        kills += killed_here
        print(f"{kills} kills, {round_} runs", flush=True)  # noqa: T201
        whole.assert_equal(now.run)
        assert_published_once(now)


def in_a_child(work: Callable[[], int]) -> int:
    """The exit code of a fork of this process, which has everything imported."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def resume(directory: Path, dies_before: int | None = None) -> int:
    """Resume in `directory`, and die before that operation on the files of run or adapters."""
    os.chdir(directory)
    left = dies_before

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left is None or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
            return
        if any(name in str(arguments[0]) for name in ("night", "adapters")):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return main(["event-lora", "--resume"])


@pytest.mark.timeout(3600)
def test_a_kill_before_any_step_of_the_end_neither_loses_nor_doubles_a_generation(
    command: Command, whole: Whole
) -> None:
    killed = 0
    for step in range(1, 1000, max(1, 10 // TIMES)):
        now = Command(command.directory / str(step), command.market, command.base)
        shutil.copytree(whole.directory, now.run)
        for name in ("finished.json", "results.json", "criteria.json", "val_losses.parquet"):
            (now.run / name).unlink()
        shutil.rmtree(now.run / "adapter")
        code = in_a_child(partial(resume, now.directory, step))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
        finished = (now.run / "finished.json").exists()
        assert in_a_child(partial(resume, now.directory)) == (2 if finished else 0)
        whole.assert_equal(now.run)
        assert_published_once(now)
        shutil.rmtree(now.directory)
    assert killed >= 4 * TIMES


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("room", "message"),
    [
        (500_000, r"cannot write the checkpoint of step \d+ .*File too large.*the one of step \d+ stays"),
        (2_500, r"cannot write runs/night \(File too large\)"),
    ],
    ids=["in a checkpoint", "in the figures"],
)
def test_a_full_disk_leaves_the_last_good_checkpoint_and_a_clear_line(
    command: Command, whole: Whole, room: int, message: str
) -> None:
    """SIGTERM leaves a checkpoint; the resumed run finds no room; with room again it ends to the bit."""
    process = command.start(command.first())
    wait_for_figures(command.run, process)
    while (command.run / "metrics.jsonl").read_text().count("\n") < 20:  # of 48 lines
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.fullmatch(r"stopped by SIGTERM after step \d+ of 44; .*--resume --run-dir runs/night\n", error)
    before = fingerprint(command.run / "checkpoints")
    process = command.start(command.next(), LIMITED.format(size=room))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert "--resume --run-dir runs/night" in error
    assert fingerprint(command.run / "checkpoints") == before
    process = command.start(command.next())
    assert process.wait(timeout=120) == 0
    whole.assert_equal(command.run)


def fingerprint(directory: Path) -> dict[str, str]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
