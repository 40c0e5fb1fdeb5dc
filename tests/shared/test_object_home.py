"""Adapters in a bucket: publishers that are killed or overtaken, versions that go, what users are told."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from memory_bucket import buckets_in_memory, keys, read, unlink, write

from kronos_shared.adapter_cache import KEPT, origin_of
from kronos_shared.adapter_home import pointer_to_new
from kronos_shared.adapter_location import StoreUrl, adapter_location, store_location
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, FILES, MANIFEST, Latest
from kronos_shared.adapter_store import (
    StoreError,
    home_of,
    latest,
    latest_version,
    publish,
    published,
    published_as,
    rollback,
)
from kronos_shared.errors import KronosError
from kronos_shared.object_home import ObjectHome
from kronos_shared.object_store import Bucket, append_line, read_lines

Variant = Callable[[int], Path]


@pytest.fixture
def store() -> Iterator[StoreUrl]:
    with buckets_in_memory():
        yield StoreUrl("s3://bucket/desk/adapters")


class Killed(BaseException):
    """What ends a process at once: no line of ours handles it."""


def kill_before(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let the `step`-th call of the store's API never happen, nor any after it."""
    real, done = Bucket._call, 0

    def count(self: Bucket, ask: Callable[[], Any]) -> Any:
        nonlocal done
        done += 1
        if done >= step:
            raise Killed
        return real(self, ask)

    patch.setattr(Bucket, "_call", count)


