"""The sample market holds the effects that docs/sample-market.md states, and no others."""

import math
import re
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from kronos_service.data.sample import (
    Effects,
    Market,
    SampleError,
    event_bars,
    leader_z,
    make_market,
    planted_surprise,
    sample_snapshot_path,
    write_sample,
)
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.calendar import read_calendar
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import locate, sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

START, END = date(2020, 1, 1), date(2026, 3, 31)
DOCUMENT = Path(__file__).parents[2] / "docs" / "sample-market.md"
EFFECTS = {
    "default": Effects(),
    "none": Effects(volatility=1.0, surprise=0.0, spy_lead=0.0, btc_lead=0.0),
}


@cache
def market(effects: str = "default") -> Market:
    return make_market(0, symbols=12, effects=EFFECTS[effects])


def measure(tables: Market) -> dict[str, float]:
    """Sizes of the effects over the equities that SPY leads, in units of each one's quiet residual."""
    bars = {str(name): rows for name, rows in tables.bars.groupby("symbol")}
    days = {name: sessions(kind, START, END) for name, kind in DEFAULT_TAXONOMY.leader_asset_class.items()}
    known = tables.calendar.dropna(subset=["actual", "forecast"])
    deviations = (known.actual - known.forecast).groupby(known.event_type).std()
    scale = {str(name): float(deviation) for name, deviation in deviations.items()}
    z = {n: leader_z(bars[n].close.to_numpy(), days[n].closes, days["SPY"].as_of)[:-1] for n in days}
    surprise = planted_surprise(tables.calendar, scale, days["SPY"])[:-1]
    event = event_bars(tables.calendar, days["SPY"])[1:]
    rows = []
    for name in (n for n in bars if n.startswith("SYN")):
        log_close = np.log(bars[name].close.to_numpy())
        known_before = np.stack(
            [surprise, z["SPY"], z["BTCUSDT"], z["DXY"], z["VIX"], log_close[:-1], np.ones(len(surprise))],
            axis=1,
        )
        move = np.diff(log_close)
        slope = np.linalg.lstsq(known_before[~event], move[~event], rcond=None)[0]
        residual = move - known_before @ slope
        sigma = residual[~event].std()
        spread = np.log(bars[name].high.to_numpy() / bars[name].low.to_numpy())[1:]
        widening = (residual[event].std() / sigma, spread[event].mean() / spread[~event].mean())
        rows.append([*widening, *slope[:5] / sigma])
    names = ("return factor", "range factor", "surprise", "SPY lead", "BTCUSDT lead", "DXY lead", "VIX lead")
    return dict(zip(names, np.mean(rows, axis=0), strict=True))


def test_each_effect_is_present_with_its_stated_size() -> None:
    found = measure(market())
    assert found["return factor"] == pytest.approx(2.5, rel=0.08)
    assert found["range factor"] == pytest.approx(2.5, rel=0.12)
    assert found["surprise"] == pytest.approx(1.0, abs=0.12)
    assert found["SPY lead"] == pytest.approx(0.3, abs=0.07)
    assert found["BTCUSDT lead"] == pytest.approx(0.15, abs=0.07)
    assert abs(found["DXY lead"]) < 0.07
    assert abs(found["VIX lead"]) < 0.07


def test_without_effects_none_is_found() -> None:
    found = measure(market("none"))
    assert found["return factor"] == pytest.approx(1.0, abs=0.08)
    assert found["range factor"] == pytest.approx(1.0, abs=0.05)
    assert max(abs(found[name]) for name in found if name.endswith("lead") or name == "surprise") < 0.07


def test_medium_and_low_impact_releases_do_not_widen_a_bar() -> None:
    tables = market()
    days = sessions("us_equity", START, END)
    other = event_bars(tables.calendar.assign(impact=tables.calendar.impact.replace("medium", "high")), days)
    quiet = ~event_bars(tables.calendar, days)
    bars = tables.bars[tables.bars.symbol == "SPY"]
    spread = np.log(bars.high.to_numpy() / bars.low.to_numpy())
    assert spread[other & quiet].mean() == pytest.approx(spread[~other & quiet].mean(), rel=0.06)


def test_event_bars_agree_with_the_labels_that_training_uses() -> None:
    calendar = market().calendar
    for asset_class in set(DEFAULT_TAXONOMY.leader_asset_class.values()):
        days = sessions(asset_class, START, END)
        labels = label_targets(read_calendar(calendar), asset_class, days.dates, symbol=None)
        assert np.array_equal(event_bars(calendar, days), labels.is_event)


def test_a_leader_z_never_looks_past_its_row() -> None:
    days, crypto = sessions("us_equity", START, END), sessions("crypto", START, END)
    bars = market().bars
    closes = bars[bars.symbol == "BTCUSDT"].close.to_numpy()
    row = 700
    later = crypto.closes > days.as_of[row]
    scrambled = np.where(later, closes[::-1], closes)
    before, after = (leader_z(c, crypto.closes, days.as_of) for c in (closes, scrambled))
    assert np.array_equal(before[: row + 1], after[: row + 1])
    assert not np.array_equal(before, after)


