"""The market in use: fresh, whole, kept when the source fails, and what training would have encoded."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.data.sources.snapshot import snapshot_source
from kronos_service.events.sessions import DAILY, Interval
from kronos_service.finetune.event_conditioned.samples.series import build_series
from kronos_service.finetune.event_conditioned.samples.tokens import normalized_window
from kronos_service.finetune.event_conditioned.samples.windows import Window
from kronos_service.inference.market.market import build_market, sessions_behind
from kronos_service.inference.market.readers import DatabaseReader, SnapshotReader
from kronos_service.inference.market.refresher import MarketRefresher
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.requests.prepare import prepare
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.settings import Settings
from kronos_shared.columns import FEATURES

NOW = datetime(2023, 1, 3, 12, 0, tzinfo=UTC)


def until(market: Snapshot, last: str) -> Snapshot:
    """The market without its bars after a date."""
    return replace(market, bars=market.bars[market.bars["ts"] <= pd.Timestamp(last, tz="UTC")])


def write(market: Snapshot, directory: Path) -> Path:
    write_snapshot(
        directory,
        symbols=market.symbols,
        bars=market.bars,
        calendar=market.calendar,
        window=(date(2021, 1, 1), date(2022, 12, 31)),
        source="a test",
    )
    return directory


def test_a_snapshot_is_read_again_when_it_has_been_replaced_and_only_then(
    market: Snapshot, tmp_path: Path
) -> None:
    directory = write(until(market, "2022-11-30"), tmp_path / "snapshot")
    read = SnapshotReader(directory)
    first = read(NOW)
    assert first is not None
    assert read(NOW) is None
    write(market, directory)
    second = read(NOW)
    assert second is not None
    assert [str(one.last_bar)[:10] for one in (first, second)] == ["2022-11-30", "2022-12-30"]
    pd.testing.assert_frame_equal(
        second.bars["SPY"], market.bars[market.bars["symbol"] == "SPY"].reset_index(drop=True)
    )


def test_a_plain_directory_is_read_again_when_a_file_has_changed(market: Snapshot, tmp_path: Path) -> None:
    for name, table in (
        ("ohlcv_1d", until(market, "2022-11-30").bars),
        ("symbols", market.symbols),
        ("economic_calendar", market.calendar),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
    read = SnapshotReader(tmp_path)
    assert read(NOW) is not None
    assert read(NOW) is None
    market.bars.to_parquet(tmp_path / "ohlcv_1d.parquet")
    again = read(NOW)
    assert again is not None
    assert str(again.last_bar)[:10] == "2022-12-30"


def test_a_source_that_fails_leaves_the_last_market_in_use_and_is_told(
    market: Snapshot, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    directory = write(market, tmp_path / "snapshot")
    moments = iter([NOW, NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)])
    feed = MarketRefresher(settings_of(snapshot=directory), clock=lambda: next(moments))
    feed.refresh()
    before = feed.current()
    assert before is not None
    shutil.move(directory, tmp_path / "elsewhere")
    feed.refresh()
    status = feed.status()
    assert status.market is before
    assert (status.failures, status.checked_at) == (1, NOW)
    assert status.error is not None
    assert "no such snapshot" in status.error
    shutil.move(tmp_path / "elsewhere", directory)
    feed.refresh()
    status = feed.status()
    assert (status.error, status.failures, status.checked_at) == (None, 1, NOW + timedelta(minutes=2))


def test_what_a_wrong_clock_decided_is_judged_again(
    market: Snapshot, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    directory = write(market, tmp_path / "snapshot")
    # 27 years slow, a month slow, right, and a century fast
    clocks = [NOW.replace(year=1996), NOW - timedelta(days=30), NOW, NOW.replace(year=2099), NOW]
    moments = iter(clocks)
    feed = MarketRefresher(settings_of(snapshot=directory), clock=lambda: next(moments))
    feed.refresh()
    assert feed.current() is None
    assert "check the clock and the source" in (feed.status().error or "")
    seen = []
    for _ in clocks[1:]:
        feed.refresh()
        now = feed.current()
        assert now is not None
        assert feed.status().error is None
        seen.append(str(now.last_bar)[:10])
        assert now.read_at == feed.status().checked_at  # no row known by the fast clock alone stays
    assert seen == ["2022-12-03", "2022-12-30", "2022-12-30", "2022-12-30"]


def test_a_source_of_impossible_bars_leaves_the_last_market_and_is_read_again(
    market: Snapshot, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    market.symbols.to_parquet(tmp_path / "symbols.parquet")
    market.calendar.to_parquet(tmp_path / "economic_calendar.parquet")
    market.bars.to_parquet(tmp_path / "ohlcv_1d.parquet")
    feed = MarketRefresher(settings_of(snapshot=tmp_path), clock=lambda: NOW)
    feed.refresh()
    before = feed.current()
    market.bars.assign(high=market.bars["low"] / 2).to_parquet(tmp_path / "ohlcv_1d.parquet")
    for failures in (1, 2):
        feed.refresh()
        status = feed.status()
        assert (status.market, status.failures) == (before, failures)
        assert "no bar of a session that has closed" in (status.error or "")
    market.bars.to_parquet(tmp_path / "ohlcv_1d.parquet")
    feed.refresh()
    assert feed.status().error is None


def test_sessions_behind_counts_those_that_have_closed_since() -> None:
    friday = pd.Timestamp("2022-12-30", tz="UTC")
    at = [datetime(2023, 1, 3, hour, tzinfo=UTC) for hour in (12, 22)]  # Monday was a holiday
    assert [sessions_behind(friday, "us_equity", now) for now in at] == [0, 1]
    assert [sessions_behind(friday, "crypto", now) for now in at] == [3, 3]
    assert sessions_behind(friday, "us_equity", datetime(2022, 1, 1, tzinfo=UTC)) == 0
    at_the_close = datetime(2023, 1, 3, 21, tzinfo=UTC)
    assert sessions_behind(friday, "us_equity", at_the_close) == 1
    assert sessions_behind(friday, "us_equity", datetime(2024, 1, 3, tzinfo=UTC)) == 251


@dataclass
class Database:
    """A database, as a snapshot that is written anew; it notes from when on its bars were asked for."""

    directory: Path
    asked: list[date | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "a database"

    def symbols(self) -> pd.DataFrame:
        return snapshot_source(self.directory).symbols()

    def bars(self, since: date | None = None, after: str | None = None, interval: Interval = DAILY) -> Any:
        self.asked.append(since)
        return snapshot_source(self.directory).bars(since, after)

    def count_bars(self, first: date | None, before: date) -> int:
        return snapshot_source(self.directory).count_bars(first, before)

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        return snapshot_source(self.directory).calendar()


def test_a_database_is_read_whole_and_then_from_its_latest_days_on(market: Snapshot, tmp_path: Path) -> None:
    database = Database(write(until(market, "2022-12-15"), tmp_path / "snapshot"))
    read = DatabaseReader(lambda: nullcontext(database), reach=timedelta(days=400))
    read(NOW)
    corrected = market.bars.copy()
    recent = corrected[(corrected["symbol"] == "SPY") & (corrected["ts"] >= "2022-12-12")].index[0]
    corrected.loc[recent, "volume"] += 1
    write(replace(market, bars=corrected), database.directory)
    second = read(NOW + timedelta(minutes=1))
    assert database.asked == [date(2021, 11, 29), date(2022, 12, 5)]
    kept = corrected[corrected["ts"] >= pd.Timestamp("2021-11-29", tz="UTC")]
    for symbol, expected in kept.groupby("symbol"):
        pd.testing.assert_frame_equal(second.bars[str(symbol)], expected.reset_index(drop=True))
    read(NOW + timedelta(hours=7))
    read(NOW + timedelta(hours=13))
    assert database.asked[2:] == [date(2022, 12, 20), date(2021, 11, 30)]


def test_the_unfinished_bar_of_a_database_is_no_bar(market: Snapshot, tmp_path: Path) -> None:
    database = Database(write(market, tmp_path / "snapshot"))
    read = DatabaseReader(lambda: nullcontext(database), reach=timedelta(days=400))
    moment = datetime(2022, 12, 20, 21, 5, tzinfo=UTC)
    seen = read(moment)
    last = {symbol: bars["ts"].iloc[-1].date() for symbol, bars in seen.bars.items()}
    assert last["SPY"] == date(2022, 12, 20)
    assert {last["BTCUSDT"], last["VIX"], last["DXY"]} == {date(2022, 12, 19)}
    assert seen.dropped.empty


@pytest.fixture
def serving(client: Any) -> ServedModel:
    current: ServedModel = client.app.state.service.loader.current()
    return current


@pytest.mark.parametrize("symbol", ["SYN02", "SPY"])
@pytest.mark.parametrize("origin", ["2022-03-11", "2022-07-01", "2022-11-04", "2022-11-25", "2022-12-20"])
@pytest.mark.parametrize("is_inline", [False, True])
def test_a_request_is_encoded_as_training_encodes_the_same_origin(
    market: Snapshot, market_path: Path, serving: ServedModel, symbol: str, origin: str, is_inline: bool
) -> None:
    day = date.fromisoformat(origin)
    now = datetime(day.year, day.month, day.day, 23, 30, tzinfo=UTC)
    known = SnapshotReader(market_path)(now)
    assert known is not None
    one = next(one for one in build_series(market) if one.symbol == symbol)
    at = int(np.searchsorted(one.dates, np.datetime64(day)))
    series: dict[str, Any] = {"symbol": symbol}
    if is_inline:
        rows = market.bars[(market.bars["symbol"] == symbol) & (market.bars["ts"] <= origin)].iloc[-90:]
        series["asset_class"] = "us_equity"
        series["candles"] = [
            {"ts": row["ts"].date()} | {name: row[name] for name in FEATURES} for _, row in rows.iterrows()
        ]
    request = ForecastRequest.model_validate({"series": [series], "horizon": 4}, strict=False)
    history = prepare(request, serving, known, now=now, max_bars=1024)[0].prepared.history
    window = Window(series=0, start=at - 67, first_target=at + 1, stop=at + 2)
    assert history.x.numpy().tobytes() == normalized_window([one], window)[:-1].tobytes()
    assert history.stamps.numpy().tobytes() == one.stamps[at - 67 : at + 1].tobytes()
    assert history.future_stamps.numpy().tobytes() == one.stamps[at + 1 : at + 5].tobytes()
    assert history.events is not None
    assert history.events.numpy()[:68].tobytes() == one.events[at - 67 : at + 1].tobytes()
    # the rows past the origin know the schedule, and nothing of surprises and leaders
    assert not history.events.numpy()[68:, [14, 16, 17, 18, 19]].any()


def test_after_a_gap_the_first_row_of_the_history_is_that_of_training_too(
    market: Snapshot, serving: ServedModel
) -> None:
    of_symbol = market.bars.index[market.bars["symbol"] == "SYN02"]
    # the model sees 68 bars, and the session just before them has no bar
    gapped = replace(market, bars=market.bars.drop(index=of_symbol[-69]).reset_index(drop=True))
    known = build_market("x", gapped.symbols, gapped.bars, gapped.calendar, now=NOW)
    request = ForecastRequest.model_validate({"series": [{"symbol": "SYN02"}], "horizon": 4})
    (planned,) = prepare(request, serving, known, now=NOW, max_bars=1024)
    (one,) = (one for one in build_series(gapped) if one.symbol == "SYN02")
    events = planned.prepared.history.events
    assert events is not None
    assert events.numpy()[:67].tobytes() == one.events[-68:-1].tobytes()
    whole = next(one for one in build_series(market) if one.symbol == "SYN02")
    assert events.numpy()[0].tobytes() != whole.events[-68].tobytes()
    assert planned.missing_sessions == []
