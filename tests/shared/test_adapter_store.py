"""The store of adapters: generations never repeat, versions never change, nothing is half published."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from memory_bucket import Store, buckets_in_memory, keys, read, unlink, write

from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, FILES, MANIFEST, Latest, is_version, version_name
from kronos_shared.adapter_store import (
    StoreError,
    latest,
    latest_version,
    previous,
    publish,
    published,
    published_as,
    rollback,
)

Variant = Callable[[int], Path]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, directory: Path) -> Iterator[Store]:
    if request.param == "directory":
        yield directory
    else:
        with buckets_in_memory():
            yield StoreUrl("s3://bucket/desk/adapters")


def left_over(store: Store) -> list[str]:
    """Names of files and directories that are neither LATEST nor a version's."""
    if isinstance(store, Path):
        return [path.name for path in (*store.glob(".L*"), *(store / "versions").glob(".*"))]
    whole = {f"versions/{version}/{name}" for version in published(store) for name in (*FILES, MANIFEST)}
    return sorted(one for one in keys(store) - whole - {"LATEST.json"} if not one.startswith("generations/"))


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_the_lock_can_be_taken_by_the_group_whatever_the_umask(variant: Variant, directory: Path) -> None:
    before = os.umask(0o027)
    try:
        publish(variant(1), directory, keep=10)
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / ".lock").stat().st_mode) == 0o664


def test_publishing_makes_an_immutable_version_that_latest_names(variant: Variant, store: Store) -> None:
    asked: list[Latest | None] = []
    first = publish(variant(1), store, keep=10, require=asked.append)
    second = publish(variant(2), store, keep=10, require=asked.append)
    assert asked == [None, first]
    assert (first.generation, second.generation) == (1, 2)
    assert first.version == version_name(1, (variant(1) / MANIFEST).read_bytes())
    assert second.version.startswith("000002-")
    directory = latest_version(store)
    assert directory is not None
    assert directory.name == second.version
    assert {path.name for path in directory.iterdir()} == {*FILES, MANIFEST}
    assert all(
        (directory / name).read_bytes() == (variant(2) / name).read_bytes() for name in (*FILES, MANIFEST)
    )
    assert latest(store) == Latest(
        generation=2,
        version=second.version,
        manifest_sha256=hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest(),
    )
    assert not left_over(store)


def test_publishing_the_newest_manifest_again_changes_nothing(variant: Variant, store: Store) -> None:
    first = publish(variant(1), store, keep=10)
    assert publish(variant(1), store, keep=10) == first
    assert published(store) == [first.version]
    second = publish(variant(2), store, keep=10)
    assert publish(variant(1), store, keep=10).generation == 3  # not the newest any more: a new version
    assert len(published(store)) == 3
    assert second.version in published(store)


def test_a_publisher_that_died_learns_whether_its_adapter_has_been_latest(
    variant: Variant, store: Store
) -> None:
    assert published_as(variant(1), store) is None
    first = publish(variant(1), store, keep=10)
    assert published_as(variant(1), store) == first.version
    before = read(store, "LATEST.json")
    second = publish(variant(2), store, keep=10)
    assert published_as(variant(1), store) == first.version
    assert published_as(variant(2), store) == second.version
    write(store, "LATEST.json", before)  # as after a kill between the last two steps
    assert published_as(variant(2), store) is None


def test_a_newest_version_that_is_not_whole_is_published_anew(variant: Variant, store: Store) -> None:
    first = publish(variant(1), store, keep=10)
    unlink(store, f"versions/{first.version}/{EVENT_WEIGHTS}")
    second = publish(variant(1), store, keep=10)
    assert (second.generation, second.manifest_sha256) == (2, first.manifest_sha256)
    assert latest(store) == second


def test_publishing_again_finishes_what_a_killed_publisher_began(variant: Variant, store: Store) -> None:
    publish(variant(1), store, keep=10)
    before = read(store, "LATEST.json")
    second = publish(variant(2), store, keep=10)
    write(store, "LATEST.json", before)  # as after a kill between the last two steps
    asked: list[Latest | None] = []
    assert publish(variant(2), store, keep=10, require=asked.append) == second
    assert asked == [Latest.from_bytes(before)]
    assert latest(store) == second
    assert len(published(store)) == 2


def test_a_version_that_a_killed_publisher_left_does_not_share_its_number(
    variant: Variant, store: Store
) -> None:
    publish(variant(1), store, keep=10)
    before = read(store, "LATEST.json")
    publish(variant(2), store, keep=10)
    write(store, "LATEST.json", before)
    third = publish(variant(3), store, keep=10)
    assert third.generation == 3
    # in a bucket it is known that the second was never LATEST, and its publisher publishes it again
    left = ["000002"] if isinstance(store, Path) else []
    assert [name[:6] for name in published(store)] == ["000001", *left, "000003"]


