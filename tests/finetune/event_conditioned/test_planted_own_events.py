"""A market of own events: both own families, the symbol event and the own leader are found, the decoy is not.

Run with `pytest -m slow -s` and this file; it prints its figures.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import own_events
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain, gain_of
from kronos_service.finetune.event_conditioned.event_lora import event_lora
from kronos_service.finetune.event_conditioned.samples.splits import Splits, build_splits
from kronos_service.finetune.event_conditioned.training.validation import score
from kronos_service.model.adapter.read import attach, read_adapter
from kronos_service.model.factory import load_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass(frozen=True)
class Found:
    """What a training found on the validation split."""

    families: dict[str, Any]
    """Family -> gain over the control on its days."""
    leaders: dict[str, Gain]
    """Leader -> how much lower the loss is than with its channel at zero."""
    criteria: list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    root: Path = tmp_path_factory.mktemp("own")
    write_sample(root / "market", world=own_events())
    config = EventLoraConfig(
        snapshot=root / "market", run_dir=root / "run", adapter_store=root / "adapters", control=True
    )
    event_lora(config)
    results = json.loads((root / "run" / "results.json").read_bytes())
    figures = Found(
        families=results["family_gains"]["control"],
        leaders=leader_gains(root, config),
        criteria=json.loads((root / "run" / "criteria.json").read_bytes()),
    )
    print(figures)  # noqa: T201
    return figures


def leader_gains(root: Path, config: EventLoraConfig) -> dict[str, Gain]:
    snapshot = load_snapshot(root / "market")
    bundle = load_bundle("kronos-nano", taxonomy=snapshot.taxonomy)
    model = attach(read_adapter(root / "run" / "adapter"), bundle)
    splits = build_splits(
        snapshot,
        bundle,
        dates={"val": config.split_dates()["val"]},
        context=bundle.context,
        scored=config.targets_per_window,
        cache=root / "cache",
    )
    whole = losses(model, splits)
    gains = {}
    for number, leader in enumerate(snapshot.taxonomy.leaders, start=snapshot.taxonomy.first_leader):
        blind = losses(model, replace(splits, series=[without(one, number) for one in splits.series]))
        # QQQ is not moved by its own last return, and GLD moves nobody
        led = (whole["symbol"] != "QQQ").to_numpy()
        gains[leader] = gain_of(blind["total"][led], whole["total"][led], whole["date"][led])
    return gains


def losses(model: Any, splits: Splits) -> Any:
    return score(model, splits.dataset("val"), Accelerator(cpu=True), micro_batch=32)


def without(one: Any, channel: int) -> Any:
    events = one.events.copy()
    events[:, channel] = np.float32(0)
    return replace(one, events=events)


@pytest.mark.parametrize("family", ["ecb_rate", "oil_inventories", "earnings"])
def test_own_families_and_the_symbol_event_gain_over_the_control(found: Found, family: str) -> None:
    assert found.families[family]["low"] > 0
    assert found.families[family]["percent"] > 1.0


def test_the_own_leader_is_found_and_the_decoy_is_not(found: Found) -> None:
    assert found.leaders["QQQ"].low > 0
    assert found.leaders["GLD"].low <= 0
    assert abs(found.leaders["GLD"].nats) < found.leaders["QQQ"].nats / 5


def test_the_audit_before_training_passes_on_own_events(found: Found) -> None:
    (audit,) = (one for one in found.criteria if one["name"] == "no leakage")
    assert audit["verdict"] == "pass"
