"""Wires the app: `create_app(settings)` builds it, its lifespan starts and stops the service."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import anyio
from fastapi import FastAPI

from kronos_service.inference.http import error_responses, openapi, routes
from kronos_service.inference.http.middleware import BodyLimit, Trace
from kronos_service.inference.market.market import utc_now
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings


def create_app(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> FastAPI:
    """The app with its service in `app.state.service`; `clock` says which sessions have closed."""
    service = Service(settings, clock=clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(service.start)
        yield
        await anyio.to_thread.run_sync(service.stop)

    app = FastAPI(title="Event-conditioned Kronos", version="1", lifespan=lifespan, redirect_slashes=False)
    app.state.service, app.state.settings = service, settings
    for router in (routes.forecasts, routes.adapters, routes.public):
        app.include_router(router)
    error_responses.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, most_bytes=settings.max_body_bytes)
    app.add_middleware(Trace, metrics=service.metrics, is_closing=lambda: service.queue.is_closed)
    return app
