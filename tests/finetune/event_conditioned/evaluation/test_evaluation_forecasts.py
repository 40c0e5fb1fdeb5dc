"""Forecasts of a split: which origins, by which inputs, against which baselines, and what is averaged."""

from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import EventEncoder
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation.event_day import event_day
from kronos_service.finetune.event_conditioned.evaluation.event_study import event_study
from kronos_service.finetune.event_conditioned.evaluation.forecasts import (
    Forecasts,
    forecast_split,
)
from kronos_service.finetune.event_conditioned.evaluation.next_bar import summarize_next_bars
from kronos_service.finetune.event_conditioned.evaluation.origins import (
    Origin,
    draw_origins,
    possible_origins,
)
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import (
    PathSettings,
    prepare_origins,
    sample_bars,
)
from kronos_service.finetune.event_conditioned.evaluation.scored_forecasts import (
    MODELS,
    Targets,
    find_targets,
    score_forecasts,
)
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES, summarize_forecasts
from kronos_service.finetune.event_conditioned.evaluation.yardsticks import (
    YARDSTICKS,
    fit_yardsticks,
    score_yardsticks,
)
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series
from kronos_service.finetune.event_conditioned.samples.splits import SplitError, Splits
from kronos_service.finetune.event_conditioned.training.lora import adapt
from kronos_service.model.adapter.read import kronos_of
from kronos_service.model.factory import Bundle
from kronos_service.model.generation.inputs import forecast_prices
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_manifest import DAY_KINDS, LoraRecord, RecalibrationRecord
from kronos_shared.columns import CLOSE, HIGH, LOW
from kronos_shared.normalization import MIN_HISTORY

FIRST, LAST = np.datetime64("2022-06-01"), np.datetime64("2022-09-30")
FAR = np.datetime64("2030-01-01")
SETTINGS = PathSettings(horizon=3, paths=20, context=72, sampling=Sampling(top_p=1.0), seed=5)


FACTORS = (1.5, 0.5, 1.0)
TABLE = RecalibrationRecord(
    level=0.8,
    factors=dict.fromkeys(DAY_KINDS, FACTORS),
    forecasts=dict.fromkeys(DAY_KINDS, (40, 40, 40)),
    dates=dict.fromkeys(DAY_KINDS, (20, 20, 20)),
    first="2022-06-01",
    last="2022-09-30",
    paths=64,
)


@pytest.fixture(scope="module")
def series(market: Snapshot) -> list[Series]:
    return build_series(market)


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int]]:
    """What `forecasts` tells of its progress."""
    return []


@pytest.fixture(scope="module")
def forecasts(market: Snapshot, splits: Splits, bundle: Bundle, told: list[tuple[int, int]]) -> Forecasts:
    """By an adapter whose taps were moved off zero, so that events matter to it."""
    torch.manual_seed(1)
    model = kronos_of(
        adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    ).eval()
    assert model.event_emb is not None
    for parameter in model.event_emb.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    train = splits.splits["train"]
    return forecast_split(
        market,
        splits,
        "val",
        (train.first, train.last),
        bundle,
        model,
        origins=24,
        settings=SETTINGS,
        recalibration=TABLE,
        advance=lambda done, total: told.append((done, total)),
    )


def origins_of(series: list[Series], **changes: Any) -> list[Origin]:
    arguments: dict[str, Any] = {"first": FIRST, "last": LAST, "calendar_covers": FAR, "horizon": 3}
    return possible_origins(series, **(arguments | changes))


def test_every_target_of_every_origin_is_in_the_split(series: list[Series]) -> None:
    found = origins_of(series)
    for one in found:
        dates = series[one.series].dates
        assert dates[one.bar + 1] >= FIRST
        assert dates[one.bar + 3] <= LAST
    early = origins_of(series, last=np.datetime64("2022-09-29"))  # a Thursday
    assert max(series[one.series].dates[one.bar + 3] for one in early) == np.datetime64("2022-09-29")
    days = (series[0].dates >= FIRST) & (series[0].dates <= LAST)
    assert len(found) == len(series) * (days.sum() - 2)


def test_origins_need_history_a_calendar_and_no_gap_ahead(series: list[Series]) -> None:
    early = origins_of(series, first=np.datetime64("2020-01-01"))
    assert min(one.bar for one in early) == MIN_HISTORY - 1
    covered = origins_of(series, calendar_covers=np.datetime64("2022-07-01"))
    assert max(series[o.series].dates[o.bar + 3] for o in covered) == np.datetime64("2022-07-01")
    gap = replace(series[0], follows=series[0].follows.copy())
    bar = int(np.searchsorted(gap.dates, np.datetime64("2022-08-01")))
    gap.follows[bar] = False
    lost = {o.bar for o in origins_of([series[0]])} - {o.bar for o in origins_of([gap])}
    assert lost == {bar - 1, bar - 2, bar - 3}


