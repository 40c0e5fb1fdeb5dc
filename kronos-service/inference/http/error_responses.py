"""Every error in one JSON form, which never repeats what was sent."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kronos_service.inference.errors import FieldFault, ServiceError, Unprocessable, unprocessable
from kronos_service.inference.schemas import ErrorOut, ErrorResponse

MOST_FAULTS: Final = 20
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    """Make the app answer every error in this form."""
    app.add_exception_handler(ServiceError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)


def error_response(request_id: str, error: Exception) -> JSONResponse:
    """The response to an error; an unforeseen one is a 500 that tells nothing."""
    status, body, headers = 500, ErrorOut(code="internal", message="an error on our side: see the log"), {}
    if isinstance(error, RequestValidationError):
        error = faults_of(error.errors())
    if isinstance(error, ServiceError):
        status = error.status
        body = ErrorOut(code=error.code, message=str(error), fields=error.fields)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, HTTPException):
        status = error.status_code
        body = ErrorOut(code=_CODES.get(status, "bad_request"), message=str(error.detail))
        headers = dict(error.headers or {})
    content = ErrorResponse(error=body, request_id=request_id)
    return JSONResponse(content.model_dump(), status_code=status, headers=headers)


def faults_of(errors: Sequence[Any]) -> Unprocessable:
    """Pydantic's errors as a 422, by field."""
    faults = [
        FieldFault(field=".".join(map(str, error["loc"])) or "body", message=error["msg"])
        for error in errors[:MOST_FAULTS]
    ]
    return unprocessable(*faults)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return error_response(request.state.request_id, error)
