"""A snapshot, or a plain directory of tables, hands its rows over as any other source does."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from small_tables import NOW, write_small

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.sources import Source
from kronos_service.data.sources.snapshot import snapshot_source


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_small(tmp_path / "2024-01")
    return tmp_path / "2024-01"


def test_all_rows_come_in_the_order_of_symbol_and_date(directory: Path) -> None:
    source: Source = snapshot_source(directory)
    snapshot = load_snapshot(directory, now=NOW)
    chunks = list(source.bars())
    assert len(chunks) == 4
    pd.testing.assert_frame_equal(pd.concat(chunks), snapshot.bars)
    pd.testing.assert_frame_equal(source.symbols(), snapshot.symbols)
    pd.testing.assert_frame_equal(source.calendar(), snapshot.calendar)
    assert source.name == "snapshot:2024-01"


def test_since_is_the_first_date_that_is_read(directory: Path) -> None:
    source = snapshot_source(directory)
    assert min(chunk["ts"].min() for chunk in source.bars(date(2024, 1, 18))) == pd.Timestamp(
        "2024-01-18T00Z"
    )
    assert list(source.bars(date(2030, 1, 1))) == []
