"""Wires the app: `create_app(settings)` builds it, its lifespan starts and stops the service."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import anyio
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from kronos_service.inference.http import error_responses, page_routes, routes, static_files
from kronos_service.inference.http.keys import KeyRing
from kronos_service.inference.http.middleware import REQUEST_ID, BodyLimit, HeadAsGet, Trace
from kronos_service.inference.market.market import utc_now
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings

DESCRIPTION: Final = """Forecasts of daily candles, given what was scheduled, released and traded at as_of.

A bar exists only once its session has closed. A what-if surprise moves the bars *after* its date. The same
seed, model and inputs give the same numbers, alone or in any batch."""


def create_app(
    settings: Settings, *, clock: Callable[[], datetime] = utc_now, needs_keys: bool = True
) -> FastAPI:
    """The app with its service in `app.state.service`.

    Args:
        clock: says which sessions have closed.
        needs_keys: False lets every caller on this machine do everything, as `serve --demo` does.
    """
    service = Service(settings, clock=clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(service.start)
        yield
        await anyio.to_thread.run_sync(service.stop)

    app = FastAPI(
        title="Event-conditioned Kronos",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service, app.state.settings, app.state.keys = service, settings, KeyRing(settings)
    app.state.needs_keys = needs_keys
    ours = (routes.forecasts, routes.adapters, page_routes.market_data, page_routes.versions, routes.public)
    for router in ours:
        app.include_router(router)
    if settings.ui:
        app.include_router(static_files.browser)
    error_responses.install(app)
    app.add_middleware(BodyLimit, most_bytes=settings.max_body_bytes, most_held=settings.max_held_bytes)
    app.add_middleware(HeadAsGet)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(Trace, metrics=service.metrics, is_closing=lambda: service.queue.is_closed)
    return app
