"""Bases: saved and loaded without loss, read offline from the hub cache, refused with all reasons at once."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import PREDICTOR, TOKENIZER, random_inputs, tiny_predictor, tiny_tokenizer

from kronos_service.events.encoder import EventEncoder
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.model.base_files import BaseModelError, Fingerprint
from kronos_service.model.factory import BaseChoice, hub_repositories, load_bundle, save_base
from kronos_service.model.presets import PRESETS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "my-base"
    save_base(directory, tiny_tokenizer(), tiny_predictor(), 64, "tiny", {"made_by": "a test"})
    return directory


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_saved_base_loads_back_bit_for_bit(base: Path) -> None:
    bundle = load_bundle(str(base))
    for loaded, original in ((bundle.tokenizer, tiny_tokenizer()), (bundle.model, tiny_predictor())):
        state = original.state_dict()
        assert loaded.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert (bundle.tokenizer.config, bundle.model.config) == (TOKENIZER, PREDICTOR)
    inputs = random_inputs(0, 1, 5)
    for a, b in zip(
        bundle.model(inputs.s1, inputs.s2, inputs.stamp, s1_targets=inputs.s1_targets),
        tiny_predictor()(inputs.s1, inputs.s2, inputs.stamp, s1_targets=inputs.s1_targets),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_bundle_is_frozen_and_complete(base: Path) -> None:
    bundle = load_bundle(str(base))
    assert bundle.context == 64
    assert isinstance(bundle.event_encoder, EventEncoder)
    for part in (bundle.tokenizer, bundle.model):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_a_fingerprint_is_the_hash_of_the_weights_and_names_no_path(base: Path) -> None:
    bundle = load_bundle(str(base))
    weights = base / "predictor" / "model.safetensors"
    assert bundle.base == Fingerprint("my-base", None, sha256(weights))
    assert bundle.tokenizer_print == Fingerprint(
        "my-base", None, sha256(base / "tokenizer" / "model.safetensors")
    )
    change_weights(base, lambda state: state["norm.weight"].add_(1))
    assert load_bundle(str(base)).base.content_sha256 != bundle.base.content_sha256


def test_saving_writes_the_layout_and_replaces_an_older_base(base: Path) -> None:
    save_base(base, tiny_tokenizer(1), tiny_predictor(1), 32, "tiny", {})
    files = sorted(str(p.relative_to(base).as_posix()) for p in base.rglob("*") if p.is_file())
    parts = [
        f"{part}/{name}"
        for part in ("predictor", "tokenizer")
        for name in ("config.json", "model.safetensors")
    ]
    assert files == ["base.json", *parts]
    assert json.loads((base / "base.json").read_text()) == {"context": 32, "preset": "tiny"}
    assert load_bundle(str(base)).context == 32


def test_a_model_with_events_is_not_a_base(tmp_path: Path) -> None:
    model = tiny_predictor()
    model.attach_event_embedding()
    with pytest.raises(ValueError, match="without an event embedding"):
        save_base(tmp_path, tiny_tokenizer(), model, 64, "tiny", {})


def test_half_precision_weights_are_loaded_as_fp32(base: Path) -> None:
    change_weights(base, lambda state: state.update({k: v.half() for k, v in state.items() if "norm" in k}))
    assert {p.dtype for p in load_bundle(str(base)).model.parameters()} == {torch.float32}


def test_another_tokenizer_can_be_named(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_base(other, tiny_tokenizer(5), tiny_predictor(5), 64, "tiny", {})
    for path in (other, other / "tokenizer"):
        bundle = load_bundle(str(base), tokenizer=str(path))
        assert bundle.tokenizer_print.content_sha256 == sha256(other / "tokenizer" / "model.safetensors")
        assert bundle.tokenizer_print.repo == path.name
        assert bundle.base.repo == "my-base"


def change_weights(base: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = base / "predictor" / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def change_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def break_tensors(base: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        state["norm.weight"][3] = float("nan")
        state["extra.weight"] = torch.zeros(1)
        state["head.proj_s1.bias"] = torch.zeros(5)
        state["head.proj_s2.bias"] = torch.zeros(16, dtype=torch.int64)
        del state["embedding.emb_s1.weight"]

    change_weights(base, change)


ALL_MISFITS = (
    "weights of my-base do not fit Kronos: head.proj_s1.bias has shape (5,), expected (16,); "
    "head.proj_s2.bias has dtype torch.int64, expected torch.float32; missing embedding.emb_s1.weight; "
    "norm.weight has values that are not finite; unexpected extra.weight"
)
REFUSALS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "every misfit at once": (break_tensors, ALL_MISFITS),
    "no base.json": (
        lambda b: (b / "base.json").unlink(),
        "cannot read base.json (No such file or directory)",
    ),
    "no predictor": (lambda b: shutil.rmtree(b / "predictor"), "cannot read config.json (No such file"),
    "no weights": (lambda b: (b / "tokenizer/model.safetensors").unlink(), "cannot read model.safetensors"),
    "broken JSON": (lambda b: (b / "base.json").write_text("{"), "base.json is not valid JSON (Expecting"),
    "JSON list": (lambda b: (b / "base.json").write_text("[]"), "must be a JSON object, got list"),
    "context text": (lambda b: change_json(b / "base.json", context="long"), "number of bars, got 'long'"),
    "settings": (
        lambda b: change_json(b / "predictor/config.json", d_model=None, n_heads="two", colour=1),
        "does not fit Kronos: missing d_model; unexpected colour; n_heads must be a number, got 'two'",
    ),
    "heads": (
        lambda b: change_json(b / "predictor/config.json", n_heads=3),
        "config.json of my-base is not usable: d_model must be a multiple of 2 x n_heads = 6, got 32",
    ),
    "float width": (lambda b: change_json(b / "predictor/config.json", d_model=32.5), "is not usable"),
    "truncated": (
        lambda b: (b / "predictor/model.safetensors").write_bytes(b"\x80" + bytes(50)),
        "weights of my-base are not a safetensors file",
    ),
    "other bits": (
        lambda b: save_base(b, tiny_tokenizer(), tiny_predictor(s1_bits=5), 64, "tiny", {}),
        "tokenizer my-base makes tokens of (4, 4) bits, but predictor my-base reads (5, 4)",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_base_that_does_not_fit_is_refused(base: Path, case: str) -> None:
    breakage, message = REFUSALS[case]
    breakage(base)
    with pytest.raises(BaseModelError) as error:
        load_bundle(str(base))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(base.parent) not in str(error.value)


@pytest.fixture
def offline_hub(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a part of `base` into an offline hub cache under the id of a repository."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(repo: str, part: str, commit: str = COMMIT) -> Path:
        snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
        shutil.copytree(base / part, snapshot)
        return snapshot

    return put


def test_hub_layout_is_read_from_the_local_cache(offline_hub: Callable[[str, str], Path]) -> None:
    predictor = offline_hub("NeoQuasar/Kronos-mini", "predictor")
    tokenizer = offline_hub("NeoQuasar/Kronos-Tokenizer-2k", "tokenizer")
    for name in ("mini", "NeoQuasar/Kronos-mini"):
        bundle = load_bundle(name, revision=COMMIT, tokenizer_revision=COMMIT)
        assert bundle.context == 2048
        assert bundle.base == Fingerprint(
            "NeoQuasar/Kronos-mini", COMMIT, sha256(predictor / "model.safetensors")
        )
        assert bundle.tokenizer_print == Fingerprint(
            "NeoQuasar/Kronos-Tokenizer-2k", COMMIT, sha256(tokenizer / "model.safetensors")
        )


def test_an_unknown_repository_of_a_known_shape_takes_its_context(
    base: Path, offline_hub: Callable[[str, str], Path]
) -> None:
    nano = PRESETS["nano"]
    shaped = tiny_tokenizer(**nano.tokenizer), tiny_predictor(**nano.predictor)
    save_base(base, *shaped, 64, "nano", {})
    offline_hub("someone/tuned", "predictor")
    bundle = load_bundle("someone/tuned", revision=COMMIT, tokenizer=str(base))
    assert bundle.context == nano.context


def test_weights_at_a_pinned_revision_must_have_the_pinned_hash(
    base: Path, offline_hub: Callable[..., Path]
) -> None:
    small = PRESETS["small"]
    offline_hub("NeoQuasar/Kronos-small", "predictor", small.hub_revision)
    with pytest.raises(BaseModelError, match=f"should have sha256 {small.hub_sha256}, got "):
        load_bundle("small", tokenizer=str(base))
    offline_hub("NeoQuasar/Kronos-small", "predictor", COMMIT)
    assert load_bundle("small", revision=COMMIT, tokenizer=str(base)).base.revision == COMMIT


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "huge",
            {},
            "expected nano, mini, small, base (nano is embedded), a directory, or a hub id",
        ),
        ("no/such/place", {}, "expected nano, mini, small, base"),
        ("runs/no-base", {}, "'runs/no-base' is no directory here"),
        ("someone/tuned", {"tokenizer": "someone/tokens"}, "no pinned revision of someone/tuned is known"),
        ("someone/tuned", {"tokenizer": "x/y", "revision": "main"}, "must be a commit (40 hex digits)"),
        ("mini", {}, "no pinned revision of NeoQuasar/Kronos-mini is known: name a commit"),
        (
            "base",
            {},
            f"config.json of NeoQuasar/Kronos-base at revision {PRESETS['base'].hub_revision} is not in",
        ),
        ("NeoQuasar/Kronos-base", {}, "connect once, or give a directory"),
    ],
)
def test_a_base_that_cannot_be_found_is_refused(
    offline_hub: object, name: str, options: dict[str, str], message: str
) -> None:
    assert offline_hub
    with pytest.raises(BaseModelError) as error:
        load_bundle(name, **options, taxonomy=DEFAULT_TAXONOMY)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mini_without_a_tokenizer_revision_is_refused(offline_hub: Callable[[str, str], Path]) -> None:
    offline_hub("NeoQuasar/Kronos-mini", "predictor")
    with pytest.raises(BaseModelError, match="no pinned revision of NeoQuasar/Kronos-Tokenizer-2k"):
        load_bundle("mini", revision=COMMIT)


def test_an_unknown_shape_without_a_context_is_refused(
    base: Path, offline_hub: Callable[[str, str], Path]
) -> None:
    offline_hub("someone/tuned", "predictor")
    with pytest.raises(BaseModelError, match="shape of no preset, so its context length is unknown"):
        load_bundle("someone/tuned", revision=COMMIT, tokenizer=str(base))


def test_a_directory_has_no_revision(base: Path) -> None:
    with pytest.raises(BaseModelError, match="a revision belongs to a hub id, but my-base is a directory"):
        load_bundle(str(base), revision=COMMIT)


@pytest.mark.usefixtures("offline_hub")
@pytest.mark.parametrize(
    ("choice", "repositories"),
    [
        ({"model": "nano"}, []),
        ({"model": "BASE"}, []),
        ({"model": "BASE", "tokenizer": "someone/words", "tokenizer_revision": COMMIT}, ["someone/words"]),
        ({"model": "small"}, ["NeoQuasar/Kronos-small", "NeoQuasar/Kronos-Tokenizer-base"]),
        ({"model": "kronos-base", "tokenizer": "BASE"}, ["NeoQuasar/Kronos-base"]),
        (
            {"model": "NeoQuasar/Kronos-mini", "revision": COMMIT, "tokenizer_revision": COMMIT},
            ["NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-Tokenizer-2k"],
        ),
        ({"model": "someone/tuned", "revision": COMMIT, "tokenizer": "BASE"}, ["someone/tuned"]),
        ({"model": "someone/tuned", "revision": COMMIT}, []),
        ({"model": "smal"}, []),
    ],
)
def test_what_a_base_takes_from_the_hub_is_known_before_it_is_loaded(
    choice: dict[str, str],
    repositories: list[str],
    base: Path,
) -> None:
    named = BaseChoice(**{key: str(base) if value == "BASE" else value for key, value in choice.items()})
    found = hub_repositories(named)
    assert list(found) == repositories
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in found.values())
    # loading in an empty cache stops at the first of them, or asks for none
    said = ""
    try:
        named.load("cpu")
    except BaseModelError as error:
        said = str(error)
    if repositories:
        assert f"of {repositories[0]} at revision {found[repositories[0]]} is not in the local cache" in said
    else:
        assert "cache" not in said


def test_a_base_without_a_known_commit_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(BaseModelError, match="no pinned revision of NeoQuasar/Kronos-mini"):
        hub_repositories(BaseChoice(model="mini"))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_one_line(device: str, base: Path) -> None:
    with pytest.raises(BaseModelError, match=f"cannot compute on device {device} .*: name cpu, or") as found:
        load_bundle(str(base), device=device)
    assert "\n" not in str(found.value)