def test_the_draw_keeps_the_share_of_event_days_and_repeats_by_its_seed(series: list[Series]) -> None:
    possible = origins_of(series)
    event = [bool(series[o.series].is_event[o.bar + 1]) for o in possible]
    drawn = draw_origins(series, possible, 60, seed=1)
    share = np.mean([series[o.series].is_event[o.bar + 1] for o in drawn])
    assert len(set(drawn)) == 60
    assert share == pytest.approx(np.mean(event), abs=1 / 60)
    assert drawn == draw_origins(series, possible, 60, seed=1)
    assert drawn != draw_origins(series, possible, 60, seed=2)
    assert draw_origins(series, possible, 10**6, seed=1) == possible
    with pytest.raises(SplitError, match="lower --horizon"):
        draw_origins(series, [], 5, seed=0)


def test_inputs_end_at_the_origin(market: Snapshot, series: list[Series]) -> None:
    """The market is cut off after the origin, for the symbol and for every leader."""
    origin = Origin(series=2, bar=400)
    (whole,) = prepare_origins(market, series, [origin], SETTINGS, EventEncoder())
    last = pd.Timestamp(series[2].dates[400], tz="UTC")
    cut = replace(market, bars=market.bars[market.bars["ts"] <= last])
    (known,) = prepare_origins(cut, series, [origin], SETTINGS, EventEncoder())
    for name in ("x", "stamps", "future_stamps", "events"):
        assert torch.equal(getattr(whole.history, name), getattr(known.history, name)), name
    assert len(whole.history.x) == SETTINGS.context - SETTINGS.horizon
    assert whole.last_close == series[2].features[400, 3]


def test_models_that_are_alike_forecast_alike_and_an_untrained_adapter_is_its_base(
    market: Snapshot, series: list[Series], bundle: Bundle
) -> None:
    """All draw with the same random numbers, whichever other origins there are."""
    origins = [Origin(series=s, bar=b) for s, b in ((0, 300), (1, 350), (3, 380))]
    prepared = prepare_origins(market, series, origins, SETTINGS, bundle.event_encoder)
    untrained = kronos_of(
        adapt(bundle.model, lora=LoraRecord(rank=2, alpha=4, dropout=0.0), taps="both", seed=0)
    ).eval()
    base = sample_bars(bundle.tokenizer, bundle.model, prepared, SETTINGS, events="none")
    assert base.closes.shape == (3, SETTINGS.paths, SETTINGS.horizon)
    assert base.log_range.shape == (3, SETTINGS.paths)
    for events in ("known", "zeroed"):
        same = sample_bars(bundle.tokenizer, untrained, prepared, SETTINGS, events=events)
        np.testing.assert_array_equal(same.closes, base.closes)
        np.testing.assert_array_equal(same.log_range, base.log_range)
    alone = sample_bars(
        bundle.tokenizer,
        bundle.model,
        prepare_origins(market, series, origins[1:2], SETTINGS, bundle.event_encoder),
        SETTINGS,
        events="none",
    )
    np.testing.assert_allclose(alone.closes[0], base.closes[1], rtol=1e-9)
    np.testing.assert_allclose(alone.log_range[0], base.log_range[1], rtol=1e-6)


def test_bars_are_those_that_the_served_code_forecasts(
    market: Snapshot, series: list[Series], bundle: Bundle
) -> None:
    """More origins than are generated together; the range is the first bar's, and settings are obeyed."""
    origins = [Origin(series=number % 4, bar=300 + number) for number in range(9)]
    settings = PathSettings(
        horizon=2, paths=5, context=70, sampling=Sampling(temperature=0.7, top_p=0.9), seed=3
    )
    prepared = prepare_origins(market, series, origins, settings, bundle.event_encoder)
    done: list[int] = []
    found = sample_bars(
        bundle.tokenizer, bundle.model, prepared, settings, events="none", advance=done.append
    )
    assert sum(done) == len(origins)
    for number in (0, 8):
        (prices,) = forecast_prices(
            bundle.tokenizer,
            bundle.model,
            [prepared[number].shown("none")],
            horizon=2,
            paths=5,
            sampling=settings.sampling,
            context=70,
        )
        last = series[number % 4].features[300 + number, CLOSE]
        high, low = np.maximum(prices[:, 0, HIGH], last), np.minimum(prices[:, 0, LOW], last)
        np.testing.assert_allclose(found.closes[number], prices[..., CLOSE], rtol=1e-9)
        np.testing.assert_allclose(found.log_range[number], np.log(np.log(high / low)), rtol=1e-6)


