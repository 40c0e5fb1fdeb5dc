"""The OpenAPI document: bodies are parsed by hand, after the key, so their schemas are put in by hand too."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from kronos_service.inference.schemas import ForecastRequest, VersionBody

_REFERENCE: Final = "#/components/schemas/{model}"
_BODIES: Final[dict[str, type[BaseModel]]] = {
    "/v1/forecast": ForecastRequest,
    "/v1/adapters/pin": VersionBody,
    "/v1/adapters/rollback": VersionBody,
}
DESCRIPTION: Final = """Forecasts of daily candles, given what was scheduled, released and traded at as_of.

A bar exists only once its session has closed. A what-if surprise moves the bars *after* its date. The same
seed, model and inputs give the same numbers, alone or in any batch."""


def install(app: FastAPI) -> None:
    """Let the app describe itself with the bodies of its requests."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document["components"]["schemas"]
    for path, model in _BODIES.items():
        body = model.model_json_schema(ref_template=_REFERENCE)
        schemas.update(body.pop("$defs", {}), **{model.__name__: body})
        reference = {"$ref": _REFERENCE.format(model=model.__name__)}
        document["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    return document
