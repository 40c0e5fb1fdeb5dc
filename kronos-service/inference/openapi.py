"""The OpenAPI document: the forecast's body is parsed by hand, so its schema is put in by hand too."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from kronos_service.inference.schemas import ForecastRequest

_REFERENCE: Final = "#/components/schemas/{model}"
DESCRIPTION: Final = """Forecasts of daily candles, given what was scheduled, released and traded at as_of.

A bar exists only once its session has closed. A what-if surprise moves the bars *after* its date. The same
seed, model and inputs give the same numbers, alone or in any batch."""


def install(app: FastAPI) -> None:
    """Let the app describe itself with the body of POST /v1/forecast."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    body = ForecastRequest.model_json_schema(ref_template=_REFERENCE)
    schemas = document["components"]["schemas"]
    schemas.update(body.pop("$defs"), ForecastRequest=body)
    document["paths"]["/v1/forecast"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="ForecastRequest")}}},
    }
    return document
