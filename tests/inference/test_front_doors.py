"""The Python front door, POST /v1/forecast and the forecast command give the same numbers to the bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from kronos_service import KronosEvents
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.inference.forecast.command import forecast
from kronos_service.inference.forecast.rows import TARGETS
from kronos_service.inference.settings import ForecastConfig

Numbers = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
LEVELS = (0.05, 0.5, 0.75)
PPI, CPI = date(2023, 1, 4), date(2023, 1, 11)
"""Of the small market, after its last bar."""


@dataclass(frozen=True)
class Doors:
    """One adapter on one market, behind three doors."""

    model: KronosEvents
    client: TestClient
    market: Snapshot
    config: Mapping[str, Any]


@pytest.fixture(scope="module")
def doors(client: TestClient, store: Path, base_path: Path, market: Snapshot, market_path: Path) -> Doors:
    model = KronosEvents.from_adapter(store, base_model=str(base_path))
    config = {"adapter": store, "base_model": str(base_path), "snapshot": market_path}
    return Doors(model, client, market, config)


@dataclass(frozen=True)
class Case:
    """What is asked at each door."""

    symbols: Sequence[str]
    horizon: int
    paths: int
    seed: int
    z: float
    supposed: tuple[str, date] | None
    """An event type or a leader, and its date."""

    @property
    def texts(self) -> list[str] | None:
        return None if self.supposed is None else [f"{self.supposed[0]} {self.z} {self.supposed[1]}"]

    @property
    def body(self) -> dict[str, Any] | None:
        if self.supposed is None:
            return None
        name, day = self.supposed
        one = {"date": str(day), "z": self.z}
        if name.isupper():
            return {"leaders": [one | {"leader": name}]}
        return {"surprises": [one | {"event_type": name}]}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    horizon = draw(st.integers(1, 8))
    possible: list[tuple[str, date] | None] = [None]
    if horizon > 1:  # what is supposed moves the bars after it
        possible += [("SPY", date(2023, 1, 3)), ("VIX", date(2023, 1, 3))]
    if horizon > 2:
        possible.append(("ppi", PPI))
    if horizon == 8:
        possible.append(("cpi", CPI))
    supposed = draw(st.sampled_from(possible))
    # the other markets have bars between the last one and New York's next, so their horizons end earlier
    names = ["SPY", "SYN01", "SYN03", *(["DXY", "BTCUSDT"] if supposed is None else [])]
    return Case(
        symbols=draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)),
        horizon=horizon,
        paths=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**40)),
        z=draw(st.sampled_from([-3.5, 0.5, 2.0])),
        supposed=supposed,
    )


def by_frame(doors: Doors, case: Case) -> list[tuple[Numbers, pd.DataFrame]]:
    """Quantiles (3, H) of each target, and the dates, for each symbol."""
    bars = doors.market.bars
    out = doors.model.predict_df(
        pd.concat([bars[bars["symbol"] == symbol] for symbol in case.symbols]),
        events=doors.market.calendar,
        leaders=bars,
        horizon=case.horizon,
        quantile_levels=LEVELS,
        paths=case.paths,
        seed=case.seed,
        scenario=case.texts,
    )
    assert list(out["symbol"].unique()) == list(case.symbols)
    found: list[tuple[Numbers, pd.DataFrame]] = []
    for symbol in case.symbols:
        rows = out[out["symbol"] == symbol]
        numbers = {
            name: rows[rows["target_name"] == name][[str(level) for level in LEVELS]].to_numpy().T
            for name in TARGETS
        }
        found.append((numbers, rows[rows["target_name"] == "open"]))
    return found


def by_http(doors: Doors, case: Case) -> list[dict[str, Any]]:
    body = {
        "series": [{"symbol": symbol} for symbol in case.symbols],
        "horizon": case.horizon,
        "paths": case.paths,
        "seed": case.seed,
        "quantiles": LEVELS,
        "scenario": case.body,
    }
    answer = doors.client.post("/v1/forecast", json=body)
    assert answer.status_code == 200, answer.text
    series: list[dict[str, Any]] = answer.json()["series"]
    return series


def by_command(doors: Doors, case: Case, symbol: str) -> Numbers:
    config = ForecastConfig(
        symbol=symbol,
        horizon=case.horizon,
        paths=case.paths,
        seed=case.seed,
        scenario=tuple(case.texts or ()),
        **doors.config,
    )
    bands = forecast(config, Console(file=StringIO())).bands
    return {"base": bands[0].closes, "adapter": bands[-1].closes}


def compare(doors: Doors, case: Case) -> None:
    frames, answers = by_frame(doors, case), by_http(doors, case)
    for (numbers, rows), answer in zip(frames, answers, strict=True):
        assert [str(day.date()) for day in rows["ts"]] == answer["dates"]
        for name in TARGETS:
            served = np.array([answer["quantiles"][str(level)][name] for level in LEVELS])
            np.testing.assert_array_equal(numbers[name], served)
    # the command reads snapshot and adapter again each time: one symbol
    shown = np.quantile(by_command(doors, case, case.symbols[0])["adapter"], LEVELS, axis=0)
    np.testing.assert_array_equal(frames[0][0]["close"], shown)


@settings(max_examples=6)
@given(case=cases())
def test_three_doors_give_the_same_numbers(doors: Doors, case: Case) -> None:
    compare(doors, case)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=100)
@given(case=cases())
def test_three_doors_give_the_same_numbers_for_many_requests(doors: Doors, case: Case) -> None:
    compare(doors, case)


def test_the_base_alone_is_the_command_s_base(doors: Doors) -> None:
    bars = doors.market.bars[doors.market.bars["symbol"] == "SYN02"]
    case = Case(symbols=["SYN02"], horizon=5, paths=7, seed=11, z=0.0, supposed=None)
    out = doors.model.predict_df(bars, horizon=5, paths=7, seed=11, quantile_levels=[0.3], base_only=True)
    expected = np.quantile(by_command(doors, case, "SYN02")["base"], 0.3, axis=0)
    np.testing.assert_array_equal(out[out["target_name"] == "close"]["0.3"], expected)
    assert out.attrs["version"] is None


def test_what_the_answer_says_of_itself_is_the_same(doors: Doors) -> None:
    bars = doors.market.bars[doors.market.bars["symbol"] == "SPY"]
    out = doors.model.predict_df(bars, events=doors.market.calendar, leaders=doors.market.bars)
    body = {"series": [{"symbol": "SPY"}], "horizon": 5}
    answer = doors.client.post("/v1/forecast", json=body).json()
    assert (out.attrs["version"], out.attrs["digest"]) == (
        answer["model"]["version"],
        answer["model"]["digest"],
    )
    assert out.attrs["as_of"]["SPY"] == answer["series"][0]["as_of"]
    assert out.attrs["missing_leaders"]["SPY"] == answer["series"][0]["missing_leaders"] == []
