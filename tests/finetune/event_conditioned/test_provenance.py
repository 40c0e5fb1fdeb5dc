"""Whether targets are new to a base that this project did not train."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from kronos_service.finetune.event_conditioned.provenance import out_of_sample, seen_by
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import Bundle, load_bundle


def test_targets_before_june_2024_are_not_out_of_sample_for_the_released_bases() -> None:
    for base in ("NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-small", "NeoQuasar/Kronos-base"):
        assert out_of_sample(base, date(2024, 5, 31)).startswith("NOT out of sample")
        assert "new to it" in out_of_sample(base, date(2024, 6, 1))


def test_nothing_is_claimed_about_another_base() -> None:
    said = out_of_sample("mine", date(2020, 1, 1))
    assert "base.json" in said
    assert "out of sample" not in said


def seen(bundle: Bundle, repo: str, until: date | None) -> str | None:
    """What is said of targets of the year 2023 for a base of that name, pretrained on bars before `until`."""
    named = replace(bundle, base=replace(bundle.base, repo=repo), pretrained_until=until)
    return seen_by(named, date(2023, 1, 1), date(2023, 12, 31))


def test_a_base_whose_pretraining_reaches_into_the_targets_is_named(bundle: Bundle) -> None:
    assert seen(bundle, "mine", date(2023, 1, 1)) is None
    some = seen(bundle, "mine", date(2023, 7, 1))
    assert some is not None
    assert some.startswith("NOT out of sample: base mine was pretrained")
    assert "those before 2023-07-01" in some
    every = seen(bundle, "mine", date(2024, 1, 1))
    assert every is not None
    assert "all of them" in every
    released = seen(bundle, "NeoQuasar/Kronos-base", None)
    assert released is not None
    assert released.startswith("NOT out of sample")
    unknown = seen(bundle, "mine", None)
    assert unknown is not None
    assert "does not say until when" in unknown


def test_the_end_of_a_pretraining_is_read_from_the_base(base_path: Path, tmp_path: Path) -> None:
    assert load_bundle("kronos-nano").pretrained_until == date(2025, 1, 1)
    shutil.copytree(base_path, tmp_path / "base")
    about = json.loads((base_path / "base.json").read_bytes())
    (tmp_path / "base" / "base.json").write_text(json.dumps(about | {"settings": {"until": "someday"}}))
    with pytest.raises(BaseModelError, match=r"must give settings.until as a date YYYY-MM-DD, got 'someday'"):
        load_bundle(str(tmp_path / "base"))
