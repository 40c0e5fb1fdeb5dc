"""Trainings on a real cluster of two nodes: the local engine's bits, also where a node dies under one."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest

from kronos_service.finetune.event_conditioned.ablate import ablate
from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.walk_forward import walk_forward

pytestmark = pytest.mark.ray
Loses = Callable[[Path], Callable[[], bool]]
SETTINGS: dict[str, Any] = {
    "train_start": date(2021, 6, 1),
    "context": 72,
    "targets_per_window": 8,
    "epochs": 2,
    "warmup_steps": 2,
    "batch_size": 16,
    "seeds": (0,),
}


@pytest.fixture
def loses_a_node(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Loses]:
    """Adds a node; kills it while a training works there and two under `out` have begun their steps."""
    monkeypatch.chdir(tmp_path)
    threads = []

    def begin(out: Path) -> Callable[[], bool]:
        node, killed = ray_cluster.add_node(num_cpus=1), threading.Event()

        def watch() -> None:
            until = time.monotonic() + 120
            while time.monotonic() < until and not killed.is_set():
                if len(list(out.glob("*/metrics.jsonl"))) >= 2 and works(node):
                    killed.set()
                time.sleep(0.02)
            ray_cluster.remove_node(node, allow_graceful=False)

        threads.append(threading.Thread(target=watch))
        threads[-1].start()
        return killed.is_set

    yield begin
    for thread in threads:
        thread.join()


def works(node: Any) -> bool:
    """Whether a process of this node runs a task; Ray names it after its function."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(" ".join(child.cmdline()).startswith("ray::call") for child in raylet.children())


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {
        name: value for name, value in json.loads(json.dumps(found, default=str)).items() if name not in names
    }


def test_a_walk_forward_that_loses_a_node_ends_with_the_local_engines_figures(
    loses_a_node: Loses, market_path: Path, base_path: Path
) -> None:
    def run(out: str, **engine: Any) -> dict[str, Any]:
        folds: dict[str, Any] = {"first_val": date(2022, 6, 1), "last_val": date(2022, 9, 30), "fold": "2m"}
        folds |= {"origins": 0, "checkpoint_every": 2}
        data: dict[str, Any] = {"snapshot": market_path, "base_model": str(base_path)}
        return walk_forward(WalkForwardConfig(out=Path(out), **data, **folds, **SETTINGS, **engine))

    here = run("here")
    killed = loses_a_node(Path("there"))
    there = run("there", engine="ray")
    assert killed()
    assert without(there, "settings") == without(here, "settings")
    weights = sorted(Path("here").glob("*/**/trained/weights.safetensors"))
    assert len(weights) == 4  # adapter and control of two folds
    for path in weights:
        assert Path("there", *path.parts[1:]).read_bytes() == path.read_bytes(), path


def test_an_ablation_that_loses_a_node_ends_with_the_local_engines_table(
    loses_a_node: Loses, market_path: Path, base_path: Path
) -> None:
    def run(out: str, **engine: Any) -> dict[str, Any]:
        dates: dict[str, Any] = {"val_start": date(2022, 6, 1), "test_start": date(2022, 10, 1)}
        data: dict[str, Any] = {"snapshot": market_path, "base_model": str(base_path)}
        data |= {"variants": ("rank-4",)}
        found = ablate(AblateConfig(out=Path(out), **data, **dates, **SETTINGS, **engine))
        for arm in found["arms"]:
            del arm["seconds"]
        return without(found, "settings")

    here = run("here")
    killed = loses_a_node(Path("there"))
    there = run("there", engine="ray")
    assert killed()
    assert there == here
