"""`scorecard`: a page and JSON from forecast files, and exit code 1 for cron where coverage is off."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kronos_service.data.forecasts import SCHEMA, with_about
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.__main__ import main

SYMBOLS = ("SPY", "SYN01", "SYN02", "SYN03")


def write_forecasts(directory: Path, market: Snapshot, *, scale: float, version: str | None = None) -> None:
    """A file a day for the last 40 days: each symbol's own daily returns, drawn again, times `scale`."""
    rng = np.random.default_rng(1)
    bars = {name: market.bars[market.bars["symbol"] == name] for name in SYMBOLS}
    closes = {name: rows["close"].to_numpy() for name, rows in bars.items()}
    days = [day.date() for day in bars["SPY"]["ts"]]
    directory.mkdir()
    for bar in range(len(days) - 41, len(days)):
        rows = pd.DataFrame(
            {
                "symbol": name,
                "last_bar": days[bar],
                "last_close": closes[name][bar],
                "date": days[bar + 1] if bar + 1 < len(days) else days[bar].replace(year=2023),
                "step": 1,
                "target_name": "close",
                "samples": closes[name][bar]
                * np.exp(scale * rng.choice(np.diff(np.log(closes[name][-120:])), 50)),
                "version": version,
            }
            for name in SYMBOLS
        )
        other = {name: None for name in SCHEMA.names if name not in rows.columns}
        table = pa.Table.from_pandas(rows.assign(**other), schema=SCHEMA, preserve_index=False)
        pq.write_table(table.cast(with_about(SCHEMA, {})), directory / f"{days[bar]}.parquet")


def test_a_page_and_an_exit_code(
    market: Snapshot, market_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *flags: str) -> int:
        snapshot, out = ("--snapshot", str(market_path)), ("--out", str(tmp_path / f"{name}-page"))
        return main(["scorecard", "--forecasts", str(tmp_path / name), *snapshot, *out, *flags])

    write_forecasts(tmp_path / "honest", market, scale=1.0, version="000002-0123456789ab")
    write_forecasts(tmp_path / "halved", market, scale=0.5)
    assert run("honest", "--alert") == 0
    assert "alert" not in capsys.readouterr().out
    assert run("halved") == 0
    assert run("halved", "--alert", "--alert-days", "5") == 0
    assert "the last 5 days have too few target dates to judge" in capsys.readouterr().out
    assert run("halved", "--alert") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "alert: base: " in said
    assert "of the last 90 days (first bar) lie in its 80 % interval, expected" in said
    found = json.loads((tmp_path / "honest-page" / "scorecard.json").read_text())
    assert (found["targets"], found["pending"]) == (4 * 40, 4)
    page = (tmp_path / "honest-page" / "scorecard.html").read_text()
    for words in ("000002-0123456789ab", "4 forecasts wait for their bar", "non-event", "2022-12"):
        assert words in page
    assert "http:" not in page
    assert "https:" not in page


def test_forecasts_whose_bars_have_not_come_are_a_mistake(
    market: Snapshot, market_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_forecasts(tmp_path / "all", market, scale=1.0)
    (tmp_path / "late").mkdir()
    last = max((tmp_path / "all").iterdir())
    last.rename(tmp_path / "late" / last.name)
    argv = ["scorecard", "--forecasts", str(tmp_path / "late"), "--snapshot", str(market_path)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert "none of 4 forecasts has its bar in snapshot" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