def test_hourly_histories_are_prepared_as_hourly_ones(hourly: Snapshot, bundle: Bundle) -> None:
    series = build_series(hourly)
    (prepared,) = prepare_origins(hourly, series, [Origin(series=0, bar=500)], SETTINGS, bundle.event_encoder)
    stamps = series[0].stamps[500 - len(prepared.history.x) + 1 : 501]
    assert (prepared.history.stamps.numpy() == stamps).all()
    assert (prepared.history.future_stamps.numpy() == series[0].stamps[501:504]).all()


def test_outcomes_and_volatility_by_hand(series: list[Series]) -> None:
    targets = find_targets(series, [Origin(series=1, bar=200)], 3)
    close = series[1].features[:, 3]
    np.testing.assert_allclose(targets.outcome[0], np.log(close[201:204] / close[200]))
    assert targets.volatility[0] == pytest.approx(np.diff(np.log(close[180:201])).std(ddof=1))
    assert targets.bars.tolist() == [[201, 202, 203]]


def test_baselines_by_hand(series: list[Series]) -> None:
    """Persistence is off by the return itself; the random walk spreads with the root of time."""
    targets = find_targets(series, [Origin(series=1, bar=200)], 3)
    records = score_forecasts(series, targets, {}, seed=0)
    still, walk = (records[records["model"] == name] for name in ("persistence", "random_walk"))
    np.testing.assert_allclose(still["crps"], np.abs(targets.outcome[0]))
    assert still["inside_90"].isna().all()
    sigma = targets.volatility[0] * np.array([1, sqrt(2), sqrt(3)])
    np.testing.assert_allclose(walk["spread"], sigma)
    np.testing.assert_allclose(walk["q90"], sigma * NormalDist().inv_cdf(0.9))
    assert walk["hit"].isna().all()
    np.testing.assert_allclose(walk["bar_spread"], 1.0)
    np.testing.assert_allclose(
        walk["bar_move"], np.diff(targets.outcome[0], prepend=0.0) / targets.volatility[0]
    )


def test_samples_are_scored_as_log_returns_from_the_origin(series: list[Series]) -> None:
    """Paths that end at e times the close have a return of exactly 1, whatever the price."""
    targets = find_targets(series, [Origin(series=0, bar=200), Origin(series=1, bar=210)], 1)
    last = np.array([series[0].features[200, 3], series[1].features[210, 3]])
    closes = np.exp(np.linspace(-1, 1, 21))[None, :, None] * last[:, None, None]
    records = score_forecasts(series, targets, {"base": closes}, seed=0)
    mine = records[records["model"] == "base"]
    np.testing.assert_allclose(mine["q50"], 0.0, atol=1e-12)
    np.testing.assert_allclose(mine["spread"], np.linspace(-1, 1, 21).std(ddof=1))
    np.testing.assert_allclose(mine["bar_spread"], mine["spread"] / targets.volatility)


def test_pits_are_drawn_by_the_seed_and_a_model_that_is_missing_hides_no_other(series: list[Series]) -> None:
    targets = find_targets(series, [Origin(series=0, bar=200)], 2)
    closes = np.exp(np.linspace(-1, 1, 21))[None, :, None].repeat(2, axis=2) * series[0].features[200, 3]
    one, same, other = (
        score_forecasts(series, targets, {"adapter": closes}, seed=seed) for seed in (0, 0, 1)
    )
    assert one["model"].tolist() == [name for name in ("persistence", "random_walk", "adapter") for _ in "12"]
    assert one.index.tolist() == list(range(6))
    assert one.equals(same)
    pits = [found[found["model"] == "adapter"]["pit"].tolist() for found in (one, other)]
    assert pits[0] != pits[1]


