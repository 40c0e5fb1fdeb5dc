"""The endpoints: each names what it needs, and calls the service."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from kronos_service.inference.errors import AdapterRefused, FieldFault, NotJson, NotReady, unprocessable
from kronos_service.inference.http.auth import RequireKey
from kronos_service.inference.http.error_responses import body_faults
from kronos_service.inference.http.status import StatusOut, status_of
from kronos_service.inference.schemas import ErrorResponse, ForecastRequest, ForecastResponse, VersionBody
from kronos_service.inference.service import RETRY_SECONDS, Service
from kronos_shared.errors import KronosError

SMALL_BODY: Final = 16_384
"""Bytes that are parsed in less time than it takes to wake another thread."""

_REASONS: Final = {
    401: "No key, or one that is not known.",
    403: "A key of the wrong role.",
    404: "There is no such version.",
    409: "The adapter is refused, or there is none; nothing has changed.",
    413: "The body is over its limit.",
    415: "The body is not JSON.",
    422: "Fields that cannot be used, each by its path.",
    429: "The queue is full, or too long for the deadline; Retry-After says when to try again.",
    503: "Not ready, or shutting down; the message says why.",
    504: "The deadline passed while the request waited.",
}


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route may answer, as the API describes them."""
    return {status: {"model": ErrorResponse, "description": _REASONS[status]} for status in statuses}


class JsonRoute(APIRoute):
    """Runs the dependencies of the route's decorator before it reads the body.

    FastAPI alone reads the body first, so anybody could make a replica parse 4 MiB; and it parses JSON before
    the model sees it, where a strict model no longer takes a date written as text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the checks."""
        handle = super().get_route_handler()
        checks: list[Any] = [one.dependency for one in self.dependencies]
        field = self.body_field
        if field is None:
            return handle

        async def check_then_handle(request: Request) -> Response:
            for check in checks:
                await check(request)
            parsed = _ParsedRequest(request.scope, request.receive)
            parsed.state.body = await _read_body(parsed, field.field_info.annotation)
            return await handle(parsed)

        return check_then_handle


class _ParsedRequest(Request):
    """A request whose `json` is the model itself, which FastAPI then passes on."""

    async def json(self) -> Any:
        return self.state.body


async def _read_body(request: Request, model: Any) -> BaseModel:
    """The body as a model, parsed in another thread if it is large.

    Raises:
        NotJson: another content type, or compressed.
        Unprocessable: names every field at fault; NaN and infinite numbers are faults.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise NotJson(f"expected Content-Type application/json, got {kind[:64] or 'none'}")
    if (encoding := request.headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
        raise NotJson(f"expected a body without Content-Encoding, got {encoding[:64]!r}: send it as it is")
    body = await request.body()
    parse = partial(_parse, model, body, most_values=request.app.state.settings.most_values)
    if len(body) <= SMALL_BODY:
        return parse()
    return await (await service_of(request)).preparation.run(parse)


def _parse(model: type[BaseModel], body: bytes, *, most_values: int) -> BaseModel:
    if body.count(b",") > most_values:  # parsing alone would take a second and 400 MB
        message = f"expected at most {most_values} values, got more: send fewer bars, series or events"
        raise unprocessable(FieldFault(field="body", message=message))
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise body_faults(error) from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """What the work gives; it is cancelled once the client has hung up.

    Raises:
        ClientDisconnect: it has.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def service_of(request: Request) -> Service:
    """The app's service."""
    service: Service = request.app.state.service
    return service


async def require_room(request: Request) -> None:
    """Raise NotReady or Overloaded while nothing can be admitted, whatever the body says."""
    (await service_of(request)).check_open(request.state.caller.name)


ServiceHere = Annotated[Service, Depends(service_of)]


def _changed(service: Service, change: Callable[[], object]) -> StatusOut:
    try:
        change()
    except KronosError as error:
        raise AdapterRefused(str(error)) from None
    return status_of(service)


public = APIRouter(tags=["health"])
forecasts = APIRouter(prefix="/v1", tags=["forecasts"], route_class=JsonRoute)
adapters = APIRouter(
    prefix="/v1/adapters",
    tags=["adapters"],
    route_class=JsonRoute,
    dependencies=[Depends(RequireKey("admin"))],
    responses=errors_of(401, 403, 409, 413, 415, 422),
)


@forecasts.post(
    "/forecast",
    dependencies=[Depends(RequireKey("forecast")), Depends(require_room)],
    response_model=ForecastResponse,
    responses=errors_of(401, 403, 413, 415, 422, 429, 503, 504),
)
async def forecast(request: Request, service: ServiceHere, body: ForecastRequest) -> Response:
    """Sample paths, quantiles and mean of the next bars of each series, given what was known at its as_of."""
    state = request.state
    work = service.forecast(
        body, caller=state.caller.name, request_id=state.request_id, arrived=state.arrived
    )
    content = await _unless_gone(request, work)
    return Response(content, media_type="application/json")


@forecasts.get(
    "/model", dependencies=[Depends(RequireKey("forecast", "admin"))], responses=errors_of(401, 403)
)
def model(service: ServiceHere) -> StatusOut:
    """What serves, from which data, within which limits; and why not what was meant to."""
    return status_of(service)


@adapters.post("/reload")
def reload(service: ServiceHere) -> StatusOut:
    """Look at LATEST.json now, also at what was refused before, and wait for the outcome."""
    return _changed(service, service.loader.reload)


@adapters.post("/pin")
def pin(service: ServiceHere, body: VersionBody) -> StatusOut:
    """Keep this replica on one version, whatever is published; null follows LATEST.json again."""
    return _changed(service, lambda: service.loader.pin(body.version))


@adapters.post("/rollback")
def rollback(service: ServiceHere, body: VersionBody) -> StatusOut:
    """Publish an older version again, for every replica; null: the one before the latest."""
    return _changed(service, lambda: service.loader.rollback(body.version))


@public.get("/livez", response_class=PlainTextResponse)
async def livez() -> str:
    """The process answers."""
    return "ok"


@public.get("/readyz", response_class=PlainTextResponse, responses=errors_of(503))
async def readyz(service: ServiceHere) -> str:
    """Forecasts are answered."""
    if (lacking := service.lacks()) is not None:
        raise NotReady(lacking, retry_after=RETRY_SECONDS)
    return "ready"


@public.get("/metrics", response_class=PlainTextResponse)
def metrics(service: ServiceHere) -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
