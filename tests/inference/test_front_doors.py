"""The Python front door, POST /v1/forecast and the forecast command give the same numbers to the bit."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from kronos_service import KronosEvents
from kronos_service.data.forecasts import read_about
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.inference.forecast.command import forecast
from kronos_service.inference.forecast.rows import TARGETS
from kronos_service.inference.nightly.command import forecast_all
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.settings import ForecastConfig
from kronos_shared.adapter_manifest import DAY_KINDS, MANIFEST, AdapterManifest, RecalibrationRecord
from kronos_shared.adapter_store import publish

Serve = Callable[..., AbstractContextManager[TestClient]]
Numbers = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
LEVELS = (0.05, 0.5, 0.75)
AFTER = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)
"""The present of the service of these tests."""
PPI, CPI = date(2023, 1, 4), date(2023, 1, 11)
"""Of the small market, after its last bar."""


@dataclass(frozen=True)
class Doors:
    """One adapter on one market, behind three doors."""

    model: KronosEvents
    client: TestClient
    market: Snapshot
    config: Mapping[str, Any]


TABLE = RecalibrationRecord(
    level=0.8,
    factors={"tier1": (2.0, 2.5, 1.75), "other_event": (1.5, 1.25, 1.125), "quiet": (0.75, 1.0, 1.25)},
    forecasts=dict.fromkeys(DAY_KINDS, (40, 40, 40)),
    dates=dict.fromkeys(DAY_KINDS, (20, 20, 20)),
    first="2022-06-01",
    last="2022-09-30",
    paths=64,
)


@pytest.fixture(scope="module")
def recalibrated(adapter_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the adapter of the common one, and width factors in its manifest."""
    directory = tmp_path_factory.mktemp("recalibrated")
    adapter = shutil.copytree(adapter_of(1), directory / "adapter")
    manifest = AdapterManifest.from_bytes((adapter / MANIFEST).read_bytes())
    changed = manifest.model_copy(update={"recalibration": TABLE})
    (adapter / MANIFEST).write_bytes(changed.to_bytes())
    publish(adapter, directory / "store", keep=5)
    return directory / "store"


@pytest.fixture(scope="module")
def doors(
    serve: Serve, recalibrated: Path, base_path: Path, market: Snapshot, market_path: Path
) -> Iterator[Doors]:
    model = KronosEvents.from_adapter(recalibrated, base_model=str(base_path))
    config = {"adapter": recalibrated, "base_model": str(base_path), "snapshot": market_path}
    with serve(adapters=recalibrated) as client:
        yield Doors(model, client, market, config)


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
    recalibrated: bool = True

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
        recalibrated=draw(st.booleans()),
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
        recalibrated=case.recalibrated,
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
        "recalibrated": case.recalibrated,
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
        recalibrated=case.recalibrated,
        **doors.config,
    )
    bands = forecast(config, Console(file=StringIO())).bands
    return {"base": bands[0].closes, "adapter": bands[-1].closes}


def compare(doors: Doors, case: Case) -> None:
    frames, answers = by_frame(doors, case), by_http(doors, case)
    for (numbers, rows), answer in zip(frames, answers, strict=True):
        assert [str(day.date()) for day in rows["ts"]] == answer["dates"]
        assert answer["recalibration"]["applied"] == case.recalibrated
        assert len(answer["recalibration"]["factors"]) == case.horizon * case.recalibrated
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
    shown = answer["series"][0]["recalibration"]
    assert out.attrs["recalibration"]["SPY"] == shown
    assert shown["applied"]
    assert set(shown["factors"]) <= {factor for row in TABLE.factors.values() for factor in row}


SPY = Case(symbols=["SPY"], horizon=8, paths=9, seed=5, z=0.0, supposed=None)


def test_without_recalibration_every_door_is_the_adapter_without_a_table(
    doors: Doors, store: Path, client: TestClient, base_path: Path
) -> None:
    plain = Doors(
        KronosEvents.from_adapter(store, base_model=str(base_path)),
        client,
        doors.market,
        {**doors.config, "adapter": store},
    )
    raw = replace(SPY, recalibrated=False)
    for name, numbers in by_frame(doors, raw)[0][0].items():
        np.testing.assert_array_equal(numbers, by_frame(plain, SPY)[0][0][name])
    without = by_http(plain, SPY)[0]
    assert without["recalibration"] == {"applied": False, "factors": []}
    assert by_http(doors, raw)[0] == without
    shown, expected = by_command(doors, raw, "SPY"), by_command(plain, SPY, "SPY")
    for name, numbers in shown.items():
        np.testing.assert_array_equal(numbers, expected[name])
    # and the base, which has no table, is the same with it
    np.testing.assert_array_equal(by_command(doors, SPY, "SPY")["base"], expected["base"])


def test_a_recalibrated_forecast_has_the_same_median_and_other_widths(doors: Doors) -> None:
    drawn = np.log(by_command(doors, replace(SPY, recalibrated=False), "SPY")["adapter"])
    stretched = np.log(by_command(doors, SPY, "SPY")["adapter"])
    factors = by_http(doors, SPY)[0]["recalibration"]["factors"]
    middle = np.median(drawn, axis=0)
    np.testing.assert_allclose(stretched - middle, factors * (drawn - middle), atol=1e-12)
    assert {2.0, 2.5, 1.75} & set(factors)  # the employment report is among the eight bars
    assert factors.count(1.0) < 8


def test_tokens_that_are_drawn_otherwise_are_as_drawn(doors: Doors) -> None:
    """The factors were found with the model's own distribution."""
    body = {"series": [{"symbol": "SPY"}], "horizon": 4, "paths": 5, "top_p": 0.9}
    answer = doors.client.post("/v1/forecast", json=body).json()
    assert answer["series"][0]["recalibration"] == {"applied": False, "factors": []}


def test_the_command_says_that_its_widths_are_recalibrated(doors: Doors) -> None:
    shown = {}
    for applied in (True, False):
        console = Console(file=StringIO(), width=200)
        config = ForecastConfig(symbol="SPY", horizon=4, paths=5, recalibrated=applied, **doors.config)
        forecast(config, console)
        assert isinstance(console.file, StringIO)
        shown[applied] = console.file.getvalue()
    factors = by_http(doors, replace(SPY, horizon=4))[0]["recalibration"]["factors"]
    line = "the adapter's widths are recalibrated, times " + " ".join(f"{one:.2f}" for one in factors)
    assert line in shown[True]
    assert "widths are recalibrated" not in shown[False]


def test_a_nightly_batch_writes_the_same_numbers(doors: Doors, tmp_path: Path) -> None:
    files = {}
    for applied in (True, False):
        case = replace(SPY, recalibrated=applied)
        config = ForecastAllConfig(
            out=tmp_path / f"{applied}.parquet",
            horizon=case.horizon,
            paths=case.paths,
            seed=case.seed,
            recalibrated=applied,
            **doors.config,
        )
        forecast_all(config, now=AFTER, console=Console(file=StringIO()))
        rows = pq.read_table(config.out).to_pandas()
        mine = rows[(rows["symbol"] == "SPY") & (rows["target_name"] == "close")]
        np.testing.assert_array_equal(np.stack(mine["samples"]).T, by_command(doors, case, "SPY")["adapter"])
        files[applied] = read_about(config.out)["facts"]
    # as earlier versions wrote it, so that their files are still found done
    assert "recalibrated" not in files[True]
    assert files[False] == files[True] | {"recalibrated": False}
