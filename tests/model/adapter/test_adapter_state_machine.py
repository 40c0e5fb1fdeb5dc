"""Any sequence of publications, good and bad, killed publishers, lost files, pins, rollbacks and restarts
leaves the loader serving what a few lines say it should.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from adapter_damage import KINDS, Files, spoil
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kronos_service.inference.models.cache import RESIDENT
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.model.adapter.canary import canary_logits
from kronos_service.model.adapter.files import AdapterError, read_files
from kronos_service.model.adapter.read import attach, merge, read_adapter
from kronos_service.model.factory import BaseChoice, Bundle
from kronos_service.model.kronos import Kronos
from kronos_shared import adapter_store
from kronos_shared.adapter_manifest import FILES, LATEST, MANIFEST, VERSIONS, Latest, version_number
from kronos_shared.adapter_store import StoreError, publish, published
from kronos_shared.errors import KronosError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL, fork and links are POSIX")

ADAPTERS = 4
KEEP = 4
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Every step loads models, so shrinking a failure would take longer than reading it."""
STEPS = ("open", "os.mkdir", "os.rename", "os.remove")


def answer(model: Kronos) -> torch.Tensor:
    return torch.cat(canary_logits(model, seed=9, length=24))


def publish_and_die(adapter: Path, store: Path, step: int) -> None:
    """Kills itself before its `step`-th operation inside the store."""
    done = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in ("open", "os.mkdir", "os.rename", "os.remove") and str(arguments[0]).startswith(
            str(store)
        ):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    publish(adapter, store, keep=KEEP)


