"""An adapter of a taxonomy of the user's: it carries the content, and fits its own channels only."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kronos_service.data.sample_worlds import OWN_TAXONOMY
from kronos_service.events.encoder import EventEncoder
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, read_taxonomy
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import load_adapter, read_adapter, taxonomy_named_by
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import MANIFEST

OWN = read_taxonomy(OWN_TAXONOMY)


@pytest.fixture
def own_bundle(bundle: Bundle) -> Bundle:
    return replace(bundle, event_encoder=EventEncoder(OWN))


def test_an_adapter_of_own_events_carries_them_and_loads_on_its_bundle(
    adapter_of: Callable[..., Path], own_bundle: Bundle
) -> None:
    adapter = read_adapter(adapter_of(1, taxonomy=OWN))
    assert adapter.manifest.channels.sha256 == OWN.sha256
    assert taxonomy_named_by(adapter.manifest).content() == OWN.content()
    loaded = load_adapter(adapter, own_bundle)
    assert loaded.merged.n_channels == len(OWN.channels) == 7
    assert adapter.event_emb["fc_in.weight"].shape == (256, 7)


def test_a_manifest_of_the_default_taxonomy_stays_as_it_was(adapter_of: Callable[..., Path]) -> None:
    directory = adapter_of(1)
    channels = json.loads((directory / MANIFEST).read_bytes())["channels"]
    assert channels == {"version": 1, "sha256": DEFAULT_TAXONOMY.sha256}
    assert taxonomy_named_by(read_adapter(directory).manifest) is DEFAULT_TAXONOMY


@pytest.mark.parametrize("own", [True, False], ids=["own adapter", "default adapter"])
def test_an_adapter_of_another_taxonomy_is_refused_with_both_hashes(
    adapter_of: Callable[..., Path], bundle: Bundle, own_bundle: Bundle, own: bool
) -> None:
    made_for, used = (OWN, DEFAULT_TAXONOMY) if own else (DEFAULT_TAXONOMY, OWN)
    adapter = read_adapter(adapter_of(1, taxonomy=made_for))
    with pytest.raises(AdapterError, match=f"{made_for.sha256[:12]}.*not version 1 .{used.sha256[:12]}"):
        load_adapter(adapter, bundle if own else own_bundle)


def test_a_taxonomy_that_is_not_what_its_hash_says_is_refused(
    adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    directory = tmp_path / "changed"
    shutil.copytree(adapter_of(1, taxonomy=OWN), directory)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    manifest["channels"]["taxonomy"]["currencies"] = {}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match=f"its manifest says {OWN.sha256[:12]}"):
        taxonomy_named_by(read_adapter(directory).manifest)
    manifest["channels"]["taxonomy"] = {"version": 1}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match="the adapter's taxonomy: currency: Field required"):
        taxonomy_named_by(read_adapter(directory).manifest)
