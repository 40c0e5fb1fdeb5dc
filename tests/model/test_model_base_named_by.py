"""Which base a manifest may choose: one that is known by name, and no path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import BaseChoice, base_named_by
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import MANIFEST, AdapterManifest, SourceRecord


def naming(manifest: AdapterManifest, base: str, tokenizer: str) -> AdapterManifest:
    sources = {
        part: SourceRecord(repo=repo, revision="a" * 40, content_sha256="0" * 64)
        for part, repo in (("base", base), ("tokenizer", tokenizer))
    }
    return manifest.model_copy(update=sources)


@pytest.fixture
def manifest(adapter_of: Callable[[int], Path]) -> AdapterManifest:
    return AdapterManifest.from_bytes((adapter_of(0) / MANIFEST).read_bytes())


def test_a_manifest_may_choose_the_packaged_base_or_a_released_one(manifest: AdapterManifest) -> None:
    assert base_named_by(naming(manifest, "kronos-nano", "kronos-nano")) == BaseChoice(model="kronos-nano")
    small = PRESETS["small"]
    assert small.hub_id is not None
    assert small.tokenizer_hub_id is not None
    assert base_named_by(naming(manifest, small.hub_id, small.tokenizer_hub_id)) == BaseChoice(
        model=small.hub_id,
        tokenizer=small.tokenizer_hub_id,
        revision="a" * 40,
        tokenizer_revision="a" * 40,
    )


def test_a_manifest_may_choose_nothing_else(
    manifest: AdapterManifest, tmp_path: Path, base_path: Path
) -> None:
    small = PRESETS["small"]
    for base, tokenizer in (
        (str(base_path), str(base_path)),
        ("../../tmp", "kronos-nano"),
        ("kronos-nano", str(tmp_path)),
        ("someone/else", str(small.tokenizer_hub_id)),
        (str(small.hub_id), "someone/else"),
    ):
        with pytest.raises(BaseModelError, match="cannot be found by name; configure the base"):
            base_named_by(naming(manifest, base, tokenizer))


def test_a_choice_is_loaded_as_it_was_made(base_path: Path) -> None:
    bundle = BaseChoice(model=str(base_path)).load("cpu")
    assert bundle.base.repo == base_path.name
    assert bundle.context == 72
