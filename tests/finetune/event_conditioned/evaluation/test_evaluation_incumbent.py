"""An adapter is compared with the one that it would replace: on the same targets, or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.sessions import DAILY
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.evaluation.incumbent import (
    Comparison,
    Incumbent,
    compare,
    find_incumbent,
    score_incumbent,
)
from kronos_service.finetune.event_conditioned.samples.splits import Splits, build_splits
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.model.adapter.read import attach, read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import EVENT_WEIGHTS, MANIFEST
from kronos_shared.adapter_store import latest, publish

SPLITS = "--train-start 2022-01-03 --val-start 2022-06-01 --test-start 2022-10-01 --test-end 2023-03-31"
TINY = f"--targets-per-window 8 --context 72 --warmup-steps 2 --rank 2 --forecast-origins 0 {SPLITS}"
INCUMBENT = Incumbent(version="000001-aaaaaaaaaaaa", manifest_sha256="a" * 64, adapter=None)


@pytest.fixture
def store(adapter_of: Callable[[int], Path], tmp_path: Path) -> Path:
    publish(adapter_of(1), tmp_path / "adapters", keep=10)
    return tmp_path / "adapters"


def published(store: Path, adapter: Path, directory: Path, **changes: object) -> Path:
    """A store whose LATEST has another manifest."""
    copy = Path(shutil.copytree(adapter, directory))
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(manifest | changes))
    publish(copy, store, keep=10)
    return store


def test_nothing_published_leaves_nothing_to_compare(bundle: Bundle, splits: Splits, tmp_path: Path) -> None:
    assert find_incumbent(tmp_path, bundle, splits.splits["val"], DAILY) is None


def test_an_adapter_of_another_base_tokenizer_or_taxonomy_is_not_compared(
    adapter_of: Callable[[int], Path], bundle: Bundle, splits: Splits, tmp_path: Path
) -> None:
    other = {"repo": "other", "revision": None, "content_sha256": "b" * 64}
    changes: dict[str, object] = {
        "base": other,
        "tokenizer": other,
        "channels": {"version": 9, "sha256": "c" * 64},
    }
    for name, value in changes.items():
        store = published(tmp_path / f"{name}-store", adapter_of(1), tmp_path / name, **{name: value})
        found = find_incumbent(store, bundle, splits.splits["val"], DAILY)
        assert found is not None
        assert found.adapter is None
        assert f"made for {'event channels' if name == 'channels' else name}" in str(found.why_not)


def test_an_adapter_that_was_trained_on_the_targets_is_not_compared(
    adapter_of: Callable[[int], Path], bundle: Bundle, splits: Splits, tmp_path: Path
) -> None:
    for last, reason in (("2022-06-01", "trained on targets up to 2022-06-01"), ("2022-05-31", None)):
        data = {"snapshot": "s", "sha256": "0" * 64, "has_manifest": True}
        spans = {"splits": {"train": ("2021-01-01", last), "val": ("2025-01-01", "2025-06-30")}}
        store = published(tmp_path / f"store-{last}", adapter_of(1), tmp_path / last, data=data | spans)
        found = find_incumbent(store, bundle, splits.splits["val"], DAILY)
        assert found is not None
        assert (found.adapter is None) == (reason is not None)
        assert reason is None or reason in str(found.why_not)


def test_an_adapter_of_bars_of_another_length_is_not_compared(
    store: Path, bundle: Bundle, splits: Splits
) -> None:
    found = find_incumbent(store, bundle, splits.splits["val"], "4h")
    assert found is not None
    assert found.adapter is None
    assert "trained on 1d bars, and this run has 4h ones" in str(found.why_not)


def test_a_damaged_adapter_is_not_compared(store: Path, bundle: Bundle, splits: Splits) -> None:
    pointer = latest(store)
    assert pointer is not None
    for name in (EVENT_WEIGHTS, MANIFEST):
        file = store / "versions" / pointer.version / name
        whole = file.read_bytes()
        file.write_bytes(whole + b" ")  # JSON of the same content, where it is JSON
        found = find_incumbent(store, bundle, splits.splits["val"], DAILY)
        assert found is not None
        assert found.adapter is None
        assert name in str(found.why_not)
        file.write_bytes(whole)


@pytest.mark.parametrize(("context", "scored"), [(72, 8), (68, 8), (6, 5)])
def test_it_is_scored_on_the_same_targets_in_windows_of_its_own_context(
    adapter_of: Callable[[int], Path],
    market: Snapshot,
    bundle: Bundle,
    splits: Splits,
    tmp_path: Path,
    context: int,
    scored: int,
) -> None:
    adapter = read_adapter(adapter_of(1))
    own = adapter.manifest.normalization.model_copy(update={"context": context})
    adapter = replace(adapter, manifest=adapter.manifest.model_copy(update={"normalization": own}))
    accelerator = Accelerator()
    setup = TrainingSetup(accelerator=accelerator, snapshot=market, bundle=bundle, context=72, splits=splits)
    records = score_incumbent(
        adapter, setup, scored=8, micro_batch=64, cache=tmp_path, advance=lambda _: None
    )
    val = splits.splits["val"]
    dates = {"val": (val.first, val.last)}
    own_windows = build_splits(market, bundle, dates=dates, context=context, scored=scored, cache=tmp_path)
    model = attach(adapter, bundle)
    ours, theirs = (
        score(model, made.dataset("val"), accelerator, micro_batch=64) for made in (splits, own_windows)
    )
    keys = ["symbol", "date", "is_event"]
    pd.testing.assert_frame_equal(records[keys], ours[keys])
    pd.testing.assert_frame_equal(records, theirs)
    assert (records["total"] == ours["total"]).all() == (context == 72)


def test_a_comparison_survives_its_manifest(splits: Splits, bundle: Bundle) -> None:
    torch.manual_seed(0)
    earlier = score(bundle.model, splits.dataset("val"), Accelerator(), micro_batch=64, events=False)
    better = earlier.assign(total=earlier["total"] - 0.5)
    found = compare(INCUMBENT, earlier, better, seed=0)
    assert (found.version, found.manifest_sha256) == (INCUMBENT.version, INCUMBENT.manifest_sha256)
    assert found.event is not None
    assert found.quiet is not None
    assert (found.event.nats, found.quiet.nats) == pytest.approx((0.5, 0.5))
    for one in (found, compare(replace(INCUMBENT, why_not="another base"), None, better, seed=0)):
        assert Comparison.from_record(json.loads(json.dumps(one.record()))) == one


def test_a_worse_adapter_is_not_promoted_unless_it_must_be(
    market_path: Path,
    base_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One epoch is better than the base, and worse than four."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "adapters"
    given = ["event-lora", "--snapshot", str(market_path), "--base-model", str(base_path), *TINY.split()]
    quick = [*given, "--no-control", "--learning-rate", "3e-3"]
    assert main([*quick, "--run-dir", "a", "--epochs", "4", "--promote", "if-better"]) == 0
    first = latest(store)
    assert first is not None
    assert json.loads(Path("a/adapter/manifest.json").read_text())["metrics"]["incumbent"] is None

    capsys.readouterr()
    assert main([*quick, "--run-dir", "b", "--epochs", "1", "--promote", "if-better"]) == 0
    assert latest(store) == first
    shown = capsys.readouterr().out
    assert f"  no worse than LATEST: over {first.version}: event -" in shown
    criteria = {one["name"]: one for one in json.loads(Path("b/criteria.json").read_text())}
    assert criteria["event-day val loss"]["verdict"] == "pass"
    assert criteria["no worse than LATEST"]["verdict"] == "fail"
    compared = json.loads(Path("b/adapter/manifest.json").read_text())["metrics"]["incumbent"]
    assert (compared["version"], compared["why_not"]) == (first.version, None)
    totals = [
        json.loads(Path(run, "results.json").read_text())["val"]["adapter"]["event"]["total"] for run in "ab"
    ]
    assert compared["event"]["nats"] == pytest.approx(totals[0] - totals[1], abs=1e-5)

    for run in ("b", "a"):
        publish(tmp_path / run / "adapter", store, keep=10)
    last = ["--run-dir", "c", "--epochs", "1", "--promote", "always", "--keep-versions", "1"]
    assert main([*quick, *last]) == 0
    second = latest(store)
    assert second is not None
    assert second.generation == 4
    kept = {path.name[:6] for path in (store / "versions").iterdir()}
    assert kept == {"000003", "000004"}  # the one that LATEST named before may still be read
    assert "although no worse than LATEST: over" in capsys.readouterr().out