def test_publishing_again_after_a_rollback_leaves_the_rollback_in_force(
    variant: Variant, store: Store
) -> None:
    first, second = publish(variant(1), store, keep=10), publish(variant(2), store, keep=10)
    back = rollback(store)
    assert publish(variant(2), store, keep=10) == second
    assert latest(store) == back
    assert back.version == first.version


def test_a_rollback_is_a_new_generation_of_an_older_version(variant: Variant, store: Store) -> None:
    versions = [publish(variant(number), store, keep=10) for number in (1, 2, 3)]
    back = rollback(store)
    assert (back.generation, back.version) == (4, versions[1].version)
    assert back.manifest_sha256 == versions[1].manifest_sha256
    assert latest(store) == back
    assert rollback(store).version == versions[0].version
    assert rollback(store, versions[2].version).generation == 6
    assert publish(variant(4), store, keep=10).version.startswith("000007-")


def test_what_another_user_left_half_done_stops_nobody(
    variant: Variant, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = publish(variant(1), directory, keep=10), publish(variant(2), directory, keep=10)
    theirs = directory / "versions" / ".000003-of-a-killed-publisher"
    theirs.mkdir()

    def not_ours(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", not_ours)
        assert rollback(directory).version == first.version
    assert left_over(directory) == [theirs.name]
    publish(variant(3), directory, keep=10)
    assert left_over(directory) == []


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOTEMPTY, errno.EIO, errno.EROFS])
def test_what_cannot_be_removed_stops_no_publisher_before_latest_or_after(
    variant: Variant, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (directory / "versions" / ".000001-of-a-killed-publisher").mkdir(parents=True)

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "rmtree", fails)
    for count in range(1, 4):
        pointer = publish(variant(count), directory, keep=1)
        assert (pointer.generation, latest(directory)) == (count, pointer)
    with monkeypatch.context() as patch:
        real = os.rename
        patch.setattr(
            os, "rename", lambda old, new: fails() if is_version(Path(old).name) else real(old, new)
        )
        pointer = publish(variant(4), directory, keep=1)
    assert latest(directory) == pointer
    monkeypatch.undo()
    pointer = publish(variant(5), directory, keep=1)
    assert left_over(directory) == []


def test_a_disk_that_cannot_force_a_directory_is_no_failure(
    variant: Variant, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert publish(variant(1), directory, keep=1) == latest(directory)


def test_a_rollback_to_what_is_not_there_or_not_whole_is_refused(variant: Variant, store: Store) -> None:
    with pytest.raises(StoreError, match="holds no version older"):
        rollback(store)
    first, second, third = (publish(variant(number), store, keep=10) for number in (1, 2, 3))
    before = read(store, "LATEST.json")
    for version in ("000009-0123456789ab", "../versions", "", second.version + "/"):
        with pytest.raises(StoreError, match=r"no version .* to roll back to"):
            rollback(store, version)
    with pytest.raises(StoreError, match="is LATEST already"):
        rollback(store, third.version)
    write(store, f"versions/{first.version}/{EVENT_WEIGHTS}", b"other")
    with pytest.raises(StoreError, match="not the files that its manifest describes: event_emb"):
        rollback(store, first.version)
    unlink(store, f"versions/{first.version}/{EVENT_WEIGHTS}")
    with pytest.raises(StoreError, match="not a whole adapter"):
        rollback(store, first.version)
    write(store, f"versions/{second.version}/{MANIFEST}", (variant(9) / MANIFEST).read_bytes())
    with pytest.raises(StoreError, match="another manifest than the one"):
        rollback(store)
    assert read(store, "LATEST.json") == before


def test_only_the_newest_versions_are_kept(variant: Variant, store: Store) -> None:
    versions = [publish(variant(number), store, keep=2).version for number in range(4)]
    assert published(store) == versions[-2:]
    assert not left_over(store)


@pytest.mark.skipif(sys.platform == "win32", reason="links are POSIX")
def test_retention_removes_a_link_or_a_file_in_a_version_s_place_and_nothing_behind_it(
    variant: Variant, directory: Path
) -> None:
    versions = [publish(variant(number), directory, keep=9).version for number in range(3)]
    for version in versions[:2]:
        shutil.rmtree(directory / "versions" / version)
    (directory / "versions" / versions[0]).symlink_to(variant(0), target_is_directory=True)
    (directory / "versions" / versions[1]).write_text("")
    newest = publish(variant(4), directory, keep=1).version
    assert published(directory) == [versions[2], newest]
    assert not left_over(directory)
    assert {path.name for path in variant(0).iterdir()} == {*FILES, MANIFEST}


def test_the_version_that_served_until_now_is_kept_also_after_a_rollback(
    variant: Variant, store: Store
) -> None:
    versions = [publish(variant(number), store, keep=5).version for number in range(5)]
    rollback(store, versions[0])
    newest = publish(variant(9), store, keep=1).version
    assert published(store) == [versions[0], newest]
    assert previous(store) == versions[0]


def test_publishers_at_once_never_share_a_generation(variant: Variant, store: Store) -> None:
    adapters = [variant(number) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda adapter: publish(adapter, store, keep=99), adapters))
    generations = sorted(pointer.generation for pointer in results)
    if isinstance(store, Path):
        assert generations == list(range(1, 17))
    assert len(set(generations)) == 16  # in a bucket, who is overtaken takes another one
    assert len({pointer.version for pointer in results}) == 16
    assert latest(store) == max(results, key=lambda pointer: pointer.generation)


