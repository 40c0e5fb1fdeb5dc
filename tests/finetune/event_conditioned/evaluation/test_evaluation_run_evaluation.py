"""What an evaluation says of adapter and data, and which files it leaves."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_service.data.sample import sample_sha256
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.forecasts import Forecasts
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import (
    describe_evaluation,
    evaluate_run,
    write_evaluation,
)
from kronos_service.finetune.event_conditioned.provenance import out_of_sample, versions
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.model.adapter.read import read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import MANIFEST, AdapterManifest, AuditRecord

AUDIT = AuditRecord(verdict="pass", checked={"event channels": 64}, findings=0, seed=0)


@pytest.fixture
def manifest(adapter_of: Callable[[int], Path]) -> AdapterManifest:
    return read_adapter(adapter_of(0)).manifest


def changed(manifest: AdapterManifest, **data: Any) -> AdapterManifest:
    """A manifest with another record of its data."""
    return manifest.model_copy(update={"data": manifest.data.model_copy(update=data)})


def test_an_evaluation_names_adapter_data_and_dates(
    adapter_of: Callable[[int], Path], manifest: AdapterManifest, market: Snapshot
) -> None:
    found = describe_evaluation(adapter_of(0), manifest, market, "val")
    age = datetime.now(UTC) - datetime.fromisoformat(found.pop("made_at"))
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert found == {
        "adapter": adapter_of(0).name,
        "manifest_sha256": hashlib.sha256((adapter_of(0) / MANIFEST).read_bytes()).hexdigest(),
        "base": manifest.base.repo,
        "snapshot": market.name,
        "snapshot_sha256": market.sha256,
        "trained_on_this_snapshot": False,
        "split": "val",
        "first": "2025-01-01",
        "last": "2025-06-30",
        "versions": versions(),
        "out_of_sample": out_of_sample(manifest.base.repo, date(2025, 1, 1)),
        "conditioning_gain": "unknown",
        "audit": None,
        "synthetic": market.is_sample,
    }


def test_it_says_whether_the_snapshot_is_the_trainings_and_what_its_audit_found(
    adapter_of: Callable[[int], Path], manifest: AdapterManifest, market: Snapshot
) -> None:
    audited = changed(manifest, sha256=market.sha256, audit=AUDIT)
    found = describe_evaluation(adapter_of(0), audited, market, "val")
    assert found["trained_on_this_snapshot"]
    assert found["audit"] == AUDIT.model_dump()


@pytest.mark.parametrize(
    ("is_sample", "data", "synthetic"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"synthetic": True}, True),
        (False, {"sha256": sample_sha256()}, True),
    ],
)
def test_a_market_that_was_made_up_is_said_to_be(
    adapter_of: Callable[[int], Path],
    manifest: AdapterManifest,
    market: Snapshot,
    is_sample: bool,
    data: dict[str, Any],
    synthetic: bool,
) -> None:
    assert market.is_sample
    snapshot = market if is_sample else replace(market, manifest=None)
    found = describe_evaluation(adapter_of(0), changed(manifest, **data), snapshot, "val")
    assert found["synthetic"] == synthetic


def test_an_evaluation_takes_the_place_of_the_one_before_it_in_all_of_its_files(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "evaluate"
    scores = {name: pd.DataFrame({"crps": [number]}, index=[7]) for number, name in enumerate("ab")}
    forecasts = Forecasts(records=scores["a"], next_bar=scores["b"], figures={})
    for _ in range(2):
        write_evaluation(directory, {"split": "val", "loss": 1.5}, forecasts)
    write_evaluation(directory, {"split": "test"}, None)
    assert json.loads((directory / "evaluation-val.json").read_text()) == {"split": "val", "loss": 1.5}
    for name, number in (("val", 0), ("val-next-bar", 1)):
        kept = pd.read_parquet(directory / f"evaluation-{name}.parquet")
        pd.testing.assert_frame_equal(kept, pd.DataFrame({"crps": [number]}))
    write_evaluation(directory, {"split": "val"}, None)
    assert sorted(path.name for path in directory.iterdir()) == [
        "evaluation-test.json",
        "evaluation-val.json",
    ]
    assert json.loads((directory / "evaluation-val.json").read_text()) == {"split": "val"}


@pytest.fixture
def evaluated(
    adapter_of: Callable[[int], Path], market: Snapshot, splits: Splits, bundle: Bundle, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], list[tuple[int, int]]]]:
    """The figures of a run's evaluation, and what it told of its progress."""
    (tmp_path / "adapter").symlink_to(adapter_of(0))
    totals = {name: {"total": number} for number, name in enumerate(("base", "adapter", "control"))}
    results = {
        "val": {name: {"all": total} for name, total in totals.items()},
        "val_families": {name: {"cpi": total} for name, total in totals.items()},
    }

    def evaluate(**given: int) -> tuple[dict[str, Any], list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []
        settings = {"origins": 2, "horizon": 2, "paths": 20, "seed": 5} | given
        evaluate_run(
            tmp_path,
            market,
            splits,
            bundle,
            results,
            **settings,
            advance=lambda done, total: told.append((done, total)),
        )
        figures: dict[str, Any] = json.loads((tmp_path / "evaluation-val.json").read_text())
        assert figures["adapter"] == adapter_of(0).name
        for losses, kind in (("losses", "val"), ("family_losses", "val_families")):
            assert figures[losses] == {name: results[kind][name] for name in ("base", "adapter")}
        return figures, told

    return evaluate


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"origins": 0}, "none were asked for (event-lora --forecast-origins 0)"),
        ({"horizon": 1000}, "the split has too few bars in a row"),
    ],
)
def test_a_run_without_forecasts_says_why(
    evaluated: Callable[..., tuple[dict[str, Any], list[tuple[int, int]]]],
    given: dict[str, int],
    why: str,
    tmp_path: Path,
) -> None:
    figures, told = evaluated(**given)
    assert figures["forecasts"] is None
    assert why in figures["why_no_forecasts"]
    assert told == []
    assert not list(tmp_path.glob("*.parquet"))


def test_a_run_is_forecast_from_as_its_settings_say(
    evaluated: Callable[..., tuple[dict[str, Any], list[tuple[int, int]]]],
    manifest: AdapterManifest,
    splits: Splits,
    tmp_path: Path,
) -> None:
    figures, told = evaluated()
    assert figures["why_no_forecasts"] is None
    assert figures["split"] == figures["forecasts"]["split"] == "val"
    assert figures["forecasts"]["settings"] == {
        "horizon": 2,
        "paths": 20,
        "context": manifest.normalization.context,
        "sampling": {**figures["forecasts"]["settings"]["sampling"], "temperature": 1.0, "top_p": 1.0},
        "seed": 5,
    }
    train = splits.splits["train"]
    assert figures["forecasts"]["next_bar"]["fitted_on"] == [str(train.first), str(train.last)]
    assert told[-1] == (6, 6)
    records = pd.read_parquet(tmp_path / "evaluation-val.parquet")
    assert set(records["model"]) == {"persistence", "random_walk", "base", "zeroed", "adapter"}
    adapter, zeroed = (records[records["model"] == name]["crps"].to_numpy() for name in ("adapter", "zeroed"))
    assert (adapter != zeroed).any()  # events reach the adapter that the run saved
