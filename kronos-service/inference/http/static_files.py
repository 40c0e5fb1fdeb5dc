"""The page and the API's description for browsers: static files that load nothing from anywhere else."""

import gzip
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from kronos_service.inference import page

STATIC: Final = Path(page.__file__).resolve().with_name("static")
"""Links are resolved first: a strict editable install consists of them."""
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Spelt out: what Python guesses depends on its version and on the registry of Windows."""
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline and nothing of another origin is run, styled by, asked or framed."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
"""no-cache: kept, and asked for again by its ETag, so that no page outlives the version it belongs to."""


class PageFiles(StaticFiles):
    """Files with the policy, compressed for who takes that; 304 where the browser has them."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if not isinstance(response, FileResponse):
            return response
        response.headers["Content-Type"] = TYPES.get(Path(full_path).suffix, "text/plain; charset=utf-8")
        if "gzip" not in Headers(scope=scope).get("Accept-Encoding", ""):
            return response
        content = _compressed(Path(full_path), stat_result.st_mtime_ns)
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(content, status_code, headers=headers | {"Content-Encoding": "gzip"})


@lru_cache(maxsize=64)
def _compressed(path: Path, _modified: int) -> bytes:
    """A file in a third of its bytes, made once for each time that it was modified."""
    return gzip.compress(path.read_bytes(), mtime=0)


files = PageFiles(directory=STATIC)
browser = APIRouter(include_in_schema=False)


@browser.get("/")
async def root(request: Request) -> Response:
    """Lead to the page, under the path where a proxy publishes it."""
    return RedirectResponse(f"{request.app.state.settings.root_path}/ui", headers=HEADERS)


@browser.get("/ui/")
async def page_with_slash(request: Request) -> Response:
    """The same: the page names its files relative to /ui."""
    return await root(request)


@browser.get("/ui")
async def index(request: Request) -> Response:
    """The page."""
    return await files.get_response("index.html", request.scope)


@browser.get("/docs")
async def docs(request: Request) -> Response:
    """Every endpoint, field and error, as /openapi.json describes them."""
    return await files.get_response("docs.html", request.scope)


@browser.get("/ui/static/{path:path}")
async def static(path: str, request: Request) -> Response:
    """A file of the page."""
    return await files.get_response(path, request.scope)
