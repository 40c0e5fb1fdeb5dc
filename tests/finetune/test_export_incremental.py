"""An incremental export reads little, equals a full one, and notices when the past has changed."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from kronos_service.data.snapshot.manifest import SnapshotError
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.sessions import DAILY, Interval, sessions
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.export_training_data import ExportSummary, export

MARCH, APRIL, MAY = (datetime(2024, month, 15, 12, tzinfo=UTC) for month in (3, 4, 5))
CLASSES = {"AAA": "us_equity", "BTCUSDT": "crypto", "SPY": "us_equity"}


@dataclass
class Market:
    """A source of flat bars and one release, for a test to change between two exports."""

    table: pd.DataFrame
    event: dict[str, object]
    name: str = "market"
    asked: list[date | None] = field(default_factory=list)
    breaks_after: int | None = None

    def symbols(self) -> pd.DataFrame:
        names = sorted(set(self.table["symbol"]))
        classes = [CLASSES.get(name, "crypto") for name in names]
        return pd.DataFrame({"symbol": names, "asset_class": classes, "tradable": True})

    def bars(
        self, since: date | None = None, after: str | None = None, interval: Interval = DAILY
    ) -> Iterator[pd.DataFrame]:
        self.asked.append(since)
        rows = self.table[self.table["ts"] >= str(since or "")]
        rows = rows[rows["symbol"] > (after or "")]
        for number, (_, chunk) in enumerate(rows.groupby("symbol", sort=True)):
            if number == self.breaks_after:
                raise KeyboardInterrupt
            yield chunk

    def count_bars(self, first: date | None, before: date) -> int:
        ts = self.table["ts"]
        return int(((ts >= str(first or "")) & (ts < before.isoformat())).sum())

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        return pd.DataFrame([self.event])

    def add(self, symbol: str, first: date, last: date) -> None:
        days = sessions(CLASSES.get(symbol, "crypto"), first, last).dates.astype(str)
        more = pd.DataFrame({"symbol": symbol, "ts": days, "open": 10.0, "high": 11.0, "low": 9.0})
        more = more.assign(close=10.0, volume=5.0, amount=None)
        self.table = (
            pd.concat([self.table, more]).drop_duplicates(["symbol", "ts"]).sort_values(["symbol", "ts"])
        )


@pytest.fixture
def market() -> Market:
    """January to the 14th of March."""
    event: dict[str, object] = {
        "event_id": "cpi:1",
        "event_type": "cpi",
        "event_name": "CPI",
        "currency": "USD",
    }
    event |= {"impact": "high", "release_at": "2024-03-12T12:30:00Z", "actual": 3.2, "forecast": 3.1}
    columns = ["symbol", "ts", "open", "high", "low", "close", "volume", "amount"]
    made = Market(pd.DataFrame(columns=columns), event)
    for symbol in CLASSES:
        made.add(symbol, date(2024, 1, 2), date(2024, 3, 14))
    return made


def run(market: Market, directory: Path, now: datetime, **flags: bool) -> ExportSummary:
    return export(market, directory, now=now, console=Console(file=io.StringIO()), **flags)  # type: ignore[arg-type]


def grow(market: Market) -> None:
    for symbol in CLASSES:
        market.add(symbol, date(2024, 3, 15), date(2024, 4, 15))


def assert_same(one: Path, other: Path) -> None:
    mine, full = load_snapshot(one, now=APRIL), load_snapshot(other, now=APRIL)
    assert mine.sha256 == full.sha256
    pd.testing.assert_frame_equal(mine.bars, full.bars)


def test_only_the_last_days_are_read_and_the_outcome_is_that_of_a_full_export(
    market: Market, tmp_path: Path
) -> None:
    first = run(market, tmp_path / "s", MARCH, incremental=True)  # nothing there yet: a full one
    grow(market)
    summary = run(market, tmp_path / "s", APRIL, incremental=True)
    assert market.asked == [None, date(2024, 3, 1)]
    assert summary.bars > first.bars
    assert summary.unfinished == 3  # noon in London: no session of today has closed
    run(market, tmp_path / "full", APRIL)
    assert_same(tmp_path / "s", tmp_path / "full")
    assert any("0 rows added, 0 released since, 0 overwritten" in line for line in summary.lines())


def old_bar_added(market: Market) -> None:
    market.table = market.table[~market.table["ts"].between("2024-01-05", "2024-01-08")]


def split_adjusted(market: Market) -> None:
    is_spy = market.table["symbol"] == "SPY"
    market.table.loc[is_spy, ["open", "high", "low", "close"]] /= 2


def new_symbol(market: Market) -> None:
    market.add("NEW", date(2024, 1, 10), date(2024, 4, 14))


@pytest.mark.parametrize("change", [old_bar_added, split_adjusted, new_symbol])
def test_a_past_that_has_changed_is_read_again_in_full_and_said(
    market: Market, tmp_path: Path, change: Callable[[Market], None]
) -> None:
    run(market, tmp_path / "s", MARCH)
    grow(market)
    change(market)
    summary = run(market, tmp_path / "s", APRIL, incremental=True)
    assert "earlier bars have changed in the source: all of them were read again" in summary.lines()
    run(market, tmp_path / "full", APRIL)
    assert_same(tmp_path / "s", tmp_path / "full")


def test_an_overwritten_actual_is_kept_as_a_revision(market: Market, tmp_path: Path) -> None:
    run(market, tmp_path / "s", MARCH)
    market.event["actual"] = 3.3
    summary = run(market, tmp_path / "s", APRIL, incremental=True)
    rows = load_snapshot(tmp_path / "s", now=APRIL).calendar
    assert rows["actual"].tolist() == [3.2, 3.3]
    assert rows["first_seen_at"].tolist()[1] == pd.Timestamp(APRIL)
    assert any("1 overwritten in the source and kept as revisions" in line for line in summary.lines())


def test_another_source_or_another_beginning_is_refused(market: Market, tmp_path: Path) -> None:
    run(market, tmp_path / "s", MARCH)
    with pytest.raises(SnapshotError, match="begins on 2024-01-02, not on 2024-02-01"):
        export(market, tmp_path / "s", since=date(2024, 2, 1), incremental=True, now=APRIL)
    market.name = "elsewhere"
    with pytest.raises(SnapshotError, match="was read from market, not from elsewhere"):
        run(market, tmp_path / "s", APRIL, incremental=True)


def test_ctrl_c_leaves_the_old_snapshot_and_what_was_read(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos_service.data.snapshot.staging.PART_ROWS", 1)
    before = run(market, tmp_path / "s", MARCH).sha256
    grow(market)
    market.breaks_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(market, tmp_path / "s", APRIL)
    assert load_snapshot(tmp_path / "s", now=APRIL).sha256 == before
    market.breaks_after = None
    summary = run(market, tmp_path / "s", APRIL, resume=True)
    assert any(line.startswith("resumed after AAA") for line in summary.lines())
    run(market, tmp_path / "full", APRIL)
    assert_same(tmp_path / "s", tmp_path / "full")
    assert {path.name[0] for path in (tmp_path / "s").iterdir()} == set("eoms")


def test_a_bar_read_before_its_close_is_left_out_however_late_the_export_is_resumed(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos_service.data.snapshot.staging.PART_ROWS", 1)
    market.add("AAA", date(2024, 3, 15), date(2024, 3, 15))  # still trading at noon of that day
    market.breaks_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(market, tmp_path / "s", MARCH)
    market.breaks_after = None
    summary = run(market, tmp_path / "s", APRIL, resume=True)
    assert any(line.startswith("resumed after AAA") for line in summary.lines())
    bars = load_snapshot(tmp_path / "s", now=APRIL).bars
    assert summary.unfinished == 1
    assert bars[bars["symbol"] == "AAA"]["ts"].max() == pd.Timestamp("2024-03-14", tz="UTC")


def test_an_actual_still_missing_when_an_export_was_resumed_is_first_seen_when_it_came(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released between the first run and the resumed one, which read the calendar anew and found none."""
    monkeypatch.setattr("kronos_service.data.snapshot.staging.PART_ROWS", 1)
    market.event |= {"release_at": "2024-03-20T12:30:00Z", "actual": None}
    market.breaks_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(market, tmp_path / "s", MARCH)
    market.breaks_after = None
    resumed = run(market, tmp_path / "s", APRIL, resume=True)
    assert any(line.startswith("resumed after AAA") for line in resumed.lines())
    market.event["actual"] = 3.2
    run(market, tmp_path / "s", MAY, incremental=True)
    rows = load_snapshot(tmp_path / "s", now=MAY).calendar
    assert rows["actual"].isna().tolist() == [True, False]
    assert rows["first_seen_at"].tolist()[1] == pd.Timestamp(MAY)


