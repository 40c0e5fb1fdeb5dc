"""One real backend for all integration tests; each test that changes it puts back what it found."""

from collections.abc import Iterator

import pytest
from backend import Backend, insert, running_backend
from market_rows import MarketRows, market_rows


@pytest.fixture(scope="session")
def empty_backend() -> Iterator[Backend]:
    with running_backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def rows() -> MarketRows:
    return market_rows()


@pytest.fixture(scope="session")
def backend(empty_backend: Backend, rows: MarketRows) -> Backend:
    """The backend with 150K bars and 10K calendar rows in it."""
    insert(empty_backend, "symbols", rows.symbols)
    insert(empty_backend, "ohlcv_1d", rows.bars)
    insert(empty_backend, "economic_calendar", rows.calendar)
    empty_backend.sql("analyze")
    return empty_backend
