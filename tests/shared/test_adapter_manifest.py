"""Records that say what is impossible are refused by name, wherever they are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronos_shared.adapter_manifest import (
    CANARY_TOLERANCE,
    DAY_KINDS,
    LARGEST_POINTER,
    MANIFEST,
    AdapterManifest,
    Latest,
    RecalibrationRecord,
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


TABLE: dict[str, Any] = {
    "level": 0.8,
    "factors": {"tier1": [1.5, 1.25], "other_event": [1.25, 1.0], "quiet": [0.75, 0.875]},
    "forecasts": {kind: [40, 41] for kind in DAY_KINDS},
    "dates": {kind: [20, 21] for kind in DAY_KINDS},
    "first": "2025-01-02",
    "last": "2025-06-30",
    "paths": 64,
}


def quiet(*factors: object) -> dict[str, Any]:
    return {"factors": TABLE["factors"] | {"quiet": factors}}


def with_table(adapter: Path, table: object) -> bytes:
    manifest = json.loads((adapter / MANIFEST).read_bytes())
    return json.dumps(manifest | {"recalibration": table}).encode()


def test_a_recalibration_is_written_only_where_there_is_one(adapter_of: Callable[[int], Path]) -> None:
    """A service of an earlier version knows no such key and goes on reading the others."""
    content = (adapter_of(0) / MANIFEST).read_bytes()
    assert b"recalibration" not in content
    manifest = AdapterManifest.from_bytes(content)
    assert manifest.recalibration is None
    recalibrated = AdapterManifest.from_bytes(with_table(adapter_of(0), TABLE))
    assert recalibrated.recalibration == RecalibrationRecord.model_validate(TABLE)
    assert AdapterManifest.from_bytes(recalibrated.to_bytes()) == recalibrated
    assert recalibrated.model_copy(update={"recalibration": None}).to_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            quiet(0.0, 1.0),
            r"factors\.quiet\.0: Input should be greater",
        ),
        (
            quiet(-1.0, 1.0),
            r"factors\.quiet\.0: Input should be greater",
        ),
        (quiet(1.0, 1e9), r"factors\.quiet\.1: Input should be less"),
        (
            quiet(1.0, "2"),
            r"factors\.quiet\.1: Input should be a valid",
        ),
        (
            quiet(1.0, None),
            r"factors\.quiet\.1: Input should be a valid",
        ),
        (quiet(1.0), "expected the same number of steps"),
        ({"factors": {kind: [] for kind in DAY_KINDS}}, r"factors\.tier1: Tuple should have at least 1"),
        (
            {"factors": {kind: [1.0] * 5000 for kind in DAY_KINDS}},
            r"factors\.tier1: Tuple should have at most",
        ),
        ({"factors": {"quiet": [1.0, 1.0]}}, "expected the kinds of day tier1, other_event, quiet"),
        ({"factors": TABLE["factors"] | {"tier2": [1.0, 1.0]}}, "factors"),
        ({"dates": TABLE["dates"] | {"quiet": [20, -1]}}, r"dates\.quiet\.1: Input should be greater"),
        ({"level": 1.0}, "level: Input should be less"),
        ({"paths": 1}, "paths: Input should be greater"),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_a_recalibration_that_cannot_be_is_refused(
    adapter_of: Callable[[int], Path], change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^recalibration.*{message}"):
        AdapterManifest.from_bytes(with_table(adapter_of(0), TABLE | change))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_factor_that_is_no_number_is_refused(adapter_of: Callable[[int], Path], number: str) -> None:
    content = with_table(adapter_of(0), TABLE)
    assert content.count(b"0.875") == 1
    with pytest.raises(ValueError, match=f"^{number} is (not JSON|out of range)"):
        AdapterManifest.from_bytes(content.replace(b"0.875", number.encode()))


def test_a_version_is_named_after_its_number_and_its_manifest() -> None:
    name = version_name(12, b"{}")
    assert name == "000012-44136fa355b3"
    assert (is_version(name), version_number(name)) == (True, 12)
    for other in ("", "12", ".000012-44136fa355b3", name + "\n", name + "/..", name.upper(), "x" + name):
        assert not is_version(other)
