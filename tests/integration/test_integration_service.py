"""The service's market from a real database: what a snapshot of the same rows would give."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pandas as pd
import pytest
from backend import KEYS, Backend
from gateway import Gateway
from market_rows import MarketRows
from pydantic import SecretStr

from kronos_service.data.sources import Source
from kronos_service.data.sources.postgres import PostgresSettings, postgres_source
from kronos_service.data.sources.supabase import SupabaseSettings, supabase_source
from kronos_service.inference.market.market import build_market
from kronos_service.inference.market.readers import DatabaseReader

pytestmark = pytest.mark.integration

NOW = datetime(2025, 6, 18, 20, 5, tzinfo=UTC)
"""Five past four in New York, in the middle of the rows."""
REACH = timedelta(days=120)


@pytest.fixture(params=["postgres", "supabase"])
def open_source(
    small: Backend, request: pytest.FixtureRequest
) -> Callable[[], AbstractContextManager[Source]]:
    """Opens the small database over one of both routes."""
    if request.param == "postgres":
        return partial(postgres_source, PostgresSettings(database_url=SecretStr(small.url("trainer"))))
    settings = SupabaseSettings(
        url="https://abc.supabase.co", key=SecretStr(KEYS["kronos_training"]), attempts=2, backoff_s=0
    )
    source = supabase_source(settings, transport=Gateway(small))
    return lambda: nullcontext(source)


def test_the_market_is_that_of_the_rows_that_were_there(
    open_source: Callable[[], AbstractContextManager[Source]], small_rows: MarketRows
) -> None:
    first = pd.Timestamp(date(2025, 2, 18), tz="UTC")
    bars = small_rows.bars[small_rows.bars["ts"] >= first]
    # rows of the future are there too, as bars of a session under way would be: they are not used
    expected = build_market("x", small_rows.symbols, bars, small_rows.calendar, now=NOW)
    read = DatabaseReader(open_source, reach=REACH)
    for moment in (NOW, NOW + timedelta(seconds=60)):
        market = read(moment)
        assert market.bars.keys() == expected.bars.keys()
        for symbol, frame in expected.bars.items():
            pd.testing.assert_frame_equal(market.bars[symbol], frame, check_exact=True)
        pd.testing.assert_frame_equal(market.calendar, expected.calendar, check_exact=True)
    assert expected.bars["SPY"]["ts"].iloc[-1].date() == date(2025, 6, 18)
    assert expected.bars["VIX"]["ts"].iloc[-1].date() == date(2025, 6, 17)
