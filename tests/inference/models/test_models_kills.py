"""Publishers that are killed at any moment, two at a time, while a loader follows: nothing half published is
ever loaded, nothing published is lost, and the next one publishes.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.model.adapter.files import read_files
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import MANIFEST, VERSIONS
from kronos_shared.adapter_store import home_of, latest, publish, published
from kronos_shared.object_store import Bucket

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX"),
]

KILLS = 20 * int(os.environ.get("SOAK", "1"))
KEEP = 5
Store = Path | StoreUrl
PUBLISHER = """
import sys
from pathlib import Path
from kronos_shared.adapter_store import publish

adapter, store, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
manifest = (adapter / "manifest.json").read_bytes()
print("ready", flush=True)
for number in range(10_000):
    changed = manifest.replace(b'"metrics": {}', b'"metrics": {"%s": %d}' % (name.encode(), number))
    assert changed != manifest
    (adapter / "manifest.json").write_bytes(changed)
    pointer = publish(adapter, store, keep=KEEP)
    print(pointer.generation, pointer.version, flush=True)
""".replace("KEEP", str(KEEP))


class Publisher:
    """A process that publishes one adapter after the other, until it is killed."""

    def __init__(self, adapter: Path, store: Store, name: str, root: Path) -> None:
        own = Path(shutil.copytree(adapter, root / name))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(own), str(store), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> list[tuple[int, str]]:
        """What it had published, as far as it could still say so."""
        self.process.kill()
        told, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == -9, errors
        lines = [line.split() for line in told.splitlines(keepends=True) if line.endswith("\n")]
        return [(int(generation), version) for generation, version in lines]


@pytest.fixture
def empty_store(either_store: Store) -> Store:
    return either_store


def test_a_killed_publisher_costs_nothing_and_no_two_share_a_generation(
    empty_store: Store,
    adapter_of: Callable[[int], Path],
    tmp_path: Path,
    new_loader: Callable[[], AdapterLoader],
) -> None:
    rng = random.Random(0)
    left_half_done = 0
    loader = new_loader()
    told: dict[int, str] = {}
    for round_ in range(KILLS // 2):
        names = (f"a{round_}", f"b{round_}")
        publishers = [Publisher(adapter_of(0), empty_store, name, tmp_path) for name in names]
        for publisher in publishers:
            until = time.monotonic() + rng.uniform(0, 0.15)
            while time.monotonic() < until:
                loader.look()  # whatever it sees is good, or a version that retention took away meanwhile
                assert not loader.status().quarantined
            for generation, version in publisher.kill():
                assert generation not in told, "two publishers took one generation"
                told[generation] = version
        check_whole(empty_store, told)
        left_half_done += half_done(empty_store)
        before = latest(empty_store)
        manifest = (adapter_of(0) / MANIFEST).read_bytes()
        own = Path(shutil.copytree(adapter_of(0), tmp_path / f"c{round_}"))
        (own / MANIFEST).write_bytes(manifest.replace(b'"metrics": {}', b'"metrics": {"c": %d}' % round_))
        after = publish(own, empty_store, keep=KEEP)
        assert after.generation > max([0, *told, before.generation if before else 0])
        told[after.generation] = after.version
        assert not half_done(empty_store)
        status = loader.look()
        assert (status.reason, status.serving and status.serving.version) == (None, after.version)
        assert (status.quarantined, status.counters.errors) == ({}, 0)
    assert len(told) > KILLS  # publishers did publish before they died
    assert left_half_done >= KILLS // 20  # and some died in the middle of it
    print(f"{KILLS} kills, {left_half_done} in the middle of a version; {len(told)} published")  # noqa: T201


def half_done(store: Store) -> int:
    """How many versions publishers have begun, and not finished."""
    if isinstance(store, Path):
        return len(list((store / VERSIONS).glob(".*")))
    begun = {key.split("/")[1] for key in Bucket(store).names(f"{VERSIONS}/")}
    return len(begun - set(published(store)))


def check_whole(store: Store, told: dict[int, str]) -> None:
    """LATEST is as new as anything that was told, and every version that is there is whole."""
    pointer = latest(store)
    if told:
        assert pointer is not None
        assert pointer.generation >= max(told)
        assert told[max(told)] in published(store)
        assert told.get(pointer.generation, pointer.version) == pointer.version
    for version in published(store):
        files = read_files(home_of(store).directory(version))
        assert files.digest.startswith(version.split("-")[1])
