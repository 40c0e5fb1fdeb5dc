"""Every fold of the sample market shows the planted effects, and the placebo none.

Run with `pytest -m slow -s` and this file, which prints its table.
"""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.folds.pooling import find
from kronos_service.finetune.event_conditioned.walk_forward import walk_forward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out: Path = tmp_path_factory.mktemp("walk") / "folds"
    config = WalkForwardConfig(
        out=out,
        last_val=date(2025, 12, 31),
        epochs=2,
        warmup_steps=5,
        batch_size=16,
        seeds=(0,),
        placebo=True,
        origins=0,
    )
    return walk_forward(config)


def test_every_fold_gains_on_the_days_of_planted_events(found: dict[str, Any]) -> None:
    folds = [one["name"] for one in found["folds"]]
    assert folds == ["2022-01-01", "2023-01-01", "2024-01-01", "2025-01-01"]
    gains = {
        one["group"]: one["gain"]
        for one in found["gains"]
        if (one["model"], one["over"], one["by"]) == ("adapter", "control", "fold")
    }
    for name in folds:
        assert gains[f"{name}, tier 1"]["low"] > 0, name


def test_the_placebo_gains_nothing_on_pooled_event_days(found: dict[str, Any]) -> None:
    placebo = find(found["gains"], "placebo", "control", "event")
    assert placebo is not None
    assert placebo["gain"]["low"] <= 0
