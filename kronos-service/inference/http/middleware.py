"""Around every request: an id, its time, a log line, a limit on the body, and a response whatever happens."""

import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_service.inference.errors import BodyTooLarge, Overloaded
from kronos_service.inference.http.error_responses import error_response
from kronos_service.inference.metrics import Metrics

REQUEST_ID: Final = "X-Request-Id"
LINGER_SECONDS: Final = 5.0
"""How long a body that is rejected is still read, and thrown away."""
HUNG_UP: Final = 499
"""Counted, as nginx does, where the client left before its answer was there; nobody reads a response."""
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = structlog.get_logger()


class Trace:
    """Gives each request its id (the client's own, if it is safe to log), and counts and logs its outcome."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, is_closing: Callable[[], bool]) -> None:
        self.app, self.metrics, self.is_closing = app, metrics, is_closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent if _SAFE_ID.fullmatch(sent) else uuid.uuid4().hex
        arrived = time.monotonic()
        scope.setdefault("state", {}).update(request_id=request_id, arrived=arrived)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if self.is_closing():
                    headers["Connection"] = "close"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                status = HUNG_UP
            except Exception as error:
                _log.exception("request_failed")
                if status == 0:
                    await error_response(request_id, error)(scope, receive, send_with_id)
            self._record(scope, status, time.monotonic() - arrived)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(route, status).inc()
        if (caller := scope["state"].get("caller")) is not None:
            self.metrics.key_requests.labels(caller.name, status).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        _log.info("request", method=scope["method"], route=route, status=status, seconds=round(seconds, 4))


class HeadAsGet:
    """Answers HEAD as GET: monitors ask so. The server itself sends no content after it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self.app({**scope, "method": "GET"} if is_head else scope, receive, send)


async def _then_read_on(receive: Receive, send: Send, message: Message) -> None:
    """Send a message of a response; after its content, read what the client still sends.

    Many clients read the response only after the whole body: with its bytes unread the kernel would reset
    the connection, and they would see that instead.
    """
    if message["type"] != "http.response.body":
        await send(message)
        return
    await send({**message, "more_body": True})
    with anyio.move_on_after(LINGER_SECONDS):
        while (await receive()).get("more_body", False):
            pass
    await send({"type": "http.response.body", "body": b""})


class BodyLimit:
    """Rejects a body over the limit before it is parsed: by its declared length, or as it arrives; and a
    further body while those being received take all the memory that they may.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int, most_held: int) -> None:
        self.app, self.most_bytes, self.most_held = app, most_bytes, most_held
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("Content-Length", "")
        if declared.isdecimal() and int(declared) > self.most_bytes:
            await self._reject(scope, receive, send)
            return
        received, is_whole = 0, False

        async def counted() -> Message:
            nonlocal received, is_whole
            message = await receive()
            is_whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            if received + size <= self.most_bytes and self.held + size > self.most_held:
                raise Overloaded("too many bodies are being received: try later", retry_after=1)
            received += size
            self.held += size
            if received > self.most_bytes:
                raise self._error()
            return message

        async def unless_rejected(message: Message) -> None:
            if received <= self.most_bytes:
                await send(message)

        # Whoever reads the body may turn the error into a response of its own, which is held back.
        try:
            with suppress(BodyTooLarge):
                await self.app(scope, counted, unless_rejected)
        finally:
            self.held -= received
        if received > self.most_bytes:
            await self._reject(scope, receive, send, is_whole=is_whole)

    async def _reject(self, scope: Scope, receive: Receive, send: Send, *, is_whole: bool = False) -> None:
        response = error_response(scope["state"]["request_id"], self._error())
        response.headers["Connection"] = "close"
        reads_on = not is_whole and "expect" not in Headers(scope=scope)
        await response(scope, receive, partial(_then_read_on, receive, send) if reads_on else send)

    def _error(self) -> BodyTooLarge:
        return BodyTooLarge(f"expected a body of at most {self.most_bytes} bytes: send fewer bars or series")