def test_figures_say_how_they_were_made(
    forecasts: Forecasts, splits: Splits, told: list[tuple[int, int]]
) -> None:
    figures, train = forecasts.figures, splits.splits["train"]
    assert (figures["split"], figures["first"], figures["last"]) == ("val", str(FIRST), str(LAST))
    possible = possible_origins(splits.series, first=FIRST, last=LAST, calendar_covers=FAR, horizon=3)
    assert (figures["origins"], figures["possible_origins"]) == (24, len(possible))
    assert figures["settings"] == asdict(SETTINGS)
    assert figures["next_bar"]["fitted_on"] == [str(train.first), str(train.last)]
    assert isinstance(figures["next_bar"]["not_measured"], dict)
    assert figures["event_study"] == event_study(forecasts.records, splits.series)
    assert figures["event_day"] == event_day(forecasts.records, splits.series)
    again = summarize_next_bars(forecasts.next_bar, seed=SETTINGS.seed)
    assert again == {"groups": figures["next_bar"]["groups"]}
    assert set(forecasts.next_bar["model"]) >= set(YARDSTICKS) | {"base", "zeroed", "adapter", "recalibrated"}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[0][0] < told[-1][0] == 4 * 24
    assert {total for _, total in told} == {4 * 24}


def test_the_yardsticks_are_fitted_on_the_training_dates(
    market: Snapshot, forecasts: Forecasts, splits: Splits
) -> None:
    train = splits.splits["train"]
    fitted = fit_yardsticks(market, splits.series, first=train.first, last=train.last)
    whole = score_yardsticks(fitted, splits.series, first=FIRST, last=LAST)
    both = forecasts.next_bar.merge(whole, on=["model", "symbol", "date"], suffixes=("", "_whole"))
    assert len(both) == len(YARDSTICKS) * 24
    np.testing.assert_allclose(both["range_crps"], both["range_crps_whole"], rtol=1e-12)


def test_each_model_has_a_row_per_origin_and_bar(forecasts: Forecasts, splits: Splits) -> None:
    records = forecasts.records
    assert set(records["model"]) == set(MODELS)
    assert len(records) == len(MODELS) * 24 * 3
    assert not records.duplicated(["model", "symbol", "origin", "step"]).any()
    dates = records["date"].to_numpy().astype("datetime64[D]")
    assert dates.min() >= splits.splits["val"].first
    assert dates.max() <= splits.splits["val"].last
    adapter = records[records["model"] == "adapter"]["crps"].to_numpy()
    assert not np.array_equal(adapter, records[records["model"] == "zeroed"]["crps"].to_numpy())
    assert not np.array_equal(adapter, records[records["model"] == "base"]["crps"].to_numpy())


def test_counts_of_the_breakdown_add_up(forecasts: Forecasts) -> None:
    groups = forecasts.figures["groups"]
    for steps, expected in (("1", 24), ("all", 72)):
        chosen = [one for one in groups if one["steps"] == steps]
        for by in ("all", "day", "asset_class", "month"):
            assert sum(one["targets"] for one in chosen if one["by"] == by) == expected
        everything = next(one for one in chosen if one["by"] == "all")
        for part in ("day", "month"):
            weighted = sum(
                one["targets"] * one["models"]["adapter"]["crps"] for one in chosen if one["by"] == part
            )
            assert weighted / expected == pytest.approx(everything["models"]["adapter"]["crps"])


def test_means_and_gains_are_those_of_the_records(forecasts: Forecasts) -> None:
    records = forecasts.records
    group = next(
        one for one in forecasts.figures["groups"] if (one["group"], one["steps"]) == ("event", "all")
    )
    mine = records[records["is_event"]]
    base, adapter = (mine[mine["model"] == name].reset_index() for name in ("base", "adapter"))
    assert group["targets"] == len(base) > 0
    assert group["models"]["base"]["inside_80"] == pytest.approx(base["inside_80"].mean())
    gain = group["gain"]["base"]
    assert gain["crps"] == pytest.approx((base["crps"] - adapter["crps"]).mean())
    assert gain["percent"] == pytest.approx(100 * gain["crps"] / base["crps"].mean())
    assert gain["low"] is None or gain["low"] <= gain["crps"] <= gain["high"]
    families = {one["group"] for one in forecasts.figures["groups"] if one["by"] == "family"}
    assert families == {name for name in DEFAULT_TAXONOMY.families if mine[name].any()}


def test_few_dates_give_no_interval_and_no_model_gives_no_hit_to_persistence(forecasts: Forecasts) -> None:
    """Blocks of the three bars that forecasts overlap: nine dates make three of them."""
    for one in forecasts.figures["groups"]:
        known = one["gain"]["base"]["low"] is not None
        assert known == (one["dates"] >= (FEWEST_DATES if one["steps"] == "1" else 9))
        assert one["models"]["persistence"]["hit"] is None


