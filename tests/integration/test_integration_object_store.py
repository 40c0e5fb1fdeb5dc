"""Adapters in a bucket of a real S3-compatible server: races, faults, and the commands that name a store."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from object_store import SECRET, ObjectStore

from kronos_service.finetune.__main__ import main as finetune
from kronos_service.inference.__main__ import main as inference
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.adapter_store import (
    StoreError,
    latest,
    latest_version,
    publish,
    published,
    published_as,
    rollback,
)
from kronos_shared.object_store import append_line, read_lines

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

PUBLISHERS, ROUNDS = 3, 5 * int(os.environ.get("SOAK", "1"))
RACER = """
import sys
from pathlib import Path
from kronos_shared.adapter_store import publish

adapter, store, name, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
manifest = (adapter / "manifest.json").read_bytes()
sys.stdin.readline()
for number in range(rounds):
    changed = manifest.replace(b'"metrics": {}', b'"metrics": {"%s": %d}' % (name.encode(), number))
    assert changed != manifest
    (adapter / "manifest.json").write_bytes(changed)
    pointer = publish(adapter, store, keep=99)
    print(pointer.generation, pointer.version, flush=True)
"""


@pytest.fixture
def store(object_store: ObjectStore) -> StoreUrl:
    return object_store.new_store()


def test_publishers_that_race_never_share_a_generation_and_lose_nothing(
    store: StoreUrl, adapter_of: Callable[[int], Path], tmp_path: Path
) -> None:
    processes = []
    for number in range(PUBLISHERS):
        own = tmp_path / str(number)
        own.mkdir()
        for file in adapter_of(0).iterdir():
            (own / file.name).write_bytes(file.read_bytes())
        words = [sys.executable, "-c", RACER, str(own), store, f"p{number}", str(ROUNDS)]
        processes.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [line for process in processes for line in process.communicate(timeout=3000)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * PUBLISHERS
    told = {int(line.split()[0]): line.split()[1] for line in lines}
    assert len(lines) == len(told) == PUBLISHERS * ROUNDS
    assert sorted(published(store)) == sorted(told.values())
    assert Counter(name[:6] for name in told.values()).most_common(1)[0][1] == 1
    pointer = latest(store)
    assert pointer is not None
    assert (pointer.generation, pointer.version) == (max(told), told[max(told)])


@pytest.mark.parametrize("status", ["409 Conflict", "412 Precondition Failed", "503 Slow Down", "lost"])
@pytest.mark.parametrize("part", ["generations", "versions", "LATEST.json"])
def test_a_fault_of_the_server_costs_a_retry_and_no_version(
    object_store: ObjectStore, variant: Callable[[int], Path], part: str, status: str
) -> None:
    if part == "versions" and status in ("409 Conflict", "412 Precondition Failed"):
        pytest.skip("a version's files are written without a condition")
    store = object_store.new_store()
    first = publish(variant(1), store, keep=9)
    object_store.fail({"method": "PUT", "part": part, "status": status, "times": 2})
    second = publish(variant(2), store, keep=9)
    assert latest(store) == second
    assert published(store) == [first.version, second.version]
    object_store.fail({"method": "PUT", "part": part, "status": status, "times": 1})
    assert rollback(store).version == first.version
    assert published_as(variant(2), store) == second.version
    object_store.fail({"method": "PUT", "part": "list.jsonl", "status": status, "times": 2})
    append_line(store, "list.jsonl", b"one\n")
    append_line(store, "list.jsonl", b"two\n")
    assert read_lines(store, "list.jsonl") == b"one\ntwo\n"


def test_what_cannot_be_used_is_one_line_with_what_to_do(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.fail()
    for ask in (latest, published, latest_version):
        with pytest.raises(StoreError, match="there is no bucket nobody-s; create it, or name another"):
            ask(StoreUrl("s3://nobody-s/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(
        StoreError, match=r"http://127\.0\.0\.1:1 does not answer; check the network"
    ) as raised:
        latest(StoreUrl("s3://desk/x"))
    assert SECRET not in str(raised.value)


def test_every_command_that_names_a_store_takes_a_bucket(
    object_store: ObjectStore, store: StoreUrl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    object_store.fail()
    sample = latest_version("kronos-service/model/sample_adapters")
    assert sample is not None
    version = publish(sample, store, keep=3).version
    assert finetune(["doctor", "--adapter-store", store]) in (0, 1)
    assert f"{store}/ serves {version}, generation 1" in " ".join(capsys.readouterr().out.split())
    assert inference(["forecast", "--adapter", store, "--symbol", "SPY", "--paths", "20"]) == 0
    assert f"{store}/versions/{version}" in "".join(capsys.readouterr().out.split())
    assert finetune(["merge", store, "--out", str(tmp_path / "merged")]) == 0
    out = str(tmp_path / "evaluation")
    asked = ["evaluate", "--adapter", store, "--out", out, "--split", "test", "--open-test-split"]
    assert finetune([*asked, "--origins", "2", "--paths", "20"]) == 0
    assert version.encode() in read_lines(store, "test_opened.jsonl")
    said = "".join(capsys.readouterr())
    assert SECRET not in said
    assert (tmp_path / "merged" / "base.json").read_text().count(version) == 1
