"""Every error in one JSON form, which never repeats what was sent."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from kronos_service.inference.errors import FieldFault, ServiceError, Unprocessable, unprocessable
from kronos_service.inference.schemas import ErrorOut, ErrorResponse

MOST_FAULTS: Final = 20
MOST_LISTED: Final = 5000
"""Faults that take 20 ms to list; two million took 31 s and 2.5 GB."""
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


def body_faults(error: ValidationError) -> Unprocessable:
    """What is wrong with a body as a 422; faults beyond count are not turned into objects one by one."""
    if (count := error.error_count()) > MOST_LISTED:
        message = f"{count} values cannot be used, too many to list: send a part of it to see them"
        return unprocessable(FieldFault(field="body", message=message))
    return faults_of(error.errors(include_input=False, include_url=False))


def faults_of(errors: Sequence[Any]) -> Unprocessable:
    """Pydantic's errors as a 422, by field."""
    faults = [
        FieldFault(field=".".join(map(str, error["loc"])) or "body", message=error["msg"])
        for error in errors[:MOST_FAULTS]
    ]
    return unprocessable(*faults)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return error_response(request.state.request_id, error)
