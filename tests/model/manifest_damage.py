"""Ways to spoil an adapter's manifest and configuration, by seed."""

import json
import random
from collections.abc import Callable
from typing import Any

from kronos_shared.adapter_manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FILES, LARGEST, MANIFEST

Files = dict[str, bytes]
Rng = random.Random

FIELDS: dict[str, tuple[Any, ...]] = {
    "schema_version": (0, 2, "1", None),
    "created_at": (7, None, []),
    "base.content_sha256": ("0" * 64, "f" * 63, "Z" * 64, None),
    "tokenizer.content_sha256": ("0" * 64, "", 5),
    "channels.sha256": ("0" * 64, "x", None),
    "channels.version": (0, 2, 10**30, "1"),
    "lora.rank": (0, -1, 3, 5, 10**9, 10**30, "4", 4.5),
    "lora.alpha": (0, 4, 16, 10**30, -8),
    "lora.dropout": (1.0, -0.1, 0.2, "0.05"),
    "lora.target_modules": (["w1"], ["v_proj", "q_proj"], ["q_proj"], [], ["qproj"], "all-linear", None),
    "lora.use_rslora": (True, "no", None),
    "lora.use_dora": (True, 1, None),
    "event_embedding.taps": ([], ["input"], ["output"], ["input", "output", "input"], ["../x"], "both"),
    "event_embedding.width": (0, 128, 257, 10**9, 10**30),
    "normalization.clip": (4.0, 0.0, -5.0, "5"),
    "normalization.epsilon": (1e-3, 1e-5, 0.0),
    "normalization.relative": (False, "yes", 1, None),
    "normalization.context": (73, 10**30, 0),
    "canary.seed": (1, -1, 10**30),
    "canary.length": (31, 0, 73, 10**30),
    "canary.tolerance": (0.0, -1.0, 2e-3, 1e9, "0.001"),
    "canary.s1_logits": ([], [0.0], [0.0] * 256, "x"),
    "canary.s2_logits": ([], [0.0] * 255, [0.0] * 256),
    "files": ({}, [], None, {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}),
    "tensors": ({}, [], {ADAPTER_WEIGHTS: {}}),
    "data.splits": ([], {"val": ["2025-01-01"]}, None),
    "conditioning_gain": ("known", 5, []),
    "metrics": ([], None, "x"),
    "recalibration": ({}, [], 1.0, {"quiet": [1.0]}, {"level": 0.8, "factors": {"quiet": [0.0]}}),
}
"""Field -> values that make a manifest wrong for the adapters of these tests (rank 4, alpha 8, dropout 0.05,
both taps of width 256, clip 5, epsilon 1e-7 of the mean, base of 72 bars, canary of seed 0, 256 logits over
32 bars)."""


def wrong_field(manifest: dict[str, Any], rng: Rng) -> None:
    path = rng.choice(sorted(FIELDS))
    *parents, last = path.split(".")
    record = manifest
    for parent in parents:
        record = record[parent]
    record[last] = rng.choice(FIELDS[path])


def missing_field(manifest: dict[str, Any], rng: Rng) -> None:
    del manifest[rng.choice(sorted(manifest.keys() - {"schema_version"}))]


def extra_field(manifest: dict[str, Any], rng: Rng) -> None:
    record = rng.choice((manifest, manifest["lora"], manifest["canary"], manifest["files"], manifest["base"]))
    record[f"extra{rng.randrange(9)}"] = rng.choice((1, None, "../../x", {}))


def file_outside(manifest: dict[str, Any], rng: Rng) -> None:
    name = rng.choice(FILES)
    outside = rng.choice((f"../{name}", f"/{name}", f"..\\{name}", f"./{name}", f"{name}/../{name}"))
    manifest["files"][outside] = manifest["files"].pop(name)


def file_too_large(manifest: dict[str, Any], rng: Rng) -> None:
    name = rng.choice(FILES)
    manifest["files"][name]["size"] = rng.choice((LARGEST[name] + 1, 1 << 40, 10**30, -1))


def spoil_manifest(change: Callable[[dict[str, Any], Rng], None], files: Files, rng: Rng) -> None:
    manifest = json.loads(files[MANIFEST])
    change(manifest, rng)
    files[MANIFEST] = json.dumps(manifest).encode()


def strange_json(files: Files, rng: Rng) -> None:
    metrics = b'"metrics": {}'
    assert metrics in files[MANIFEST]
    instead = rng.choice(
        (
            b'"metrics": {}, "schema_version": 1',
            b'"metrics": {"x": NaN}',
            b'"metrics": {"x": 1e999}',
            b'"metrics": {"x": ' + b"9" * 5000 + b"}",
            b'"metrics": ' + b"[" * 100_000,
            b'"metrics": {"x": "\xff"}',
            b'"metrics": {"x": "' + b"x" * LARGEST[MANIFEST] + b'"}',
        )
    )
    files[MANIFEST] = files[MANIFEST].replace(metrics, instead)


def other_config(files: Files, rng: Rng) -> None:
    config = json.loads(files[ADAPTER_CONFIG])
    config.update(
        rng.choice(
            (
                {"modules_to_save": ["head"]},
                {"auto_mapping": {"parent_library": "os"}},
                {"use_dora": True},
                {"rank_pattern": {"q_proj": 64}},
                {"base_model_name_or_path": "../../secrets"},
                {"target_modules": ".*"},
                {"bias": "all"},
                {"peft_type": "IA3"},
                {"r": 5},
                {"r": True},
                {"lora_alpha": "8"},
                {"inference_mode": False},
                {"lora_dropout": 0.5},
            )
        )
    )
    if rng.random() < 0.2:
        del config[rng.choice(sorted(config))]
        config["bias"] = "none"
        config["use_rslora"] = True
    files[ADAPTER_CONFIG] = json.dumps(config).encode()


def strange_config(files: Files, rng: Rng) -> None:
    good = files[ADAPTER_CONFIG].rstrip()
    files[ADAPTER_CONFIG] = rng.choice(
        (b"", b"[]", b"null", b"{", b"\xff", b"[" * 60_000, good[:-1] + b', "r": 4}', good + b"{}")
    )
