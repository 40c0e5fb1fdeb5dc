"""Records that say what is impossible are refused by name, wherever they are read."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronos_shared.adapter_manifest import (
    ADAPTER_WEIGHTS,
    CANARY_TOLERANCE,
    DAY_KINDS,
    FILES,
    LARGEST,
    LARGEST_POINTER,
    LARGEST_TOTAL,
    LATEST,
    MANIFEST,
    MODEL_CARD,
    VERSIONS,
    AdapterManifest,
    Canary,
    DataRecord,
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


def test_what_data_are_is_written_only_where_it_is_not_the_usual() -> None:
    usual = DataRecord(snapshot="s", sha256="0" * 64, has_manifest=True, splits={})
    assert set(usual.model_dump()) == {"snapshot", "sha256", "has_manifest", "splits", "audit"}
    other = usual.model_copy(update={"synthetic": True, "interval": "1h"}).model_dump()
    assert (other["synthetic"], other["interval"]) == (True, "1h")


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


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_record_holds_no_number_that_json_has_not(number: float) -> None:
    """It would be written as null, and refused by every reader."""
    with pytest.raises(ValueError, match="finite number"):
        Canary(seed=1, length=8, s1_logits=(0.5, number), s2_logits=(), tolerance=CANARY_TOLERANCE)


def test_a_version_is_named_after_its_number_and_its_manifest() -> None:
    name = version_name(12, b"{}")
    assert name == "000012-44136fa355b3"
    assert (is_version(name), version_number(name)) == (True, 12)
    for other in ("", "12", ".000012-44136fa355b3", name + "\n", name + "/..", name.upper(), "x" + name):
        assert not is_version(other)


AUDIT = {"verdict": "pass", "checked": {"rows": 5}, "findings": 0, "seed": 0}
DIGEST = "0123456789abcdef" * 4
NO_DIGESTS = ("", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST + "\n", "g" + DIGEST[1:], None)
FILE, TENSOR = ("files", MODEL_CARD), ("tensors", ADAPTER_WEIGHTS, "some")
TENSORS = {"tensors": {ADAPTER_WEIGHTS: {"some": {"shape": [2], "dtype": "F32"}}}}


@pytest.mark.parametrize(
    ("path", "allowed", "refused"),
    [
        ((*FILE, "size"), (0, 50_000_000), (-1, 50_000_001, 1.5, "1")),
        ((*FILE, "sha256"), (DIGEST,), NO_DIGESTS),
        ((*TENSOR, "shape"), ([], [0, 50_000_000], [1] * 8), ([1] * 9, [-1], [50_000_001], [1.5])),
        (("base", "content_sha256"), (DIGEST,), NO_DIGESTS),
        (("tokenizer", "content_sha256"), (DIGEST,), NO_DIGESTS),
        (("base", "revision"), (None, "main"), (1,)),
        (("lora", "rank"), (1, 1024), (0, 1025, 1.5)),
        (("lora", "alpha"), (1, 4096), (0, 4097)),
        (("lora", "dropout"), (0.0, 0.999), (-0.001, 1.0)),
        (("event_embedding", "taps"), (["input"], ["input", "output"]), ([], ["other"], ["input"] * 3)),
        (("event_embedding", "taps"), (["output"],), (["input\n"], ["xinput"], ["outputs"])),
        (("event_embedding", "width"), (1, 8192), (0, 8193)),
        (("normalization", "clip"), (1e-9,), (0.0,)),
        (("normalization", "epsilon"), (1e-9,), (0.0,)),
        (("normalization", "min_history"), (1,), (0,)),
        (("normalization", "context"), (2,), (1,)),
        (("data", "audit", "findings"), (0, 1), (-1,)),
        (("data", "audit", "verdict"), ("pass", "fail"), ("passed",)),
        (("recalibration", "level"), (1e-9, 0.999), (0.0, 1.0)),
        (("recalibration", "factors", "quiet"), ([0.05, 20.0],), ([0.0499, 1.0], [1.0, 20.01])),
        (("recalibration", "forecasts", "quiet"), ([0, 1],), ([-1, 1],)),
        (("recalibration", "dates", "quiet"), ([0, 1],), ([-1, 1],)),
        (("recalibration", "paths"), (2,), (1,)),
        (("canary", "seed"), (0, 2**63 - 1), (-1, 2**63)),
        (("canary", "length"), (1, 4096), (0, 4097)),
        (("canary", "tolerance"), (1e-9, 1e-3), (0.0, 1.001e-3)),
        (("schema_version",), (1,), (0, 2)),
    ],
)
def test_each_number_of_a_manifest_has_its_bounds(
    adapter_of: Callable[[int], Path],
    path: tuple[str, ...],
    allowed: tuple[object, ...],
    refused: tuple[object, ...],
) -> None:
    whole = json.loads((adapter_of(0) / MANIFEST).read_bytes()) | {"recalibration": TABLE} | TENSORS
    whole["data"]["audit"] = AUDIT

    def with_value(value: object) -> bytes:
        changed = copy.deepcopy(whole)
        at = changed
        for name in path[:-1]:
            at = at[name]
        assert path[-1] in at
        at[path[-1]] = value
        return json.dumps(changed).encode()

    for value in allowed:
        read = json.loads(AdapterManifest.from_bytes(with_value(value)).to_bytes())
        for name in path:
            read = read[name]
        assert read == value
    for value in refused:
        with pytest.raises(ValueError, match=re.escape(path[0])):
            AdapterManifest.from_bytes(with_value(value))


def test_the_most_steps_of_a_recalibration_are_4096(adapter_of: Callable[[int], Path]) -> None:
    def with_steps(steps: int) -> bytes:
        table = TABLE | {"factors": {kind: [1.0] * steps for kind in DAY_KINDS}}
        counts = {kind: [1] * steps for kind in DAY_KINDS}
        return with_table(adapter_of(0), table | {"forecasts": counts, "dates": counts})

    assert AdapterManifest.from_bytes(with_steps(4096)).recalibration
    with pytest.raises(ValueError, match=r"^recalibration\.factors"):
        AdapterManifest.from_bytes(with_steps(4097))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": 10**12}, "generation: Input should be less"),
        *(
            ({"manifest_sha256": digest}, "manifest_sha256: ")
            for digest in ("0123456789ab", "0123456789ab" + "0" * 53, "0123456789ab" + "F" * 52)
        ),
    ],
)
def test_a_pointer_just_beyond_its_bounds_is_refused(change: dict[str, object], message: str) -> None:
    assert Latest.from_bytes(json.dumps(POINTER | {"generation": 10**12 - 1}).encode())
    with pytest.raises(ValueError, match=message):
        Latest.from_bytes(json.dumps(POINTER | change).encode())


def test_a_document_may_be_as_long_as_its_cap_and_no_longer(adapter_of: Callable[[int], Path]) -> None:
    manifest, pointer = (adapter_of(0) / MANIFEST).read_bytes(), json.dumps(POINTER).encode()
    for kind, content, most in ((AdapterManifest, manifest, 1 << 20), (Latest, pointer, 4096)):
        assert kind.from_bytes(content.ljust(most))
        with pytest.raises(ValueError, match=f"longer than {most} bytes"):
            kind.from_bytes(content.ljust(most + 1))


def test_names_and_caps_of_the_format_are_those_that_stores_and_services_of_other_versions_know() -> None:
    assert (VERSIONS, LATEST, MANIFEST) == ("versions", "LATEST.json", "manifest.json")
    assert LARGEST == {
        "manifest.json": 1_048_576,
        "adapter_config.json": 65_536,
        "adapter_model.safetensors": 50_331_648,
        "event_emb.safetensors": 50_331_648,
        "README.md": 1_048_576,
    }
    assert set(FILES) == set(LARGEST) - {MANIFEST}
    assert (LARGEST_TOTAL, LARGEST_POINTER, CANARY_TOLERANCE) == (50_000_000, 4096, 1e-3)
