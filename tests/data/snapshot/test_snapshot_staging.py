"""Bars on their way: whole symbols in order, whatever the chunks; what was read can be gone on from."""

from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import small_tables

from kronos_service.data.snapshot import staging
from kronos_service.data.snapshot.staging import open_staging, symbol_frames
from kronos_service.data.tables import TableError, bar_table

NOW = datetime(2024, 3, 1, tzinfo=UTC)
BARS = bar_table(small_tables()["bars"])
REQUEST = {"source": "tests", "since": None}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, len(BARS) - 1), max_size=8))
def test_chunks_may_end_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(BARS)]
    chunks = [BARS.iloc[a:b] for a, b in pairwise(edges)]
    frames = list(symbol_frames(chunks))
    assert [frame["symbol"].iloc[0] for frame in frames] == sorted(set(BARS["symbol"]))
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), BARS)


def test_a_symbol_that_comes_again_is_refused() -> None:
    chunks = [BARS[BARS["symbol"] == name] for name in ("SPY", "VIX", "SPY")]
    with pytest.raises(TableError, match="bars of SPY come in two places"):
        list(symbol_frames(chunks))


def test_what_went_in_comes_out_in_the_order_of_the_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PART_ROWS", 40)
    backwards = [BARS[BARS["symbol"] == name] for name in sorted(set(BARS["symbol"]), reverse=True)]
    with open_staging(tmp_path / "p", REQUEST, resume=False, now=NOW) as staged:
        assert not staged.names()
        staged.fill(backwards)
        assert len(list((tmp_path / "p").glob("*.parquet"))) > 1
        pd.testing.assert_frame_equal(pd.concat(staged.bars(), ignore_index=True), BARS)
        assert staged.names() == sorted(set(BARS["symbol"]), reverse=True)
        assert staged.days()[0] == date(2024, 1, 1)
    assert not (tmp_path / "p").exists()


def cut_off(directory: Path, bars: pd.DataFrame) -> None:
    with open_staging(directory, REQUEST, resume=False, now=NOW) as staged:
        staged.fill([bars])
        raise ConnectionError


def test_a_reading_that_was_cut_off_goes_on_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PART_ROWS", 1)
    first, *others = [rows for _, rows in BARS.groupby("symbol", sort=True)]
    later = datetime(2024, 3, 2, tzinfo=UTC)
    for request, resume, left in (
        (REQUEST, True, [first["symbol"].iloc[0]]),
        (REQUEST | {"since": "2024-01-05"}, True, []),
        (REQUEST, False, []),
    ):
        with pytest.raises(ConnectionError):
            cut_off(tmp_path / "p", first)
        with open_staging(tmp_path / "p", request, resume=resume, now=later) as staged:
            assert staged.names() == left
            assert staged.read_at == (NOW if left else later)
            staged.fill(others if left else [first, *others])
            pd.testing.assert_frame_equal(pd.concat(staged.bars(), ignore_index=True), BARS)


def test_what_was_read_is_forgotten_when_it_is_itself_at_fault(tmp_path: Path) -> None:
    with pytest.raises(TableError), open_staging(tmp_path / "p", REQUEST, resume=False, now=NOW) as staged:
        staged.fill([BARS, BARS])
    assert not (tmp_path / "p").exists()
