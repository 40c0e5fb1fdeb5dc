"""What requests cost: bars read, rows drawn, and what a batch pays once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from kronos_service.inference.models.served_model import ServedModel, base_alone, build
from kronos_service.inference.scheduler.work import ROW, STEP, BatchKey, Cost, cost_of, warm_up
from kronos_service.model.adapter.files import read_files
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.sampling import Sampling


@pytest.fixture(scope="module")
def demand(bundle: Bundle) -> Cost:
    nothing: dict[str, Any] = dict.fromkeys(("version", "generation", "digest", "manifest"))
    serving = ServedModel(base=bundle, model=bundle.model, loaded_at=datetime.now(UTC), **nothing)
    return Cost(serving=serving, key=BatchKey(horizon=3, paths=16, sampling=Sampling()), bars=100, series=2)


@pytest.mark.parametrize(("paths", "rows"), [(1, 4), (2, 16), (8, 16), (9, 32), (16, 32)])
def test_rows_are_counted_as_they_are_drawn(demand: Cost, paths: int, rows: int) -> None:
    asked = replace(demand, key=replace(demand.key, paths=paths))
    assert asked.rows == rows
    assert cost_of([asked]) == 3 * STEP + 100 + 3 * ROW * rows


def test_those_of_a_kind_pay_for_their_steps_once(demand: Cost) -> None:
    alone, longer = cost_of([demand]), replace(demand, bars=150)
    assert cost_of([demand, longer]) == alone + 150 + 3 * ROW * 32
    assert cost_of([]) == 0


def test_another_model_and_other_settings_pay_for_themselves(demand: Cost) -> None:
    twin = replace(demand, serving=replace(demand.serving))
    hotter = replace(demand, key=replace(demand.key, sampling=Sampling(temperature=0.5)))
    assert cost_of([demand, twin, hotter]) == 3 * cost_of([demand])
    assert cost_of([demand, twin, hotter, demand]) == 3 * cost_of([demand]) + demand.marginal
    assert demand.joins(replace(demand, bars=7, series=1))
    assert not demand.joins(twin)
    assert not demand.joins(hotter)


def test_a_full_batch_takes_no_more_and_the_next_pays_for_its_own_steps(demand: Cost) -> None:
    small = replace(demand, series=1)  # 16 rows of 64: four run together
    for count, batches in [(4, 1), (5, 2), (8, 2), (30, 8)]:
        assert cost_of([small] * count) == batches * 3 * STEP + count * small.marginal
    large = replace(demand, series=3)  # 48 rows: two do not fit
    assert cost_of([large, small, large]) == 2 * 3 * STEP + 2 * large.marginal + small.marginal


def test_a_request_of_several_passes_pays_for_each(demand: Cost) -> None:
    wide = replace(demand, series=5)
    assert cost_of([wide]) == 2 * 3 * STEP + 100 + 3 * ROW * 5 * 16
    many = replace(demand, key=replace(demand.key, paths=129))
    assert cost_of([many]) == 6 * 3 * STEP + 100 + 3 * ROW * 2 * 136
    assert cost_of([wide, demand]) == cost_of([wide]) + cost_of([demand])


def test_the_first_forecast_of_a_model_is_one_of_its_adapter_with_events(
    adapter_of: Callable[[int], Path], bundle: Bundle
) -> None:
    assert warm_up(base_alone(bundle)) > 0
    serving = build(read_files(adapter_of(0)), bundle, version="v")
    assert warm_up(serving) > 0
    assert serving.model.event_emb is not None
    with torch.no_grad():
        for weight in serving.model.event_emb.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        warm_up(serving)
