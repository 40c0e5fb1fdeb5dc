"""The next bar by model and yardstick: sample paths by hand, groups that add up, gains with their sign."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.evaluation.metrics import crps_samples
from kronos_service.finetune.event_conditioned.evaluation.next_bar import (
    score_next_bars,
    summarize_next_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import SampledBars
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import (
    SCORES,
    YARDSTICKS,
    fit_yardsticks,
    score_yardsticks,
)
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series

TRAIN = (np.datetime64("2021-06-01"), np.datetime64("2022-05-31"))
FOLD = (np.datetime64("2022-06-01"), np.datetime64("2022-12-15"))
ORIGINS = [Origin(series=number, bar=bar) for number in (0, 2) for bar in range(380, 420)]


@pytest.fixture(scope="module")
def series(market: Snapshot) -> list[Series]:
    return build_series(market)


@pytest.fixture(scope="module")
def records(market: Snapshot, series: list[Series]) -> pd.DataFrame:
    """The adapter draws returns of 1 % and ranges of e^-4, around what the base draws twice as wide."""
    fitted = fit_yardsticks(market, series, first=TRAIN[0], last=TRAIN[1])
    last = np.array([series[o.series].features[o.bar, 3] for o in ORIGINS])
    draws = np.random.default_rng(0).normal(size=(len(ORIGINS), 30))
    sampled = {
        name: SampledBars(
            closes=(last[:, None] * np.exp(scale * draws))[..., None], log_range=-4 + 0.4 * draws
        )
        for name, scale in (("base", 0.02), ("adapter", 0.01))
    }
    return score_next_bars(fitted, series, ORIGINS, sampled)


@pytest.fixture(scope="module")
def groups(records: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {one["group"]: one for one in summarize_next_bars(records, seed=0)["groups"]}


def test_sample_paths_by_hand(records: pd.DataFrame, series: list[Series]) -> None:
    mine = records[records["model"] == "adapter"]
    assert len(mine) == len(ORIGINS)
    bars = [series[o.series].dates[o.bar + 1] for o in ORIGINS]
    assert mine["date"].to_numpy().astype("datetime64[D]").tolist() == [day.item() for day in bars]
    close = series[2].features[:, 3]
    row = mine.iloc[41]
    assert row["log_return"] == pytest.approx(np.log(close[382] / close[381]))
    draws = np.random.default_rng(0).normal(size=(len(ORIGINS), 30))[41]
    wanted = crps_samples(0.01 * draws[None, :, None], np.array([[row["log_return"]]]))[0, 0]
    assert row["return_crps"] == pytest.approx(wanted)
    ratio = row["log_return"] ** 2 / (1e-4 * (draws**2).mean())
    assert row["return_qlike"] == pytest.approx(ratio - np.log(ratio) - 1)
    assert mine["return_log_score"].isna().all()


def test_all_scores_of_sample_paths_are_by_target_and_come_from_its_own_paths(records: pd.DataFrame) -> None:
    """QLIKE's variances are the mean squared return, and the mean squared range, of the target's paths."""
    draws = np.random.default_rng(0).normal(size=(len(ORIGINS), 30))
    for name, scale in (("base", 0.02), ("adapter", 0.01)):
        mine = records[records["model"] == name]
        returns, ranges = scale * draws, -4 + 0.4 * draws
        came_return, came_range = mine["log_return"].to_numpy(), mine["log_range"].to_numpy()
        returned = came_return**2 / (returns**2).mean(axis=1)
        ranged = np.exp(2 * came_range) / np.exp(2 * ranges).mean(axis=1)
        expected = {
            "return_crps": crps_samples(returns[..., None], came_return[:, None])[:, 0],
            "return_log_score": np.full(len(ORIGINS), np.nan),
            "return_qlike": returned - np.log(returned) - 1,
            "range_crps": crps_samples(ranges[..., None], came_range[:, None])[:, 0],
            "range_log_score": np.full(len(ORIGINS), np.nan),
            "range_qlike": ranged - np.log(ranged) - 1,
        }
        assert list(expected) == list(SCORES)
        for score, values in expected.items():
            np.testing.assert_allclose(mine[score], values, rtol=1e-9, err_msg=score)
    assert records.index.tolist() == list(range(len(records)))
    yardstick = records[records["model"] == "har"]
    for column in ("symbol", "date", "log_return", "log_range", "is_event", "tier1"):
        assert (mine[column].to_numpy() == yardstick[column].to_numpy()).all()


@pytest.fixture(scope="module")
def whole(records: pd.DataFrame) -> pd.DataFrame:
    """With rows of the two models that were not drawn, whose scores are the adapter's moved a little."""
    adapter = records[records["model"] == "adapter"]
    scores = adapter[list(SCORES)]
    others = [adapter.assign(model=name, **(scores + 0.1)) for name in ("zeroed", "recalibrated")]
    return pd.concat([*others, records], ignore_index=True)


def test_models_are_shown_from_the_simplest_and_compared_with_those_below_them(whole: pd.DataFrame) -> None:
    for group in summarize_next_bars(whole, seed=0)["groups"]:
        assert list(group["models"]) == [*YARDSTICKS, "base", "zeroed", "adapter", "recalibrated"]
        assert {better: list(found) for better, found in group["gain"].items()} == {
            "adapter": ["har_events", "har", "garch", "random_walk", "base"],
            "har_events": ["har"],
        }


