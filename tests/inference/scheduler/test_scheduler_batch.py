"""Who joins a batch: nobody of another kind, nobody beyond the rows, and nobody who makes another late."""

from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.scheduler.batch import choose_batch
from kronos_service.inference.scheduler.work import ROW, STEP, BatchKey, ForecastJob, cost_of
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.generate import ROWS_PER_PASS, History, passes
from kronos_service.model.generation.sampling import Sampling

NOW = 100.0


@pytest.fixture(scope="module")
def serving(bundle: Bundle) -> ServedModel:
    nothing: dict[str, Any] = dict.fromkeys(("version", "generation", "digest", "manifest"))
    return ServedModel(base=bundle, model=bundle.model, loaded_at=datetime.now(UTC), **nothing)


def work(serving: ServedModel, seconds: float, *, horizon: int = 2, paths: int = 8) -> ForecastJob:
    """A work of one series of 10 bars, 8 rows at the usual paths."""
    stamps = torch.zeros(12, 5, dtype=torch.int64)
    history = History(
        x=torch.zeros(10, 6), stamps=stamps[:10], future_stamps=stamps[:horizon], events=None, seed=0
    )
    key = BatchKey(horizon=horizon, paths=paths, sampling=Sampling())
    return ForecastJob(serving=serving, key=key, histories=[history], expires_at=NOW + seconds)


LEAD, JOINER = 2 * STEP + 10 + 2 * 8 * ROW, 10 + 2 * 8 * ROW
"""Costs of the usual work, alone and in company; at a pace of 1 they are seconds."""
OTHER, OTHER_JOINER = STEP + 10 + 8 * ROW, 10 + 8 * ROW
"""The same at a horizon of one bar."""


def choose(works: list[ForecastJob], most_rows: int = 64) -> tuple[list[int], ...]:
    """Numbers of the works in the batch, the rest and the expired, at a pace of 1."""
    choice = choose_batch(works, most_rows=most_rows, seconds_per_cost=1.0, now=NOW)
    return tuple([works.index(one) for one in part] for part in (choice.batch, choice.rest, choice.expired))


def test_all_of_one_kind_join_while_there_is_time_and_room(serving: ServedModel) -> None:
    assert choose([work(serving, 1000) for _ in range(4)]) == ([0, 1, 2, 3], [], [])
    assert choose([work(serving, 1000) for _ in range(4)], most_rows=24) == ([0, 1, 2], [3], [])
    assert choose([work(serving, 0), work(serving, -1), work(serving, 5)]) == ([2], [], [0, 1])


def test_a_joiner_does_not_make_the_lead_late(serving: ServedModel) -> None:
    lead = work(serving, LEAD + 1.5 * JOINER)
    assert choose([lead, *(work(serving, 1000) for _ in range(3))]) == ([0, 1], [2, 3], [])
    exactly = work(serving, LEAD + JOINER)
    assert choose([exactly, work(serving, 1000), work(serving, 1000)]) == ([0, 1], [2], [])


def test_a_joiner_does_not_make_late_whom_it_would_overtake(serving: ServedModel) -> None:
    passed = work(serving, LEAD + OTHER + 2.5 * JOINER, horizon=1)
    same = [work(serving, 1000) for _ in range(4)]
    assert choose([same[0], passed, *same[1:]]) == ([0, 2, 3], [1, 4], [])


def test_those_overtaken_are_taken_to_run_together(serving: ServedModel) -> None:
    passed = [
        work(serving, 1000, horizon=1),
        work(serving, LEAD + OTHER + OTHER_JOINER + 1.5 * JOINER, horizon=1),
    ]
    same = [work(serving, 1000) for _ in range(3)]
    assert choose([same[0], *passed, *same[1:]]) == ([0, 3], [1, 2, 4], [])


def test_who_is_late_anyway_holds_nobody_up(serving: ServedModel) -> None:
    late = work(serving, 0.5 * LEAD)
    assert choose([late, *(work(serving, 1000) for _ in range(3))]) == ([0, 1, 2, 3], [], [])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(-1, 20), st.sampled_from([1, 2, 3])), max_size=12),
    st.integers(8, 64),
    st.floats(0, 0.05),
)
def test_every_work_is_in_one_place_and_nobody_is_made_late(
    serving: ServedModel, kinds: list[tuple[float, int]], most_rows: int, pace: float
) -> None:
    works = [work(serving, seconds, horizon=horizon) for seconds, horizon in kinds]
    choice = choose_batch(works, most_rows=most_rows, seconds_per_cost=pace, now=NOW)
    everyone = [*choice.batch, *choice.rest, *choice.expired]
    assert sorted(map(id, everyone)) == sorted(map(id, works))
    assert all(one.expires_at <= NOW for one in choice.expired)
    alive = [one for one in works if one.expires_at > NOW]
    assert choice.batch[:1] == alive[:1]
    assert all(choice.batch[0].cost.joins(one.cost) for one in choice.batch)
    assert sum(one.cost.rows for one in choice.batch) <= most_rows
    # whoever would be in time behind a lead that runs alone is in time behind the batch
    for number, one in enumerate(alive):
        passed = [other for other in alive[: number + 1] if other in choice.rest]
        behind_lead = costs(alive[:1]) + costs(alive[1 : number + 1])
        behind_batch = costs(choice.batch) + (costs(passed) if one in choice.rest else 0.0)
        was_in_time = NOW + pace * behind_lead <= one.expires_at - 1e-6
        assert not was_in_time or NOW + pace * behind_batch <= one.expires_at + 1e-6


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from([8, 17, 40, 70])), max_size=20))
def test_what_waits_costs_at_most_what_was_estimated_for_it(
    serving: ServedModel, kinds: list[tuple[int, int]]
) -> None:
    """Otherwise the queue admits what it cannot answer in time."""
    waiting = [work(serving, 1000, horizon=horizon, paths=paths) for horizon, paths in kinds]
    estimated, ran = costs(waiting), 0.0
    while waiting:
        choice = choose_batch(waiting, most_rows=ROWS_PER_PASS, seconds_per_cost=0.0, now=NOW)
        ran += sum(one.cost.marginal for one in choice.batch)
        key = choice.batch[0].key
        ran += STEP * key.horizon * passes(len(choice.batch), key.paths)
        waiting = choice.rest
    assert ran <= estimated + 1e-6
    assert ran >= 0.99 * estimated


def costs(works: list[ForecastJob]) -> float:
    return cost_of(one.cost for one in works)
