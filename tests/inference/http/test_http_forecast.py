"""Forecasts over HTTP: what comes back, and that it depends on nothing but what was asked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from kronos_service.data.snapshot.read import Snapshot, series

COLUMNS = ("open", "high", "low", "close", "volume")

Ask = Callable[..., dict[str, Any]]
Serve = Callable[..., AbstractContextManager[TestClient]]


def test_a_symbol_is_forecast_from_its_last_bar(ask: Ask) -> None:
    (series,) = ask()["series"]
    assert series["last_bar"] == "2022-12-30"
    assert series["dates"] == ["2023-01-03", "2023-01-04", "2023-01-05", "2023-01-06"]
    assert series["as_of"] == "2022-12-30T22:00:00Z"
    assert (series["bars_given"], series["bars_used"], series["history_shortened"]) == (503, 68, True)
    assert series["paths"] is None
    assert series["quantiles"].keys() == {"0.1", "0.5", "0.9"}


def test_paths_are_valid_candles_and_mean_and_quantiles_are_theirs(ask: Ask) -> None:
    (series,) = ask(return_paths=True, quantiles=[0.25, 0.5])["series"]
    paths = {name: np.array(series["paths"][name]) for name in COLUMNS}
    assert {values.shape for values in paths.values()} == {(5, 4)}
    body = np.stack([paths["open"], paths["close"]])
    assert (paths["high"] >= body.max(axis=0)).all()
    assert (paths["low"] <= body.min(axis=0)).all()
    assert (paths["volume"] >= 0).all()
    for name in COLUMNS:
        np.testing.assert_allclose(series["mean"][name], paths[name].mean(axis=0))
        for level in ("0.25", "0.5"):
            expected = np.quantile(paths[name], float(level), axis=0)
            np.testing.assert_allclose(series["quantiles"][level][name], expected)


def numbers(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the model computed, without the id of the request."""
    assert answer["model"]["version"] is not None
    return [{name: one[name] for name in ("dates", "mean", "quantiles", "paths")} for one in answer["series"]]


def test_same_seed_and_version_same_numbers_alone_in_company_and_after_a_restart(
    ask: Ask, serve: Serve
) -> None:
    settings = {"return_paths": True}
    alone = numbers(ask(**settings))
    assert numbers(ask(**settings, seed=4)) != alone
    company = [{"symbol": "SYN02"}, {"symbol": "SPY"}, {"symbol": "BTCUSDT"}]
    assert numbers(ask(**settings, series=company))[1] == alone[0]
    with serve(batch_window_ms=300) as other, ThreadPoolExecutor(8) as pool:
        others = [{"series": [{"symbol": "SYN01"}], "seed": seed} for seed in range(7)]
        answers = list(pool.map(lambda body: ask(other, **settings, **body), [{}, *others]))
        ran_together = other.get("/metrics").text
    assert numbers(answers[0]) == alone
    assert 'kronos_batch_requests_bucket{le="4.0"} 0.0' in ran_together


@pytest.mark.parametrize("unit", [1e-9, 1e-5, 1e9])
def test_candles_in_another_unit_are_forecast_alike(ask: Ask, market: Snapshot, unit: float) -> None:
    rows = series(market, "SYN02").iloc[-70:]

    def forecast(price: float, volume: float) -> dict[str, Any]:
        candles = [
            {"ts": str(row["ts"].date()), "volume": float(row["volume"]) * volume}
            | {name: float(row[name]) * price for name in COLUMNS[:4]}
            for _, row in rows.iterrows()
        ]
        one = {"symbol": "mine", "asset_class": "us_equity", "candles": candles}
        (answer,) = ask(series=[one], return_paths=True)["series"]
        paths: dict[str, Any] = answer["paths"]
        return paths

    usual, other = forecast(1, 1), forecast(unit, 1 / unit)
    for name in COLUMNS:
        scale = 1 / unit if name == "volume" else unit
        np.testing.assert_allclose(np.array(other[name]) / scale, usual[name], rtol=1e-6)