def test_a_kill_before_any_request_leaves_the_old_or_the_new_version_and_the_next_call_ends_the_work(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for step in range(1, 100):
        with buckets_in_memory():
            old = [publish(variant(number), store, keep=1) for number in (1, 2)][-1]
            with monkeypatch.context() as patch:
                kill_before(step, patch)
                try:
                    publish(variant(3), store, keep=1)
                    is_killed = False
                except Killed:
                    is_killed = True
            after = latest(store)
            assert after is not None
            seen.append(after.version.split("-")[1])
            if after == old:
                assert published_as(variant(3), store) is None
            again = publish(variant(3), store, keep=1)  # as a resumed run does
            assert latest(store) == again
            assert published_as(variant(3), store) == again.version
            assert published(store)[-2:] == [old.version, again.version]
            rollback(store)
            claimed = {one.removeprefix("generations/") for one in keys(store, "generations/")}
            assert len(claimed) >= again.generation
            for version in published(store):
                assert keys(store, f"versions/{version}/") == {
                    f"versions/{version}/{name}" for name in (*FILES, MANIFEST)
                }
            if not is_killed:
                break
    new = again.version.split("-")[1]
    switch = seen.index(new)
    assert seen == [old.version.split("-")[1]] * switch + [new] * (len(seen) - switch)
    assert switch > 8  # a claim, five files and a pointer
    assert len(seen) - switch > 3  # old versions go after it


def overtake(patch: pytest.MonkeyPatch, by: Callable[[], object]) -> None:
    """Let something happen right before a publisher replaces LATEST for the first time."""
    real = ObjectHome.point_to

    def late(self: ObjectHome, *arguments: Any) -> bool:
        patch.setattr(ObjectHome, "point_to", real)
        by()
        return real(self, *arguments)

    patch.setattr(ObjectHome, "point_to", late)


def test_an_overtaken_publisher_asks_again_and_takes_another_generation(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(variant(1), store, keep=9)
    asked: list[Latest | None] = []
    overtake(monkeypatch, lambda: publish(variant(2), store, keep=9))
    mine = publish(variant(3), store, keep=9, require=asked.append)
    assert [one and one.generation for one in asked] == [1, 3]
    assert (mine.generation, latest(store)) == (4, mine)
    assert [name[:6] for name in published(store)] == ["000001", "000003", "000004"]
    assert not keys(store, "versions/000002")
    assert first.version in published(store)


def test_a_publisher_that_is_overtaken_by_an_earlier_claim_takes_another_generation(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own version waits, whole and newer than LATEST; LATEST is no longer what it saw."""
    publish(variant(1), store, keep=9)
    home = home_of(store)
    content = {name: (variant(2) / name).read_bytes() for name in (*FILES, MANIFEST)}
    seen = home.seen()
    earlier = home.reserve(seen, partial(pointer_to_new, manifest=content[MANIFEST]))
    home.add(earlier.version, content)
    overtake(monkeypatch, lambda: home.point_to(earlier, seen))
    mine = publish(variant(3), store, keep=9)
    assert (earlier.generation, mine.generation) == (2, 4)
    assert published_as(variant(2), store) == earlier.version
    assert [name[:6] for name in published(store)] == ["000001", "000002", "000004"]
    assert not keys(store, "versions/000003")


def test_an_overtaken_publisher_that_is_refused_leaves_nothing(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(variant(1), store, keep=9)

    def require(before: object) -> None:
        if before != first:
            raise StoreError("it was compared with another one")

    overtake(monkeypatch, lambda: publish(variant(2), store, keep=9))
    with pytest.raises(StoreError, match="compared with another"):
        publish(variant(3), store, keep=9, require=require)
    assert len(published(store)) == 2
    assert published_as(variant(3), store) is None


def test_an_overtaken_publisher_that_is_killed_then_was_never_latest(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(variant(1), store, keep=9)

    def other_and_a_kill() -> None:
        publish(variant(2), store, keep=9)
        raise Killed

    overtake(monkeypatch, other_and_a_kill)
    with pytest.raises(Killed):
        publish(variant(3), store, keep=9)
    assert published_as(variant(3), store) is None
    assert [name[:6] for name in published(store)] == ["000001", "000003"]
    assert not keys(store, "versions/000002")  # whoever overtakes removes what is left
    assert publish(variant(3), store, keep=9).generation == 4


def test_an_answer_that_is_lost_publishes_once(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks again by itself, and is told that the object has changed: by its own first try."""
    real = Bucket._put

    def lost(self: Bucket, key: str, content: bytes, mode: Any) -> bool:
        done = real(self, key, content, mode)
        return done and mode is None

    monkeypatch.setattr(Bucket, "_put", lost)
    pointers = [publish(variant(number), store, keep=9) for number in (1, 2)]
    assert [one.generation for one in pointers] == [1, 2]
    assert latest(store) == pointers[-1]
    assert published(store) == [one.version for one in pointers]
    append_line(store, "list.jsonl", b"one\n")
    append_line(store, "list.jsonl", b"two\n")
    assert read_lines(store, "list.jsonl") == b"one\ntwo\n"


@pytest.mark.parametrize("when", ["before its claim", "after its claim"])
def test_a_rollback_and_a_publisher_that_removes_its_version_never_leave_latest_without_one(
    variant: Variant, store: StoreUrl, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    first = publish(variant(1), store, keep=9)
    publish(variant(2), store, keep=9)
    real = ObjectHome.reserve

    def reserve(self: ObjectHome, *arguments: Any) -> Any:
        monkeypatch.setattr(ObjectHome, "reserve", real)
        if when == "before its claim":
            self.retire([first.version])
            return real(self, *arguments)
        pointer = real(self, *arguments)
        self.retire([first.version])
        return pointer

    monkeypatch.setattr(ObjectHome, "reserve", reserve)
    if when == "before its claim":
        with pytest.raises(StoreError, match="is missing"):
            rollback(store, first.version)
        assert first.version not in published(store)
    else:
        assert latest(store) != rollback(store, first.version)
    pointer = latest(store)
    assert pointer is not None
    assert pointer.version in published(store)


def test_a_directory_s_files_copied_into_a_bucket_are_a_store(
    variant: Variant, store: StoreUrl, tmp_path: Path
) -> None:
    versions = [publish(variant(number), tmp_path / "adapters", keep=9).version for number in range(3)]
    for key in keys(tmp_path / "adapters") - {".lock"}:
        write(store, key, read(tmp_path / "adapters", key))
    assert published(store) == versions
    assert rollback(store).generation == 4
    assert publish(variant(4), store, keep=9).generation == 5
    assert published(store)[:3] == versions


def test_a_copy_is_fetched_once_and_again_when_it_is_damaged(variant: Variant, store: StoreUrl) -> None:
    publish(variant(1), store, keep=99)
    directory = latest_version(store)
    assert directory is not None
    assert origin_of(directory) == store
    unlink(store, f"versions/{directory.name}/{EVENT_WEIGHTS}")
    assert latest_version(store) == directory
    (directory / EVENT_WEIGHTS).write_bytes(b"")
    latest_version(store)  # fetched as it is: whoever reads it judges it
    assert not (directory / EVENT_WEIGHTS).exists()
    write(store, f"versions/{directory.name}/{EVENT_WEIGHTS}", (variant(1) / EVENT_WEIGHTS).read_bytes())
    assert latest_version(store) == directory
    assert (directory / EVENT_WEIGHTS).read_bytes() == (variant(1) / EVENT_WEIGHTS).read_bytes()
    for number in range(2, KEPT + 4):
        publish(variant(number), store, keep=99)
        newest = latest_version(store)
        assert newest is not None
        assert newest.is_dir()
    assert len(list(directory.parent.iterdir())) == KEPT


def test_what_a_bucket_holds_too_much_of_is_refused(variant: Variant, store: StoreUrl) -> None:
    pointer = publish(variant(1), store, keep=9)
    write(store, f"versions/{pointer.version}/adapter_model.bin", b"")
    with pytest.raises(StoreError, match=r"holds 'adapter_model.bin', which is no file of an adapter"):
        latest_version(store)
    write(store, "LATEST.json", b" " * 5000)
    with pytest.raises(StoreError, match=r"s3://bucket/desk/adapters/LATEST.json is longer than 4096 bytes"):
        latest(store)


def test_lines_that_are_added_at_once_are_all_there(store: StoreUrl) -> None:
    lines = [f"{number}\n".encode() for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: append_line(store, "list.jsonl", line), lines))
    assert sorted(read_lines(store, "list.jsonl").splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s4://bucket/x", r"expected a directory or a URL such as s3://bucket/prefix .* got s4://bucket/x"),
        ("s3://", "expected a directory or a URL"),
        ("s3://bucket/../other", "expected a directory or a URL"),
        ("s3://AKID:hidden@bucket/x", "put keys in the environment"),
        ("az://bucket/x?sig=hidden", "put keys in the environment"),
        ("hub:someone/adapter", "named with its commit"),
        ("hub:someone/adapter@main", "named with its commit"),
    ],
)
def test_a_place_that_cannot_be_is_refused_without_its_keys(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        adapter_location(text)
    assert "hidden" not in str(raised.value)


def test_places_are_told_apart() -> None:
    assert store_location("adapters/x") == Path("adapters/x")
    assert store_location("s3://bucket/a/") == StoreUrl("s3://bucket/a")
    name = adapter_location(f"hub:someone/adapter@{'a' * 40}")
    assert (name.repo, name.revision) == ("someone/adapter", "a" * 40)  # type: ignore[union-attr]


ANSWERS = {
    "no bucket": (
        "404 Not Found: <Error><Code>NoSuchBucket</Code>",
        "there is no bucket bucket; create it, or name another",
    ),
    "wrong key": (
        "status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code>",
        r"refuses these keys \(403 SignatureDoesNotMatch\); check AWS_ACCESS_KEY_ID",
    ),
    "no key": (
        "Error performing PUT http://169.254.169.254/latest/api/token",
        "the environment holds no keys; set AWS_ACCESS_KEY_ID",
    ),
    "unreachable": (
        "Error performing GET https://AKID:hidden@host/b/x?sig=hidden - HTTP error: error sending request",
        "https://host does not answer; check the network and AWS_ENDPOINT_URL",
    ),
    "overloaded": (
        "status code: 503 Slow Down: <Code>SlowDown</Code>",
        "the store answers 503 SlowDown; try again later",
    ),
}


@pytest.mark.parametrize(("text", "says"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_library_says_becomes_one_line_that_tells_what_to_do(
    store: StoreUrl, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://AKID:hidden@host/path?sig=hidden")

    def fails(*_: Any, **__: Any) -> None:
        raise obstore.exceptions.GenericError(f"{text} hidden\n\nDebug source: hidden")

    monkeypatch.setattr(obstore, "get", fails)
    with pytest.raises(StoreError, match=says) as raised:
        latest(store)
    assert str(raised.value).startswith("cannot use s3://bucket/desk/adapters: ")
    assert "hidden" not in str(raised.value)


def test_without_the_extra_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(KronosError, match=r"obstore is not installed: pip install 'kronos-events\[cloud\]'"):
        latest("s3://bucket/x")