def test_the_recalibrated_model_is_the_adapter_with_other_widths(forecasts: Forecasts) -> None:
    adapter, recalibrated = (
        forecasts.records[forecasts.records["model"] == name].reset_index(drop=True)
        for name in ("adapter", "recalibrated")
    )
    factors = np.array(FACTORS)[adapter["step"] - 1]
    np.testing.assert_allclose(recalibrated["spread"], factors * adapter["spread"], rtol=1e-9)
    np.testing.assert_allclose(recalibrated["q50"], adapter["q50"], atol=1e-12)
    same = adapter["step"] == 3
    np.testing.assert_array_equal(recalibrated["crps"][same], adapter["crps"][same])
    assert (recalibrated["crps"][~same] != adapter["crps"][~same]).all()
    all_bars = next(one for one in forecasts.figures["groups"] if (one["by"], one["steps"]) == ("all", "all"))
    gain = (recalibrated["crps"] - adapter["crps"]).mean()
    assert all_bars["gain"]["recalibrated"]["crps"] == pytest.approx(gain)


def test_calibration_counts_the_first_bar(forecasts: Forecasts) -> None:
    calibration = forecasts.figures["calibration"]
    assert set(calibration) == set(MODELS) - {"persistence"}
    for one in calibration.values():
        assert sum(one["pit"]) == one["targets"] == 24
        assert list(one["below"].values()) == sorted(one["below"].values())


def hand_made_study(series: list[Series]) -> tuple[pd.DataFrame, list[Series]]:
    """One symbol, forecast bars 201 to 206, a single cpi event on bar 203."""
    families = np.zeros_like(series[0].families)
    families[203, DEFAULT_TAXONOMY.families.index("cpi")] = True
    one = replace(series[0], families=families)
    targets: Targets = find_targets([one], [Origin(series=0, bar=200)], 6)
    return score_forecasts([one], targets, {}, seed=0), [one]


def test_the_event_study_finds_bars_by_their_distance_from_the_event(series: list[Series]) -> None:
    records, marked = hand_made_study(series)
    study = event_study(records, marked)
    assert set(study) == {"cpi"}
    assert sorted(map(int, study["cpi"])) == [-2, -1, 0, 1, 2, 3]
    walk = records[records["model"] == "random_walk"]
    moves = dict(zip(walk["bar"].tolist(), walk["bar_move"].tolist(), strict=True))
    for offset, found in study["cpi"].items():
        assert found["targets"] == 1
        assert found["realised"] == pytest.approx(abs(moves[203 + int(offset)]))
        assert found["models"] == {"random_walk": pytest.approx(1.0)}


def test_an_event_has_seven_bars_around_it_and_none_beyond_the_series(series: list[Series]) -> None:
    """Releases on the first and the last bar of a series, and on one in the middle, of another family."""
    families = np.zeros((20, len(DEFAULT_TAXONOMY.families)), dtype=np.bool_)
    cpi, nfp = (DEFAULT_TAXONOMY.families.index(name) for name in ("cpi", "nfp"))
    families[[0, 19], cpi] = True
    families[9, nfp] = True
    rows = pd.DataFrame({"series": 0, "bar": range(20), "bar_move": np.arange(20.0), "bar_spread": 2.0})
    records = pd.concat([rows.assign(model=name) for name in ("adapter", "persistence")], ignore_index=True)
    study = event_study(records, [replace(series[0], families=families), series[1]])
    assert set(study) == {"cpi", "nfp"}
    assert list(study["nfp"]) == ["-3", "-2", "-1", "0", "1", "2", "3"]
    for offset, found in study["nfp"].items():
        assert found == {"targets": 1, "realised": 9.0 + int(offset), "models": {"adapter": 2.0}}
    counts = {offset: found["targets"] for offset, found in study["cpi"].items()}
    assert counts == {"-3": 1, "-2": 1, "-1": 1, "0": 2, "1": 1, "2": 1, "3": 1}
    assert study["cpi"]["0"]["realised"] == pytest.approx(sqrt(19**2 / 2))


def test_the_records_give_the_same_summary_after_a_round_trip_through_their_file(
    forecasts: Forecasts, tmp_path: Path
) -> None:
    forecasts.records.to_parquet(tmp_path / "records.parquet", index=False)
    again = summarize_forecasts(
        pd.read_parquet(tmp_path / "records.parquet"), DEFAULT_TAXONOMY, seed=SETTINGS.seed
    )
    assert again == {key: forecasts.figures[key] for key in again}