def test_at_five_past_four_new_york_is_forecast_without_the_leaders_that_trade_on(
    ask: Ask, serve: Serve
) -> None:
    now = datetime(2022, 12, 20, 21, 5, tzinfo=UTC)
    with serve(now=now) as client:
        (series,) = ask(client)["series"]
    assert series["last_bar"] == "2022-12-20"
    assert series["as_of"] == "2022-12-20T21:05:00Z"
    assert series["dates"][0] == "2022-12-21"
    assert series["missing_leaders"] == [
        {"leader": "DXY", "last_bar": "2022-12-19"},
        {"leader": "VIX", "last_bar": "2022-12-19"},
    ]
    with serve(now=now + timedelta(hours=1)) as client:
        (later,) = ask(client)["series"]
    assert later["missing_leaders"] == []
    assert later["as_of"] == "2022-12-20T22:00:00Z"
    assert later["mean"] != series["mean"]


def test_nothing_is_known_that_came_after_now(ask: Ask, serve: Serve, market: Snapshot) -> None:
    with serve(now=datetime(2022, 6, 15, 12, 0, tzinfo=UTC)) as client:
        (series,) = ask(client)["series"]
        known = client.app.state.service.refresher.current()  # type: ignore[attr-defined]
    assert series["last_bar"] == "2022-06-14"
    assert max(frame["ts"].max() for frame in known.bars.values()).date() <= date(2022, 6, 14)
    released = known.calendar["release_at"] <= pd.Timestamp("2022-06-15 12:00", tz="UTC")
    assert known.calendar.loc[released, "actual"].notna().any()
    assert known.calendar.loc[~released, "actual"].isna().all()
    assert market.calendar.loc[market.calendar["release_at"] > "2022-06-16", "actual"].notna().any()


def test_events_on_the_forecast_bars_are_listed_with_the_sessions_they_fall_on(
    ask: Ask, market: Snapshot
) -> None:
    (series,) = ask(horizon=8)["series"]
    listed = [(event["date"], event["event_type"]) for event in series["events"]]
    window = market.calendar[
        (market.calendar["release_at"] >= pd.Timestamp("2022-12-30 21:00", tz="UTC"))
        & (market.calendar["release_at"] < pd.Timestamp("2023-01-12 21:00", tz="UTC"))
    ]
    # every release of the sample comes before the close of its own New York day
    expected = zip(window["release_at"].dt.strftime("%Y-%m-%d"), window["event_type"], strict=True)
    assert sorted(listed) == sorted(expected)
    assert ("2023-01-11", "cpi") in listed


def test_a_supposed_surprise_moves_the_bars_after_its_release_and_no_other(ask: Ask) -> None:
    (series,) = ask(horizon=8, return_paths=True, paths=8)["series"]
    event = next(one for one in series["events"] if one["date"] in series["dates"][1:6])
    bar = series["dates"].index(event["date"])
    surprise = {"date": event["date"], "event_type": event["event_type"], "z": 2.0}
    (moved,) = ask(horizon=8, return_paths=True, paths=8, scenario={"surprises": [surprise]})["series"]
    before, after = np.array(series["paths"]["close"]), np.array(moved["paths"]["close"])
    np.testing.assert_allclose(after[:, : bar + 1], before[:, : bar + 1], rtol=1e-6)
    assert not np.allclose(after[:, bar + 1], before[:, bar + 1], rtol=1e-6)


def refused(client: TestClient, **changes: Any) -> list[dict[str, str]]:
    body = {"series": [{"symbol": "SPY"}], "horizon": 8, "paths": 2} | changes
    answer = client.post("/v1/forecast", json=body)
    assert answer.status_code == 422, answer.text
    faults: list[dict[str, str]] = answer.json()["error"]["fields"]
    return faults


