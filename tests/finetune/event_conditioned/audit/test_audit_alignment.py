"""Bars that end hours after the day by which they are dated move with the next day of another symbol."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.tables import bar_table
from kronos_service.finetune.event_conditioned.audit.alignment import check_days

DAYS = 400


def bars(symbol: str, hourly: np.ndarray, shift: int) -> pd.DataFrame:
    """Daily bars of an hourly path, each from `shift` hours after midnight of its date."""
    path = 100 * np.exp(np.cumsum(hourly))[shift : shift + 24 * DAYS + 1 : 24]
    rows = pd.DataFrame({"symbol": symbol, "ts": pd.date_range("2023-01-01", periods=DAYS, tz="UTC")})
    rows = rows.assign(open=path[:-1], close=path[1:], volume=1.0, amount=1.0)
    return rows.assign(high=rows[["open", "close"]].max(axis=1), low=rows[["open", "close"]].min(axis=1))


def snapshot_with(market: Snapshot, shifts: dict[str, int], own: float = 0.6) -> Snapshot:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.004, 24 * (DAYS + 2))
    tables = [
        bars(name, common + own * rng.normal(0, 0.004, len(common)), shift) for name, shift in shifts.items()
    ]
    symbols = pd.DataFrame({"symbol": list(shifts), "asset_class": "crypto", "tradable": True})
    return replace(market, symbols=symbols, bars=bar_table(pd.concat(tables)))


@pytest.mark.parametrize("shift", [6, 8, 16, 23])
def test_a_shifted_symbol_is_found_with_its_hours(market: Snapshot, shift: int) -> None:
    check = check_days(snapshot_with(market, {"BTCUSDT": 0, "ETHUSDT": shift, "SOLUSDT": 0}))
    assert check.looked_at == 2
    (finding,) = check.findings
    assert finding.where.startswith("ETHUSDT, ")
    hours = float(finding.given.split("about ")[1].split()[0])
    assert abs(hours - shift) <= 3


def test_a_shifted_reference_is_found_once(market: Snapshot) -> None:
    check = check_days(snapshot_with(market, {"BTCUSDT": 16, "ETHUSDT": 0, "SOLUSDT": 0}))
    assert [finding.where.split(",")[0] for finding in check.findings] == ["BTCUSDT"]


@pytest.mark.parametrize(
    "shifts", [{"BTCUSDT": 0, "ETHUSDT": 0}, {"BTCUSDT": 16, "ETHUSDT": 16}, {"BTCUSDT": 6}]
)
def test_days_that_agree_are_no_finding(market: Snapshot, shifts: dict[str, int]) -> None:
    assert check_days(snapshot_with(market, shifts)).findings == []


def test_markets_that_do_not_move_together_say_nothing(market: Snapshot) -> None:
    check = check_days(snapshot_with(market, {"BTCUSDT": 0, "ETHUSDT": 16}, own=30.0))
    assert check.findings == []


def test_the_sample_market_has_nothing_to_compare(market: Snapshot) -> None:
    assert check_days(market).looked_at == 0
