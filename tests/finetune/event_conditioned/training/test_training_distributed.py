"""Shares of the work; what several processes do together is in test_training_distributed_soak.py."""

from collections.abc import Sequence

import pytest
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.finetune.event_conditioned.training import distributed
from kronos_service.finetune.event_conditioned.training.schedule import Schedule
from kronos_shared.errors import KronosError


def shares(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """What each of `count` processes would take."""
    state = PartialState()
    before = state.num_processes, state.process_index
    try:
        state.num_processes = count
        parts = []
        for state.process_index in range(count):
            parts.append(distributed.share(items))
        return parts
    finally:
        state.num_processes, state.process_index = before


@given(
    windows=st.integers(1, 60), batch_size=st.integers(1, 20), count=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_every_window_of_an_epoch_is_in_one_share_of_one_step(
    windows: int, batch_size: int, count: int, seed: int
) -> None:
    schedule = Schedule(windows=windows, batch_size=batch_size, epochs=2, seed=seed)
    seen: list[int] = []
    for step in range(schedule.steps_per_epoch):
        assert schedule.windows_before(step) == len(seen)
        parts = shares(schedule.batch(step), count)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen += [window for part in parts for window in part]
    assert sorted(seen) == list(range(windows))
    assert schedule.windows_before(schedule.steps) == 2 * windows


def test_epochs_have_their_own_order() -> None:
    schedule = Schedule(windows=50, batch_size=50, epochs=2, seed=0)
    assert schedule.batch(0) != schedule.batch(1)
    assert schedule.batch(0) == Schedule(windows=50, batch_size=50, epochs=9, seed=0).batch(0)
    assert schedule.batch(0) != Schedule(windows=50, batch_size=50, epochs=2, seed=1).batch(0)


def test_one_process_does_everything_itself() -> None:
    def fail() -> None:
        raise KronosError("as it is")

    assert distributed.on_main(lambda: 5) == 5
    assert distributed.gathered("a") == ["a"]
    assert distributed.sum_over_processes(1.5, 2.0) == [1.5, 2.0]
    distributed.require_same({"snapshot": "a"})
    with pytest.raises(KronosError, match="as it is"):
        distributed.on_main(fail)
