"""Folds never overlap, and nothing that a fold learns from lies in it or within the embargo before it."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.events.sessions import sessions
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.folds.dates import FoldError, embargoed, plan_folds

MARKETS = ("us_equity", "crypto", "index", "fx")
DAYS = st.dates(date(2021, 6, 1), date(2024, 12, 31))


def plan(first_val: date, months: int, window: str, horizon: int, end: date) -> WalkForwardConfig:
    return WalkForwardConfig(
        first_val=first_val, fold=f"{months}m", train_window=window, horizon=horizon, last_val=end
    )


@given(
    first=DAYS,
    days=st.integers(0, 1200),
    months=st.integers(1, 24),
    window=st.sampled_from(["expanding", "6m", "24m", "36m"]),
    horizon=st.integers(1, 10),
)
def test_each_date_is_scored_once_and_after_all_that_its_fold_learns_from(
    first: date, days: int, months: int, window: str, horizon: int
) -> None:
    end = first + timedelta(days=days)
    config = plan(first, months, window, horizon, end)

    folds = plan_folds(config, end)

    scored = [
        fold.first + timedelta(days=n) for fold in folds for n in range((fold.last - fold.first).days + 1)
    ]
    assert scored == [first + timedelta(days=n) for n in range(len(scored))]
    assert 0 <= (end - scored[-1]).days < 28
    for fold in folds:
        assert config.train_start <= fold.train_first <= fold.train_last < fold.first <= fold.last
        for market in MARKETS:
            between = sessions(market, fold.train_last + timedelta(days=1), fold.first - timedelta(days=1))
            assert len(between.dates) >= horizon


@given(first=st.dates(date(2022, 6, 1), date(2025, 1, 1)), horizon=st.integers(1, 10))
def test_epochs_are_chosen_on_dates_before_the_fold_alone(first: date, horizon: int) -> None:
    config = plan(first, 12, "expanding", horizon, first + timedelta(days=400))
    fold = plan_folds(config, first + timedelta(days=400))[0]

    inner = fold.inner(horizon)

    assert inner.last == fold.train_last < fold.first
    assert fold.train_first == inner.train_first < inner.train_last < inner.first
    assert inner.train_last == embargoed(inner.first, horizon)
    share = (inner.last - inner.first).days / (fold.train_last - fold.train_first).days
    assert 0.19 < share < 0.21


def test_the_training_window_reaches_back_so_many_months_and_never_before_the_start() -> None:
    folds = plan_folds(plan(date(2022, 1, 1), 12, "24m", 1, date(2025, 6, 30)), date(2025, 6, 30))

    assert [fold.train_first for fold in folds] == [
        date(2021, 1, 1),
        date(2021, 1, 1),
        date(2022, 1, 1),
        date(2023, 1, 1),
    ]
    assert [fold.last for fold in folds] == [
        date(2022, 12, 31),
        date(2023, 12, 31),
        date(2024, 12, 31),
        date(2025, 6, 30),
    ]


def test_one_session_lies_between_a_one_bar_training_and_its_fold() -> None:
    # 2023-01-03 is the first session of 2023; 2022-12-30 the last of 2022, which is left out.
    assert embargoed(date(2023, 1, 3), 1) == date(2022, 12, 29)
    assert embargoed(date(2023, 1, 3), 5) == date(2022, 12, 22)
    dates = sessions("us_equity", date(2022, 12, 1), date(2023, 1, 2)).dates
    assert np.datetime64("2022-12-30") in dates


def test_a_snapshot_that_ends_before_the_first_fold_is_refused_with_its_end() -> None:
    with pytest.raises(FoldError, match=r"--first-val 2022-01-01 .* is dated 2021-12-31"):
        plan_folds(WalkForwardConfig(), date(2021, 12, 31))
