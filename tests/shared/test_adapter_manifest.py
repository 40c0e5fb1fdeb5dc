"""Records that say what is impossible are refused by name, wherever they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kronos_shared.adapter_manifest import (
    CANARY_TOLERANCE,
    LARGEST_POINTER,
    MANIFEST,
    AdapterManifest,
    Latest,
    is_version,
    version_name,
    version_number,
)

POINTER = {"generation": 3, "version": "000001-0123456789ab", "manifest_sha256": "0123456789ab" + "0" * 52}


def test_a_manifest_and_a_pointer_come_back_as_they_were_written(adapter_of: Callable[[int], Path]) -> None:
    content = (adapter_of(0) / MANIFEST).read_bytes()
    assert AdapterManifest.from_bytes(content).to_bytes() == content
    pointer = Latest(**POINTER)  # type: ignore[arg-type]
    assert Latest.from_bytes(pointer.to_bytes()) == pointer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "000001-ffffffffffff"}, "version and manifest_sha256 disagree"),
        ({"version": "../../outside"}, "version: String should match"),
        ({"version": "000001-0123456789ab\n"}, "version: String should match"),
        ({"version": "٠٠٠٠٠١-0123456789ab"}, "version: String should match"),
        ({"generation": 0}, "generation: Input should be greater"),
        ({"generation": "3"}, "generation: Input should be a valid integer"),
        ({"generation": 10**30}, "generation"),
        ({"more": 1}, "more: Extra inputs"),
        ({"manifest_sha256": "x" * LARGEST_POINTER}, "longer than"),
    ],
)
def test_a_pointer_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Latest.from_bytes(json.dumps(POINTER | change).encode())


@pytest.mark.parametrize("tolerance", [CANARY_TOLERANCE * 1.01, 0.0, -1.0, 1e9])
def test_a_manifest_cannot_grant_itself_a_loose_canary(
    adapter_of: Callable[[int], Path], tolerance: float
) -> None:
    manifest = json.loads((adapter_of(0) / MANIFEST).read_bytes())
    manifest["canary"]["tolerance"] = tolerance
    with pytest.raises(ValueError, match=r"canary\.tolerance: Input should be"):
        AdapterManifest.from_bytes(json.dumps(manifest).encode())


def test_a_version_is_named_after_its_number_and_its_manifest() -> None:
    name = version_name(12, b"{}")
    assert name == "000012-44136fa355b3"
    assert (is_version(name), version_number(name)) == (True, 12)
    for other in ("", "12", ".000012-44136fa355b3", name + "\n", name + "/..", name.upper(), "x" + name):
        assert not is_version(other)