def test_event_days_are_15_to_18_percent_of_the_sessions() -> None:
    shares = [
        event_bars(make_market(seed, symbols=2).calendar, sessions("us_equity", START, END)).mean()
        for seed in range(3)
    ]
    assert 0.15 < np.mean(shares) < 0.18


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("stamp", ["day_of_week", "day", "month"])
def test_event_dates_are_independent_of_the_stamps(seed: int, stamp: str) -> None:
    days = sessions("us_equity", START, END)
    on = label_targets(
        read_calendar(make_market(seed, symbols=2).calendar), "us_equity", days.dates, symbol=None
    ).is_event
    value = getattr(pd.DatetimeIndex(days.dates), stamp).to_numpy()
    assert chi_square_p(value, on) > 0.002


def test_the_chi_square_would_notice_a_first_week_schedule() -> None:
    days = pd.DatetimeIndex(sessions("us_equity", START, END).dates)
    assert chi_square_p(np.asarray(days.day), np.asarray((days.day <= 5) & (days.day_of_week < 4))) < 1e-6


def chi_square_p(value: npt.NDArray[np.integer], on: npt.NDArray[np.bool_]) -> float:
    """Probability of so uneven a table under independence (Wilson-Hilferty's normal approximation)."""
    groups = np.unique(value)
    expected = np.array(
        [[(value == g).sum() * share for share in (on.mean(), 1 - on.mean())] for g in groups]
    )
    seen = np.array([[(on & (value == g)).sum(), (~on & (value == g)).sum()] for g in groups])
    degrees = len(groups) - 1
    statistic = ((seen - expected) ** 2 / expected).sum()
    normal = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return 0.5 * math.erfc(normal / math.sqrt(2))


def test_all_event_types_occur_at_new_york_times_and_carry_surprises() -> None:
    calendar = market().calendar
    assert set(calendar.event_type) == set(DEFAULT_TAXONOMY.event_types)
    local = calendar.release_at.dt.tz_convert("America/New_York")
    assert set(local.dt.strftime("%H:%M")) == {"08:30", "10:00", "14:00"}
    assert set(calendar.release_at.dt.strftime("%H:%M")) == {
        "12:30",
        "13:30",
        "14:00",
        "15:00",
        "18:00",
        "19:00",
    }
    assert calendar[calendar.impact == "high"][["actual", "forecast"]].notna().all(axis=None)
    per_year = calendar.groupby("event_type").size() / 6.4
    assert per_year.between(7, 15).all()
    dates = {
        t: set(calendar[calendar.event_type == t].release_at)
        for t in DEFAULT_TAXONOMY.event_types
        if "fomc" in t
    }
    assert dates["fomc_rate_decision"] == dates["fomc_statement"] == dates["fomc_press_conference"]


def test_bars_are_valid_and_lie_on_real_sessions() -> None:
    tables = market()
    bars = tables.bars
    assert (bars.low <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars.high >= bars[["open", "close"]].max(axis=1)).all()
    assert np.isfinite(bars.drop(columns=["symbol", "ts"]).to_numpy()).all()
    assert (bars.low > 0).all()
    for symbol, asset_class in tables.symbols[["symbol", "asset_class"]].itertuples(index=False):
        days = sessions(asset_class, START, END)
        assert np.array_equal(locate(days, bars[bars.symbol == symbol].ts), np.arange(len(days.dates)))


def test_the_calendar_reaches_past_the_last_target() -> None:
    assert market().calendar.release_at.max() > pd.Timestamp("2026-04-10", tz="UTC")


def test_the_same_seed_gives_the_same_market_and_more_symbols_change_no_other() -> None:
    first, again, more = (make_market(3, symbols=n, end=date(2021, 6, 30)) for n in (3, 3, 5))
    for one, two in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    shared = more.bars[more.bars.symbol.isin(first.bars.symbol)].reset_index(drop=True)
    pd.testing.assert_frame_equal(first.bars, shared, check_exact=True)
    other = make_market(4, symbols=3, end=date(2021, 6, 30))
    assert not other.calendar.release_at.equals(first.calendar.release_at)


def test_the_shipped_snapshot_is_the_market_of_seed_0(tmp_path: Path) -> None:
    write_sample(tmp_path / "again")
    shipped, again = load_snapshot(sample_snapshot_path()), load_snapshot(tmp_path / "again")
    for table in ("symbols", "bars", "calendar"):
        pd.testing.assert_frame_equal(getattr(shipped, table), getattr(again, table), check_exact=True)
    assert shipped.manifest is not None
    assert sum(file.stat().st_size for file in sample_snapshot_path().iterdir()) < 2_500_000


def test_the_document_states_what_the_shipped_snapshot_holds() -> None:
    shipped = load_snapshot(sample_snapshot_path())
    found = measure(Market(shipped.symbols, shipped.bars, shipped.calendar))
    stated = dict(
        re.findall(
            r"^\| ([A-Za-z ]+?) \|.*\| (-?[\d.]+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert stated == {name: f"{round(size, 2) + 0.0:.2f}" for name, size in found.items()}


@pytest.mark.parametrize(("symbols", "end"), [(1, END), (5, START)])
def test_an_impossible_market_is_refused(symbols: int, end: date) -> None:
    with pytest.raises(SampleError, match="need symbols >= 2"):
        make_market(0, symbols=symbols, end=end)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SampleError, match="need a seed of 0 or more; got -1"):
        make_market(-1)
