"""Reading an adapter's bytes: no more than the caps, no link, no pipe, and nothing that was not promised."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kronos_service.model.adapter.files import (
    LARGEST_HEADER,
    AdapterError,
    AdapterNotWholeError,
    header_problems,
    read_capped,
    read_files,
)
from kronos_shared.adapter_manifest import (
    EVENT_WEIGHTS,
    FILES,
    LARGEST,
    LARGEST_TOTAL,
    MANIFEST,
    TensorRecord,
)


@pytest.fixture
def copy(adapter_of: Callable[[int], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_of(0), tmp_path / "copy"))


def test_what_is_read_is_what_is_there(copy: Path) -> None:
    digest = hashlib.sha256((copy / MANIFEST).read_bytes()).hexdigest()
    files = read_files(copy, digest=digest)
    assert (files.digest, files.directory) == (digest, copy)
    assert files.content == {name: (copy / name).read_bytes() for name in (*FILES, MANIFEST)}
    with pytest.raises(AdapterNotWholeError, match=rf"has sha256 {digest[:12]}, expected 000000000000"):
        read_files(copy, digest="0" * 64)


def test_a_file_is_read_up_to_its_cap_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_capped(tmp_path, "x", 5) == b"12345"
    with pytest.raises(AdapterNotWholeError, match="x is longer than 4 bytes"):
        read_capped(tmp_path, "x", 4)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(AdapterNotWholeError, match="longer than 4096"):
        read_capped(tmp_path, "huge", 4096)


def test_what_the_files_may_have_in_all_is_capped(copy: Path) -> None:
    assert sum(LARGEST[name] for name in FILES) > LARGEST_TOTAL  # so the sum needs a cap of its own
    text = (copy / MANIFEST).read_text()
    for name in FILES[1:3]:
        size = (copy / name).stat().st_size
        text = text.replace(f'"size": {size}', f'"size": {LARGEST_TOTAL // 2 + 1}')
    (copy / MANIFEST).write_text(text)
    with pytest.raises(AdapterError, match=f"{LARGEST_TOTAL} bytes at most in all"):
        read_files(copy)


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are POSIX")
def test_no_link_is_followed_and_no_pipe_waited_for(copy: Path, tmp_path: Path) -> None:
    (copy / EVENT_WEIGHTS).rename(tmp_path / "same")
    (copy / EVENT_WEIGHTS).symlink_to(tmp_path / "same")
    with pytest.raises(AdapterNotWholeError, match=r"event_emb\.safetensors is a link"):
        read_files(copy)
    (copy / EVENT_WEIGHTS).unlink()
    os.mkfifo(copy / EVENT_WEIGHTS)
    refused = []

    def read() -> None:
        with pytest.raises(AdapterNotWholeError, match="is not a regular file"):
            read_files(copy)
        refused.append(True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert refused


def test_a_header_is_judged_before_anything_is_allocated() -> None:
    records = {"a": TensorRecord(shape=(2,), dtype="F32")}
    text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    good = len(text).to_bytes(8, "little") + text + bytes(8)
    assert header_problems(good, records) == []
    assert header_problems(good, {"b": records["a"]}) == ["holds other tensors than the manifest lists"]
    assert header_problems(good, {"a": TensorRecord(shape=(3,), dtype="F32")})
    assert header_problems(good, {"a": TensorRecord(shape=(2,), dtype="F16")})
    for length in (len(good) - 7, LARGEST_HEADER + 1, 1 << 63):
        bomb = length.to_bytes(8, "little") + good[8:]
        assert header_problems(bomb, records)[0].startswith("not a safetensors file: a header of")
    padded = (LARGEST_HEADER + 1).to_bytes(8, "little") + text.ljust(LARGEST_HEADER + 1) + bytes(8)
    assert header_problems(padded, records)
    assert header_problems(b"", records)


def test_a_header_may_have_256_kib_and_no_more() -> None:
    records = {"a": TensorRecord(shape=(2,), dtype="F32")}
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    for length, fits in ((256 << 10, True), ((256 << 10) + 1, False)):
        content = length.to_bytes(8, "little") + header.ljust(length) + bytes(8)
        assert (header_problems(content, records) == []) is fits
