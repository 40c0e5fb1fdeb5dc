"""One real server for all integration tests; each test that changes a database puts back what it found."""

from collections.abc import Iterator

import pytest
from backend import Backend, insert, running_backends
from market_rows import MarketRows, market_rows, small_market_rows


@pytest.fixture(scope="session")
def backends() -> Iterator[list[Backend]]:
    """A database that is read with the hosted cap, and one with a small cap, so that few rows fill pages."""
    with running_backends({"market": 1000, "small": 100}) as backends:
        yield backends


@pytest.fixture(scope="session")
def rows() -> MarketRows:
    return market_rows()


@pytest.fixture(scope="session")
def small_rows() -> MarketRows:
    return small_market_rows()


@pytest.fixture(scope="session")
def backend(backends: list[Backend], rows: MarketRows) -> Backend:
    """150K bars and 10K calendar rows."""
    return filled(backends[0], rows)


@pytest.fixture(scope="session")
def small(backends: list[Backend], small_rows: MarketRows) -> Backend:
    """A few thousand rows."""
    return filled(backends[1], small_rows)


def filled(backend: Backend, rows: MarketRows) -> Backend:
    insert(backend, "symbols", rows.symbols)
    insert(backend, "ohlcv_1d", rows.bars)
    insert(backend, "economic_calendar", rows.calendar)
    backend.sql("analyze")
    return backend
