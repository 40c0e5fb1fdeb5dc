"""What serves: how far it reads back, and which inputs an adapter must have been trained on."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from kronos_service.inference.models.served_model import ServedModel, adapter_at, base_alone, build
from kronos_service.model.adapter.files import AdapterError, read_files
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import BaseChoice, Bundle
from kronos_shared.adapter_manifest import MANIFEST
from kronos_shared.normalization import CLIP, EPSILON, MIN_HISTORY, UPSTREAM_EPSILON

Built = Callable[..., ServedModel]


@pytest.fixture
def built(adapter_of: Callable[[int], Path], bundle: Bundle, tmp_path: Path) -> Built:
    """An adapter whose manifest says something else of its inputs or its canary."""

    def make(section: str = "normalization", **changes: Any) -> ServedModel:
        directory = shutil.copytree(adapter_of(0), tmp_path / "changed", dirs_exist_ok=True)
        manifest = json.loads((adapter_of(0) / MANIFEST).read_bytes())
        manifest[section] |= changes
        (directory / MANIFEST).write_text(json.dumps(manifest))
        return build(read_files(directory), bundle, version="v")

    return make


def test_it_reads_as_many_bars_as_the_adapter_was_trained_with_and_so_does_its_base(
    built: Built, bundle: Bundle
) -> None:
    assert base_alone(bundle).context == bundle.context == 72
    serving = built(context=68)
    assert (serving.context, serving.without_adapter.context) == (68, 68)
    assert serving.without_adapter.manifest is None
    assert serving.without_adapter.loaded_at == serving.loaded_at
    assert built(context=72).context == 72


def test_when_it_began_to_serve_is_in_utc(built: Built, bundle: Bundle) -> None:
    assert built().loaded_at.tzinfo == base_alone(bundle).loaded_at.tzinfo == UTC


def test_an_adapter_is_found_with_the_base_that_is_given_or_that_it_names(
    adapter_of: Callable[[int], Path], base_path: Path
) -> None:
    serving = adapter_at(adapter_of(0), base=BaseChoice(model=str(base_path)))
    assert (serving.version, serving.generation) == (adapter_of(0).name, None)
    assert serving.digest == read_files(adapter_of(0)).digest
    with pytest.raises(BaseModelError, match=f"{base_path.name}.* cannot be found by name"):
        adapter_at(adapter_of(0))
    assert adapter_at("sample").base.base.repo == "kronos-nano"


def test_it_needs_the_history_that_the_adapter_was_trained_with(built: Built, bundle: Bundle) -> None:
    assert base_alone(bundle).min_history == MIN_HISTORY
    assert built(min_history=MIN_HISTORY + 5).min_history == MIN_HISTORY + 5


def test_it_is_synthetic_where_its_data_is_marked_so_or_the_packaged_sample(
    built: Built, bundle: Bundle
) -> None:
    packaged = adapter_at("sample")
    assert packaged.manifest is not None
    assert packaged.is_synthetic
    assert packaged.without_adapter.is_synthetic
    assert built("data", sha256=packaged.manifest.data.sha256, synthetic=False).is_synthetic
    assert built("data", synthetic=True).is_synthetic
    assert not built("data", synthetic=False).is_synthetic
    assert not base_alone(bundle).is_synthetic


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clip": 4.0}, f"made for inputs with clip 4 and epsilon {EPSILON:g} of the mean, not"),
        ({"epsilon": 0.5}, f"made for inputs with clip {CLIP:g} and epsilon 0.5 of the mean, not"),
        ({"relative": False}, f"made for inputs with clip {CLIP:g} and epsilon {EPSILON:g}, not"),
        ({"epsilon": UPSTREAM_EPSILON}, f"clip {CLIP:g} and epsilon {UPSTREAM_EPSILON:g} of the mean, not"),
        ({"context": 73}, "made for windows of 73 bars (canary: 32), the base takes 72"),
        ({"clip": 4.0, "context": 73}, "of the mean; made for windows of 73 bars"),
    ],
)
def test_an_adapter_of_other_inputs_is_refused(built: Built, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(AdapterError) as raised:
        built(**changes)
    assert says in str(raised.value)


def test_so_is_one_whose_canary_is_longer_than_the_base_reads(built: Built) -> None:
    with pytest.raises(AdapterError, match=r"\(canary: 73\), the base takes 72"):
        built("canary", length=73)
