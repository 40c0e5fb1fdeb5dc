"""What a figure was made with: whether targets are new to its base, and whether its market is drawn."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from kronos_service.data.sample import is_synthetic, sample_sha256, sample_snapshot_path
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.provenance import data_record, out_of_sample, seen_by
from kronos_service.finetune.event_conditioned.report.model_card import pooled_card
from kronos_service.model.base_files import BaseModelError
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.adapter_manifest import AuditRecord, DataRecord


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


AUDIT = AuditRecord(verdict="pass", checked={}, findings=0, seed=0)
SPLITS = {"train": ("2020-01-01", "2020-02-01")}


def test_data_of_another_sample_market_are_marked_and_no_others(market: Snapshot) -> None:
    embedded = load_snapshot(sample_snapshot_path())
    source = {"source": "supabase", "window": {}}
    real, plain = replace(market, manifest=source), replace(market, manifest=None)
    assert data_record(market, SPLITS, AUDIT).synthetic
    for other in (embedded, real, plain):
        assert not data_record(other, SPLITS, AUDIT).synthetic
    assert [one.is_sample for one in (market, embedded, real, plain)] == [True, True, False, False]


def test_the_mark_is_in_a_file_only_where_it_is_set_so_that_older_files_keep_their_bytes() -> None:
    unmarked = DataRecord(snapshot="s", sha256="0" * 64, has_manifest=True, splits=SPLITS)
    assert "synthetic" not in unmarked.model_dump_json()
    assert DataRecord.model_validate_json(unmarked.model_dump_json(), strict=True) == unmarked
    marked = unmarked.model_copy(update={"synthetic": True})
    assert json.loads(marked.model_dump_json())["synthetic"] is True
    assert DataRecord.model_validate_json(marked.model_dump_json(), strict=True) == marked


def test_marked_data_and_the_embedded_sample_are_synthetic() -> None:
    assert is_synthetic(sample_sha256(), marked=False)
    assert is_synthetic("0" * 64, marked=True)
    assert not is_synthetic("0" * 64, marked=False)


@pytest.mark.parametrize(
    ("sha256", "synthetic", "words"),
    [
        ("0" * 64, False, ""),
        ("0" * 64, True, "SYNTHETIC: this is a sample market;"),
        (sample_sha256(), False, "SYNTHETIC: this is the embedded sample market;"),
    ],
)
def test_a_model_card_says_that_its_market_is_drawn(sha256: str, synthetic: bool, words: str) -> None:
    data = DataRecord(snapshot="s", sha256=sha256, has_manifest=True, splits=SPLITS, synthetic=synthetic)
    evidence = {"folds": ["2020-01-01"], "seeds": [0], "gains": [], "seen": []}
    card = pooled_card(EventLoraConfig(), "base", data, evidence)
    assert words in card
    assert ("SYNTHETIC" in card) == bool(words)
