"""Several at once, in order, never too far ahead; the first error ends it."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.data.sources.parallel import ordered_map


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers()), st.integers(1, 8))
def test_results_come_in_the_order_of_the_items(items: list[int], at_once: int) -> None:
    assert list(ordered_map(lambda item: item + 1, items, at_once=at_once)) == [item + 1 for item in items]


def test_a_reader_that_does_not_take_holds_the_work_back() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    results = ordered_map(work, range(100), at_once=3)
    assert next(results) == 0
    assert len(begun) <= 7  # six ahead of the one that was taken
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_turn_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ConnectionError("gone")
        return item

    results = ordered_map(work, range(100), at_once=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ConnectionError, match="gone"):
        next(results)
    assert begun == [0, 1, 2]


def test_no_thread_outlives_the_process() -> None:
    results = ordered_map(lambda _: threading.current_thread().daemon, [1], at_once=1)
    assert list(results) == [True]
