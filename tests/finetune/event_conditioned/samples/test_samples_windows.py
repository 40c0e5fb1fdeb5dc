"""Which bars are scored, and from what context."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.windows import LeftOut, Window, plan_windows
from kronos_shared.normalization import MIN_HISTORY

FAR = np.datetime64("2100-01-01")


def series_of(bars: int, gaps: tuple[int, ...] = ()) -> Series:
    follows = np.ones(bars, dtype=bool)
    follows[[0, *gaps]] = False
    return Series(
        symbol="X",
        asset_class="crypto",
        dates=np.datetime64("2020-01-01") + np.arange(bars),
        features=np.ones((bars, 6)),
        stamps=np.zeros((bars, 5), dtype=np.int64),
        events=np.zeros((bars, 20), dtype=np.float32),
        is_event=np.zeros(bars, dtype=bool),
        families=np.zeros((bars, 14), dtype=bool),
        follows=follows,
        taxonomy=DEFAULT_TAXONOMY,
    )


def targets_of(series: Series, windows: list[Window]) -> list[int]:
    return [t for w in windows for t in range(w.first_target, w.stop) if series.follows[t]]


@given(
    bars=st.integers(1, 400),
    first=st.integers(-10, 400),
    length=st.integers(1, 300),
    context=st.integers(40, 200),
    scored=st.integers(1, 39),
    gaps=st.sets(st.integers(1, 399), max_size=5),
    covers=st.integers(0, 500),
)
def test_every_target_of_a_span_is_scored_exactly_once_or_counted_as_left_out(
    bars: int, first: int, length: int, context: int, scored: int, gaps: set[int], covers: int
) -> None:
    series = series_of(bars, tuple(gap for gap in gaps if gap < bars))
    begin, last = np.datetime64("2020-01-01") + first, np.datetime64("2020-01-01") + first + length - 1
    known = np.datetime64("2020-01-01") + covers
    windows, left_out = plan_windows(
        [series], first=begin, last=last, calendar_covers=known, context=context, scored=scored
    )
    inside = [t for t in range(bars) if begin <= series.dates[t] <= last]
    expected = [t for t in inside if t >= MIN_HISTORY and series.dates[t] <= known and series.follows[t]]
    assert targets_of(series, windows) == expected
    counted = left_out.too_little_history + left_out.after_a_gap + left_out.past_the_calendar
    assert counted == len(inside) - len(expected)
    for window in windows:
        assert window.stop - window.start - 1 <= context
        assert 1 <= window.stop - window.first_target <= scored
        assert window.first_target - window.start >= min(MIN_HISTORY, context + 1 - scored)


def test_neighbouring_spans_share_no_target() -> None:
    series = series_of(300)
    edge = np.datetime64("2020-06-01")
    train, _ = plan_windows(
        [series], first=series.dates[0], last=edge - 1, calendar_covers=FAR, context=80, scored=32
    )
    val, _ = plan_windows(
        [series], first=edge, last=series.dates[-1], calendar_covers=FAR, context=80, scored=32
    )
    assert not set(targets_of(series, train)) & set(targets_of(series, val))
    assert len(targets_of(series, train)) + len(targets_of(series, val)) == 300 - MIN_HISTORY


def test_a_bar_after_a_gap_is_context_but_no_target() -> None:
    series = replace(series_of(100, gaps=(80,)))
    windows, left_out = plan_windows(
        [series], first=series.dates[70], last=series.dates[-1], calendar_covers=FAR, context=80, scored=32
    )
    assert 80 not in targets_of(series, windows)
    assert windows[0].start < 80 < windows[0].stop
    assert left_out == LeftOut(after_a_gap=1)
    assert left_out.describe() == "1 after a gap"