def test_half_an_adapter_is_not_published(variant: Variant, store: Store) -> None:
    (variant(1) / EVENT_WEIGHTS).unlink()
    with pytest.raises(StoreError, match=f"^{re.escape(str(variant(1)))} is not a whole adapter"):
        publish(variant(1), store, keep=9)
    content = bytearray((variant(2) / EVENT_WEIGHTS).read_bytes())
    content[-1] ^= 1
    (variant(2) / EVENT_WEIGHTS).write_bytes(content)
    with pytest.raises(StoreError, match="not the files that its manifest describes: event_emb"):
        publish(variant(2), store, keep=9)
    assert latest(store) is None


def test_a_lost_pointer_costs_no_version_and_no_number(variant: Variant, store: Store) -> None:
    first = publish(variant(1), store, keep=10)
    unlink(store, "LATEST.json")
    assert publish(variant(2), store, keep=10).generation == 2
    assert published(store)[0] == first.version


def test_a_store_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "adapters"
    file.touch()
    with pytest.raises(StoreError, match=r"cannot read .*LATEST\.json: Not a directory"):
        latest_version(file)


def test_nothing_published_is_no_version_and_a_broken_pointer_is_refused(tmp_path: Path) -> None:
    assert latest_version(tmp_path) is None
    assert published(tmp_path) == []
    (tmp_path / "LATEST.json").write_text('{"generation": 1, "version": "../../etc", "manifest_sha256": "x"}')
    with pytest.raises(StoreError, match="not a valid pointer"):
        latest_version(tmp_path)


def test_a_store_that_cannot_be_written_is_one_clear_error(variant: Variant, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot publish in"):
        publish(variant(1), tmp_path / "file" / "adapters", keep=1)


STEPS = ("open", "os.mkdir", "os.rename", "os.remove")


def publish_in_a_child_that_dies(adapter: Path, store: Path, step: int) -> int:
    """The exit code of a child that kills itself before its `step`-th operation inside the store."""
    child = os.fork()
    if child == 0:
        done = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal done
            if event in STEPS and str(arguments[0]).startswith(str(store)):
                done += 1
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            publish(adapter, store, keep=1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are POSIX")
def test_a_kill_before_any_step_leaves_the_old_or_the_new_version_and_the_next_call_ends_the_work(
    variant: Variant, directory: Path, tmp_path: Path
) -> None:
    first = publish(variant(1), directory, keep=1)
    old = publish(variant(2), directory, keep=1)
    shutil.copytree(directory, tmp_path / "before")
    seen = []
    for step in range(1, 100):
        shutil.rmtree(directory)
        shutil.copytree(tmp_path / "before", directory)
        code = publish_in_a_child_that_dies(variant(3), directory, step)
        after = latest(directory)
        assert after is not None
        seen.append(after.version)
        if after != old:
            assert read_whole(directory, after.version) == variant(3)
        again = publish(variant(3), directory, keep=1)  # as a resumed run does
        assert (again.generation, latest(directory)) == (3, again)
        assert published(directory)[-2:] == [old.version, again.version]
        assert set(published(directory)) <= {first.version, old.version, again.version}
        assert not left_over(directory)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    new = again.version
    switch = seen.index(new)
    assert seen == [old.version] * switch + [new] * (len(seen) - switch)
    assert switch > 8  # five files and a pointer written before it
    assert len(seen) - switch > 1  # old versions go after it


def read_whole(store: Path, version: str) -> Path:
    """The variant that a version is a copy of."""
    directory = store / "versions" / version
    number = json.loads((directory / MANIFEST).read_text())["metrics"]["number"]
    variant = store.parent / "variants" / str(number)
    for name in (*FILES, MANIFEST):
        assert (directory / name).read_bytes() == (variant / name).read_bytes()
    return variant