def test_suppositions_that_cannot_be_are_refused(client: TestClient, ask: Ask) -> None:
    (series,) = ask(horizon=8)["series"]
    event = series["events"][-1]
    last = len(series["dates"][: series["dates"].index(event["date"]) + 1])
    surprise = {"date": event["date"], "event_type": event["event_type"], "z": 1.0}
    # the horizon ends on the bar of the release: nothing comes after it
    (fault,) = refused(client, horizon=last, scenario={"surprises": [surprise]})
    assert fault["field"] == "scenario"
    assert "before the last forecast bar" in fault["message"]
    (fault,) = refused(client, scenario={"surprises": [surprise | {"date": "2023-01-07"}]})
    assert fault["field"] == "scenario.surprises.0.date"
    (fault,) = refused(client, scenario={"surprises": [surprise | {"event_type": "rain"}]})
    assert fault["field"] == "scenario.surprises.0.event_type"
    (fault,) = refused(client, scenario={"surprises": [surprise | {"z": 5.5}]})
    assert fault["field"] == "scenario.surprises.0.z"
    move = {"leader": "VIX", "date": series["dates"][0], "z": 2.0}
    (fault,) = refused(client, scenario={"leaders": [move, move]})
    assert fault["field"] == "scenario.leaders.1.date"
    new_year = move | {"date": "2022-12-31"}
    weekend = {"series": [{"symbol": "BTCUSDT"}], "scenario": {"leaders": [new_year]}}
    (fault,) = refused(client, **weekend)
    assert fault["field"] == "scenario.leaders.0.date"
    assert fault["message"] == "VIX does not trade on 2022-12-31: expected a session of index"
    trades = {"leaders": [new_year | {"leader": "BTCUSDT"}]}
    ask(series=[{"symbol": "BTCUSDT"}], scenario=trades)
    (fault,) = refused(client, scenario={"leaders": [move | {"leader": "GOLD"}]})
    assert fault["field"] == "scenario.leaders.0.leader"


def test_a_supposed_move_of_a_leader_moves_the_bars_after_it(ask: Ask) -> None:
    (series,) = ask(return_paths=True)["series"]
    move = {"leader": "VIX", "date": series["dates"][1], "z": 4.0}
    (moved,) = ask(return_paths=True, scenario={"leaders": [move]})["series"]
    before, after = np.array(series["paths"]["close"]), np.array(moved["paths"]["close"])
    np.testing.assert_allclose(after[:, :2], before[:, :2], rtol=1e-6)
    assert not np.allclose(after[:, 2], before[:, 2], rtol=1e-6)


def test_an_inline_calendar_takes_the_place_of_the_own_one(ask: Ask) -> None:
    event = {
        "event_id": "mine",
        "event_type": "gdp",
        "impact": "high",
        "release_at": "2023-01-04T13:30:00Z",
    }
    calendar = {"events": [event], "complete_until": "2023-02-01"}
    (own,), (quiet,), (other,) = (
        ask(**changes)["series"]
        for changes in ({}, {"calendar": calendar | {"events": []}}, {"calendar": calendar})
    )
    assert quiet["events"] == []
    assert [(one["date"], one["event_type"]) for one in other["events"]] == [("2023-01-04", "gdp")]
    assert other["calendar_until"] == "2023-02-01"
    assert len({str(one["mean"]) for one in (own, quiet, other)}) == 3


def test_the_plain_base_forecasts_without_events_and_refuses_to_suppose_any(
    ask: Ask, serve: Serve, tmp_path: Path
) -> None:
    with serve(adapters=tmp_path / "none", allow_base_only=True) as base:
        answer = ask(base)
        assert answer["model"] | {"base_digest": ""} == {
            "version": None,
            "digest": None,
            "generation": None,
            "base": "tiny",
            "base_digest": "",
            "synthetic": False,
        }
        assert answer["series"][0]["events"]
        assert answer["series"][0]["mean"] != ask()["series"][0]["mean"]
        (fault,) = refused(base, scenario={"surprises": []})
    assert fault["field"] == "scenario"


def test_the_adapter_that_ships_answers_and_says_synthetic(ask: Ask, serve: Serve) -> None:
    with serve(adapters="sample", base_model=None) as client:
        answer = ask(client)
        assert answer["model"]["synthetic"] is True
        assert client.get("/v1/model").json()["serving"]["synthetic"] is True
    assert ask()["model"]["synthetic"] is False


def test_gaps_of_the_source_are_named_and_its_bad_bars_left_out(
    ask: Ask, serve: Serve, market: Snapshot, tmp_path: Path
) -> None:
    bars = market.bars.copy()
    spy = bars.index[bars["symbol"] == "SPY"]
    bars.loc[spy[-10], "high"] = 1e-3
    kept = bars.drop(index=spy[-20])
    for name, table in (
        ("ohlcv_1d", kept),
        ("symbols", market.symbols),
        ("economic_calendar", market.calendar),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
    with serve(snapshot=tmp_path) as client:
        (series,) = ask(client)["series"]
        source = client.get("/v1/model").json()["source"]
    assert series["missing_sessions"] == [str(bars.loc[spy[at], "ts"].date()) for at in (-20, -10)]
    assert source["bad_bars"] == 1