@pytest.mark.parametrize("score", SCORES)
def test_a_gain_is_a_fall_of_losses_and_a_rise_of_log_scores(records: pd.DataFrame, score: str) -> None:
    har = records[records["model"] == "har"].assign(**{score: 1.0})
    events = har.assign(model="har_events", **{score: 0.75})
    found = summarize_next_bars(pd.concat([har, events]), seed=0)["groups"][0]
    gain = found["gain"]["har_events"]["har"][score]
    assert gain["mean"] == pytest.approx(-0.25 if score.endswith("log_score") else 0.25)
    assert (gain["targets"], gain["dates"]) == (found["targets"], found["dates"]) == (80, 40)


def test_a_gain_on_few_dates_has_no_interval(records: pd.DataFrame) -> None:
    days = np.sort(records["date"].unique())
    for count in (FEWEST_DATES - 1, FEWEST_DATES):
        few = records[records["date"].isin(days[:count])]
        found = summarize_next_bars(few, seed=0)["groups"][0]
        gain = found["gain"]["adapter"]["base"]["return_crps"]
        assert found["dates"] == gain["dates"] == count
        enough = count == FEWEST_DATES
        assert (gain["low"] is not None, gain["high"] is not None) == (enough, enough)


def test_yardsticks_are_scored_as_over_a_whole_span(
    market: Snapshot, series: list[Series], records: pd.DataFrame
) -> None:
    fitted = fit_yardsticks(market, series, first=TRAIN[0], last=TRAIN[1])
    whole = score_yardsticks(fitted, series, first=FOLD[0], last=FOLD[1])
    drawn = records[records["model"].isin(YARDSTICKS)]
    both = drawn.merge(whole, on=["model", "symbol", "date"], suffixes=("", "_whole"), validate="one_to_one")
    assert len(both) == len(drawn) == len(YARDSTICKS) * len(ORIGINS)
    np.testing.assert_allclose(both["range_crps"], both["range_crps_whole"], rtol=1e-12)


def test_kinds_of_day_add_up(records: pd.DataFrame, groups: dict[str, dict[str, Any]]) -> None:
    days = ("tier1", "other_event", "quiet")
    assert sum(groups[day]["targets"] for day in days) == groups["all"]["targets"] == len(ORIGINS)
    tier1 = records[records["tier1"] & (records["model"] == "har")]
    assert groups["tier1"]["targets"] == len(tier1) > 0
    assert groups["tier1"]["models"]["har"]["range_qlike"] == pytest.approx(tier1["range_qlike"].mean())
    assert groups["all"]["models"]["adapter"]["range_log_score"] is None


def test_a_gain_is_positive_where_the_first_is_better(
    records: pd.DataFrame, groups: dict[str, dict[str, Any]]
) -> None:
    frames = {name: frame.reset_index(drop=True) for name, frame in records.groupby("model")}
    gain = groups["all"]["gain"]["adapter"]["base"]["return_crps"]
    assert gain["mean"] == pytest.approx(
        (frames["base"]["return_crps"] - frames["adapter"]["return_crps"]).mean()
    )
    assert gain["low"] <= gain["mean"] <= gain["high"]
    events = groups["tier1"]["gain"]["har_events"]["har"]
    tier1 = frames["har"]["tier1"]
    lead = (frames["har_events"]["range_log_score"] - frames["har"]["range_log_score"])[tier1].mean()
    assert events["range_log_score"]["mean"] == pytest.approx(lead)
    assert events["range_log_score"]["mean"] > 0
    assert groups["all"]["gain"]["adapter"]["har"]["range_log_score"] is None


def test_gains_pair_targets_by_symbol_and_date(
    records: pd.DataFrame, groups: dict[str, dict[str, Any]]
) -> None:
    """A yardstick without some targets is compared on those that both have, in any order of rows."""
    keep = (records["model"] != "garch") | (records["symbol"] == records["symbol"].iloc[0])
    shuffled = records[keep].sample(frac=1, random_state=1)
    found = {one["group"]: one for one in summarize_next_bars(shuffled, seed=0)["groups"]}
    assert found["all"]["gain"]["adapter"]["garch"]["range_crps"]["targets"] == len(ORIGINS) / 2
    mean = groups["all"]["gain"]["adapter"]["har"]["range_crps"]["mean"]
    assert found["all"]["gain"]["adapter"]["har"]["range_crps"]["mean"] == pytest.approx(mean)


def test_classes_are_told_apart_where_there_are_several(records: pd.DataFrame) -> None:
    def counted(found: pd.DataFrame) -> dict[str, int]:
        groups = summarize_next_bars(found, seed=0)["groups"]
        return {one["asset_class"]: one["targets"] for one in groups if one["group"] == "all"}

    early = records["date"] < records["date"].quantile(
        0.25
    )  # fewer than the others, so that none is mistaken
    is_crypto = (records["symbol"] == records["symbol"].iloc[0]) & early
    two = records.assign(asset_class=np.where(is_crypto, "crypto", "us_equity"))
    per_model = len(records) // records["model"].nunique()
    crypto = int(is_crypto.sum()) // records["model"].nunique()
    assert counted(records.assign(asset_class="crypto")) == {"all": per_model}
    assert counted(two) == {"all": per_model, "crypto": crypto, "us_equity": per_model - crypto}


def test_intervals_are_drawn_by_the_seed(records: pd.DataFrame) -> None:
    one, same, other = (summarize_next_bars(records, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one != other