def test_a_snapshot_that_does_not_say_when_its_calendar_was_read_is_not_added_to(
    market: Market, tmp_path: Path
) -> None:
    run(market, tmp_path / "s", MARCH)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["calendar_read_at"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(SnapshotError, match="does not say when its calendar was read"):
        run(market, tmp_path / "s", APRIL, incremental=True)
    path.write_text(json.dumps(manifest | {"calendar_read_at": manifest["read_at"]}))  # as the message says
    run(market, tmp_path / "s", APRIL, incremental=True)


def test_history_loaded_before_the_first_day_is_said_to_be_left_out_unless_that_day_was_asked_for(
    market: Market, tmp_path: Path
) -> None:
    run(market, tmp_path / "s", MARCH)
    unchanged = run(market, tmp_path / "s", APRIL, incremental=True)
    assert not any("left out" in line for line in unchanged.lines())
    market.add("SPY", date(2023, 12, 28), date(2023, 12, 29))
    summary = run(market, tmp_path / "s", APRIL, incremental=True)
    assert (
        "2 bars before 2024-01-02 in the source are left out: export without --incremental to include them, "
        "or give --since 2024-01-02" in summary.lines()
    )
    assert load_snapshot(tmp_path / "s", now=APRIL).bars["ts"].min() == pd.Timestamp("2024-01-02T00Z")
    asked = export(
        market,
        tmp_path / "s",
        since=date(2024, 1, 2),
        incremental=True,
        now=APRIL,
        console=Console(file=io.StringIO()),
    )
    assert not any("left out" in line for line in asked.lines())


def test_resume_and_incremental_together_are_refused(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--out", str(tmp_path / "s"), "--incremental", "--resume"]) == 2
    assert "--incremental reads only what is new: give one of them" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected incremental or resume, got both"):
        run(market, tmp_path / "s", MARCH, incremental=True, resume=True)