def in_a_child(work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


class LoaderMachine(RuleBasedStateMachine):
    """The store, one replica, and the model of what the replica should serve."""

    adapters: ClassVar[list[Path]]
    """Good ones."""
    answers: ClassVar[dict[str, torch.Tensor]]
    """Digest of a good adapter -> what it answers."""
    base: ClassVar[BaseChoice]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = self.root / "adapters"
        self.digest_of: dict[str, str] = {}
        self.damaged: set[str] = set()
        self.pointers: list[bytes] = []
        self.serving: str | None = None
        self.pinned: Latest | None = None
        self.start()

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        self.loader = AdapterLoader(self.store, state=self.root / "state", base=self.base)
        self.seen: Latest | None = None

    # --- what should serve

    def latest(self) -> Latest | None:
        try:
            return adapter_store.latest(self.store)
        except (StoreError, OSError):
            return None

    def is_whole(self, version: str) -> bool:
        return version in self.digest_of and version not in self.damaged and version in published(self.store)

    def is_resident(self, digest: str) -> bool:
        return digest in [self.digest_of[version] for version in self.loader.status().resident]

    def can_serve(self, version: str, digest: str) -> bool:
        return digest in self.answers and (self.is_resident(digest) or self.is_whole(version))

    def expect(self) -> None:
        """What a look at the store must lead to."""
        pointer = self.latest()
        if pointer is not None and (
            self.seen is None or pointer.generation > self.seen.generation or pointer == self.seen
        ):
            self.seen = pointer
        else:
            pointer = None
        wanted = self.pinned or pointer
        if wanted is not None and self.can_serve(wanted.version, wanted.manifest_sha256):
            self.serving = wanted.manifest_sha256
        self.is_fine = wanted is not None and self.serving == wanted.manifest_sha256

    # --- what happens to the store

    def mend_pointer(self) -> None:
        """An operator removes a pointer that nobody can read, so that publishers go on."""
        try:
            adapter_store.latest(self.store)
        except (StoreError, OSError):
            (self.store / LATEST).unlink()

    def note_pointer(self) -> None:
        pointer = self.latest()
        if pointer is not None:
            self.digest_of[pointer.version] = pointer.manifest_sha256
            self.pointers.append(pointer.to_bytes())

    @rule(number=st.integers(0, ADAPTERS - 1))
    def publish_a_good_one(self, number: int) -> None:
        self.mend_pointer()
        before = self.latest()
        pointer = publish(self.adapters[number], self.store, keep=KEEP)
        if before is None or pointer.generation > before.generation:
            assert self.latest() == pointer
            self.damaged.discard(pointer.version)
        self.note_pointer()

    @rule(number=st.integers(0, 10 * len(KINDS)), adapter=st.integers(0, ADAPTERS - 1))
    def publish_a_bad_one(self, number: int, adapter: int) -> None:
        self.mend_pointer()
        before = self.latest()
        numbers = [version_number(version) for version in published(self.store)]
        generation = 1 + max([before.generation if before else 0, *numbers])
        good: Files = {name: (self.adapters[adapter] / name).read_bytes() for name in (*FILES, MANIFEST)}
        group, pointer = spoil(self.store, number, good, generation=generation)
        self.digest_of[pointer.version] = pointer.manifest_sha256
        if group in ("torn", "disk"):
            self.damaged.add(pointer.version)

    @rule(number=st.integers(0, ADAPTERS - 1), step=st.integers(1, 40))
    def kill_a_publisher(self, number: int, step: int) -> None:
        self.mend_pointer()
        before = self.latest()
        in_a_child(partial(publish_and_die, self.adapters[number], self.store, step))
        after = self.latest()
        for version in set(published(self.store)) - self.digest_of.keys():
            self.digest_of[version] = read_files(
                self.store / VERSIONS / version
            ).digest  # whole, named or not
        if after != before:
            assert after is not None
            read_files(self.store / VERSIONS / after.version, digest=after.manifest_sha256)
            self.damaged.discard(after.version)
            self.note_pointer()

    @precondition(lambda self: bool(self.pointers))
    @rule(data=st.data())
    def bring_back_an_old_pointer(self, data: st.DataObject) -> None:
        (self.store / LATEST).unlink(missing_ok=True)
        (self.store / LATEST).write_bytes(data.draw(st.sampled_from(self.pointers)))

    @precondition(lambda self: bool(published(self.store)))
    @rule(data=st.data())
    def delete_a_version(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(published(self.store)))
        path = self.store / VERSIONS / version
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
        self.damaged.add(version)

    # --- what the loader is asked

    @rule(is_asked=st.booleans())
    def look(self, is_asked: bool) -> None:
        self.expect()
        status = self.loader.reload() if is_asked else self.loader.look()
        assert (status.reason is None) == self.is_fine

    @rule()
    def restart(self) -> None:
        self.loader.stop()
        self.start()
        self.expect()
        status = self.loader.look()
        assert status.pinned == (self.pinned and self.pinned.version)

    @precondition(lambda self: bool(self.digest_of))
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.digest_of)))
        digest = self.digest_of[version]
        may, must = self.can_serve(version, digest), digest in self.answers and self.is_whole(version)
        try:
            self.loader.pin(version)
        except AdapterError:
            assert not must
            return
        assert may
        number = version_number(version)
        self.pinned = Latest(generation=number, version=version, manifest_sha256=digest)
        self.expect()

    @rule()
    def unpin(self) -> None:
        self.pinned = None
        self.expect()
        self.loader.pin(None)

    @precondition(lambda self: bool(self.digest_of))
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from([None, *sorted(self.digest_of)]))
        before = self.latest()
        raw = (self.store / LATEST).read_bytes() if (self.store / LATEST).is_file() else None
        try:
            self.loader.rollback(version)
        except KronosError:
            after = (self.store / LATEST).read_bytes() if (self.store / LATEST).is_file() else None
            assert after == raw
            if version is not None and before is not None and version != before.version:
                assert not (self.is_whole(version) and self.digest_of[version] in self.answers)
            return
        after_pointer = self.latest()
        assert after_pointer is not None
        assert before is None or after_pointer.generation > before.generation
        assert version in (None, after_pointer.version)
        assert after_pointer.manifest_sha256 in self.answers
        self.note_pointer()
        self.expect()

    # --- what holds throughout

    @invariant()
    def what_serves_is_what_should(self) -> None:
        status, serving = self.loader.status(), self.loader.current()
        assert status.counters.errors == 0, status.reason
        assert (serving.digest if serving else None) == self.serving, status.reason
        if serving is not None:
            assert serving.digest is not None
            assert torch.equal(answer(serving.model), self.answers[serving.digest])
            assert status.resident[0] == serving.version
            assert len(status.resident) <= RESIDENT
        assert not self.answers.keys() & status.quarantined.keys()


def run_machine(adapter_of: Callable[[int], Path], bundle: Bundle, base_path: Path, effort: settings) -> None:
    LoaderMachine.adapters = [adapter_of(number) for number in range(ADAPTERS)]
    read = [read_adapter(directory) for directory in LoaderMachine.adapters]
    LoaderMachine.answers = {one.digest: answer(merge(attach(one, bundle))) for one in read}
    LoaderMachine.base = BaseChoice(model=str(base_path))
    run_state_machine_as_test(LoaderMachine, settings=settings(effort, deadline=None, phases=UNSHRUNK))


def test_any_short_history_leaves_what_should_serve(
    adapter_of: Callable[[int], Path], bundle: Bundle, base_path: Path
) -> None:
    few = settings(max_examples=6, stateful_step_count=20, derandomize=True, database=None)
    run_machine(adapter_of, bundle, base_path, few)


@pytest.mark.soak
def test_any_long_history_leaves_what_should_serve(
    adapter_of: Callable[[int], Path], bundle: Bundle, base_path: Path
) -> None:
    many = settings(max_examples=25 * int(os.environ.get("SOAK", "1")), stateful_step_count=50)
    run_machine(adapter_of, bundle, base_path, many)
