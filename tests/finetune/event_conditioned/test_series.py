"""Control and placebo: what is taken from the model, and what stays real."""

import numpy as np

from kronos_service.data.snapshot import Snapshot
from kronos_service.finetune.event_conditioned.series import build_series, condition

EDGES = [np.datetime64("2021-06-01"), np.datetime64("2022-06-01")]


def test_the_control_sees_no_events_and_keeps_the_labels(market: Snapshot) -> None:
    series = build_series(market)
    control = condition(series, "zeroed", EDGES, seed=0)
    assert any(one.events.any() for one in series)
    assert not any(one.events.any() for one in control)
    for real, zeroed in zip(series, control, strict=True):
        np.testing.assert_array_equal(real.is_event, zeroed.is_event)


def test_the_placebo_moves_whole_rows_to_other_dates_of_the_same_stretch(market: Snapshot) -> None:
    series = build_series(market)
    placebo = condition(series, "permuted", EDGES, seed=0)
    for real, false in zip(series, placebo, strict=True):
        np.testing.assert_array_equal(real.is_event, false.is_event)
        np.testing.assert_array_equal(real.features, false.features)
        assert (real.events != false.events).any(axis=1).mean() > 0.8
        stretch = np.searchsorted(EDGES, real.dates, side="right")
        for number in range(3):
            rows, other = real.events[stretch == number], false.events[stretch == number]
            np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(other, axis=0))


def test_every_symbol_sees_the_same_false_calendar(market: Snapshot) -> None:
    first, second, *_ = condition(build_series(market), "permuted", EDGES, seed=0)
    np.testing.assert_array_equal(first.events, second.events)


def test_another_seed_gives_another_placebo(market: Snapshot) -> None:
    series = build_series(market)
    one, other = (condition(series, "permuted", EDGES, seed=seed)[0].events for seed in (0, 1))
    assert (one != other).any()
