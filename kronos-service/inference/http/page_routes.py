"""What the page asks beside forecasts: symbols and their bars."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from kronos_service.inference.errors import NotReady
from kronos_service.inference.http.auth import RequireKey
from kronos_service.inference.http.routes import ServiceHere, errors_of
from kronos_service.inference.market.market import Market
from kronos_service.inference.page.bars import BarsOut, bars_around
from kronos_service.inference.page.symbols import SymbolsOut, search
from kronos_service.inference.schemas import Symbol
from kronos_service.inference.service import RETRY_SECONDS, Service

market_data = APIRouter(
    prefix="/v1",
    tags=["market"],
    dependencies=[Depends(RequireKey("forecast", "admin"))],
    responses=errors_of(401, 403, 422, 503),
)


def _market_of(service: Service) -> Market:
    """The market, or NotReady."""
    market = service.refresher.current()
    if market is None:
        raise NotReady("no market data: GET /v1/model says why", retry_after=RETRY_SECONDS)
    return market


@market_data.get("/symbols")
def symbols(
    service: ServiceHere,
    text: Annotated[str, Query(alias="search", max_length=64)] = "",
    most: Annotated[int, Query(ge=1, le=500)] = 50,
) -> SymbolsOut:
    """The symbols of the source whose name contains a text; those that begin with it first."""
    market, after = _market_of(service), service.settings.stale_after
    return search(market, text, most=most, now=service.clock(), stale_after=after)


@market_data.get("/bars")
def bars(
    service: ServiceHere,
    symbol: Annotated[Symbol, Query()],
    as_of: date | None = None,
    most: Annotated[int, Query(ge=1, le=1024)] = 160,
) -> BarsOut:
    """A symbol's bars up to a date, those that came after it, and the releases on them and ahead."""
    horizon = service.settings.max_horizon
    return bars_around(_market_of(service), symbol, as_of=as_of, most=most, horizon=horizon)
