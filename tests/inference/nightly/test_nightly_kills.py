"""A batch is killed at random points and resumed: the file is the same to the byte, and never half there."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronos_service.data.forecasts import read_about

KILLS = 2 * int(os.environ.get("SOAK", "1"))


@pytest.mark.parametrize(
    "kills", [3, pytest.param(KILLS, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_a_killed_batch_ends_as_if_it_had_not_been(
    run: Callable[..., Any], config_of: Callable[..., Any], tmp_path: Path, kills: int
) -> None:
    changes = {"paths": 100, "with_base": True}
    started = time.monotonic()
    whole = run(out=tmp_path / "whole.parquet", **changes)[0].out.read_bytes()
    seconds = time.monotonic() - started
    out = config_of().out
    random.seed(kills)
    resumed = 0
    for kill in range(kills):
        # a fork, since importing torch would take longer than the batch
        process = multiprocessing.get_context("fork").Process(target=run, kwargs=changes)
        process.start()
        if kill % 2:
            time.sleep(random.uniform(0, seconds))
        else:  # how fast it is now nobody knows: with so many chunks done it is in the middle
            done = random.randint(1, 3)
            while process.is_alive() and len(list(out.parent.glob(".*.partial/0*.parquet"))) < done:
                time.sleep(0.002)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if out.exists():
            assert out.read_bytes() == whole
            out.unlink()
        resumed += len(list(out.parent.glob(".*.partial/0*.parquet")))
    assert run(**changes)[0].out.read_bytes() == whole
    assert read_about(out)["symbols"] == 7
    assert resumed > 0, "no kill left a chunk to resume from"
    assert [path.name for path in out.parent.iterdir()] == [out.name]
