"""What the page asks beside forecasts: symbols and their bars, versions and the evidence for them."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter

from kronos_service.inference.errors import NotFound, NotReady
from kronos_service.inference.http.auth import RequireKey
from kronos_service.inference.http.routes import ServiceHere, errors_of
from kronos_service.inference.market.market import Market
from kronos_service.inference.models.loader_status import one_line
from kronos_service.inference.page.bars import BarsOut, bars_around
from kronos_service.inference.page.record import RecordOut, read_record
from kronos_service.inference.page.symbols import SymbolsOut, search
from kronos_service.inference.page.trust import TrustOut, trust_of
from kronos_service.inference.page.versions import VersionsOut, versions_of
from kronos_service.inference.schemas import Symbol
from kronos_service.inference.service import RETRY_SECONDS, Service
from kronos_service.model.adapter.files import AdapterError
from kronos_shared.adapter_manifest import VERSION_PATTERN

market_data = APIRouter(
    prefix="/v1",
    tags=["market"],
    dependencies=[Depends(RequireKey("forecast", "admin"))],
    responses=errors_of(401, 403, 422, 503),
)


versions = APIRouter(
    prefix="/v1",
    tags=["adapters"],
    dependencies=[Depends(RequireKey("forecast", "admin"))],
    responses=errors_of(401, 403),
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


@versions.get("/adapters")
def adapters(service: ServiceHere) -> VersionsOut:
    """The published versions, newest first: which serves, and why others are refused."""
    return versions_of(service.settings.adapters, service.loader.status())


@versions.get("/adapters/{version}", responses=errors_of(404, 422))
def trust(service: ServiceHere, version: Annotated[str, PathParameter(pattern=VERSION_PATTERN)]) -> TrustOut:
    """What the manifest of a version says of how far it can be trusted, and its model card."""
    try:
        return trust_of(service.settings.adapters, version, serving=service.loader.current())
    except AdapterError as error:
        raise NotFound(one_line(str(error), without=[service.settings.adapters])) from None


@versions.get("/record")
def record(service: ServiceHere) -> RecordOut:
    """How past forecasts turned out, where the operator names a scorecard."""
    return read_record(service.settings.scorecard)
