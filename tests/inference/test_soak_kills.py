"""The server is killed at any moment while adapters are published: it comes back with a whole one."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from memory_bucket import read, write
from replica import Replica, running

from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_store import latest, publish

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

KILLS = 5 * int(os.environ.get("SOAK", "1"))
ADAPTERS = 5
READY_WITHIN = 30.0
BODY: dict[str, Any] = {"series": [{"symbol": "SPY"}], "horizon": 2, "paths": 2, "seed": 0}


@dataclass
class Published:
    """Version -> digest of everything that was ever LATEST."""

    digests: dict[str, str] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)


@contextmanager
def publisher(
    adapter_of: Callable[[int], Path], store: Path | StoreUrl, *, every: float
) -> Iterator[Published]:
    """Publishes one adapter after the other in a thread."""
    done, published = threading.Event(), Published()

    def go_on() -> None:
        number = 0
        try:
            while not done.wait(every):
                number += 1
                pointer = publish(adapter_of(number % ADAPTERS), store, keep=4)
                published.digests[pointer.version] = pointer.manifest_sha256
        except Exception as error:  # the test reports it
            published.errors.append(error)

    first = publish(adapter_of(0), store, keep=4)
    published.digests[first.version] = first.manifest_sha256
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield published
    finally:
        done.set()
        thread.join()


def test_a_killed_server_is_ready_again_on_a_whole_version(
    adapter_of: Callable[[int], Path],
    either_store: Path | StoreUrl,
    base_path: Path,
    market_path: Path,
    tmp_path: Path,
) -> None:
    for number in range(ADAPTERS):
        adapter_of(number)
    store = either_store
    replica = Replica(
        adapters=store,
        directory=tmp_path / "replica",
        base=str(base_path),
        snapshot=market_path,
        settings={"poll_seconds": "0.05"},
    )
    random.seed(0)
    took: list[float] = []
    answers: dict[str, Any] = {}
    with publisher(adapter_of, store, every=0.3) as published, running(replica):
        for _ in range(KILLS):
            time.sleep(random.uniform(0, 2))
            replica.kill()
            generation = getattr(latest(store), "generation", 0)
            replica.start()
            took.append(replica.wait_until_ready(READY_WITHIN))
            status = replica.model()["serving"]
            assert published.digests[status["version"]] == status["digest"]
            assert status["generation"] >= generation
            answer = replica.post("/v1/forecast", BODY).json()
            assert published.digests[answer["model"]["version"]] == answer["model"]["digest"]
            known = answers.setdefault(answer["model"]["digest"], answer["series"])
            assert known == answer["series"]
    assert published.errors == []
    assert len(published.digests) > KILLS
    print(f"{KILLS} kills, ready again after at most {max(took):.1f} s")  # noqa: T201


def test_a_server_without_its_store_comes_back_on_the_last_good_version(
    adapter_of: Callable[[int], Path],
    either_store: Path | StoreUrl,
    base_path: Path,
    market_path: Path,
    tmp_path: Path,
) -> None:
    """Killed while the newest version is damaged, and LATEST.json names it."""
    store = either_store
    good = publish(adapter_of(0), store, keep=4)
    replica = Replica(
        adapters=store, directory=tmp_path / "replica", base=str(base_path), snapshot=market_path
    )
    with running(replica):
        before = replica.post("/v1/forecast", BODY).json()
        replica.kill()
        bad = publish(adapter_of(1), store, keep=4)
        weights = f"versions/{bad.version}/event_emb.safetensors"
        write(store, weights, read(store, weights)[:-1])
        replica.start()
        replica.wait_until_ready(READY_WITHIN)
        status = replica.model()
        assert status["serving"]["version"] == good.version
        assert bad.version in json.dumps(status["stale_because"])
        after = replica.post("/v1/forecast", BODY).json()
        assert (after["series"], after["model"]) == (before["series"], before["model"])
