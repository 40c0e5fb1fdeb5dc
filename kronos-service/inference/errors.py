"""What the service answers instead of a forecast: one error per status, each saying what to do about it."""

from dataclasses import dataclass
from typing import ClassVar

from kronos_shared.errors import KronosError


@dataclass(frozen=True, kw_only=True)
class FieldFault:
    """One field of a request that cannot be used; `field` is its path, such as series.0.candles.17.close."""

    field: str
    message: str


class ServiceError(KronosError):
    """A request that is answered with `status`; `code` is what a program tells the cause by."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(
        self, message: str, *, fields: tuple[FieldFault, ...] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.fields = fields
        self.retry_after = retry_after
        """Seconds after which another try makes sense."""


class Unauthorized(ServiceError):
    """No key, or one that is not known."""

    status, code = 401, "unauthorized"


class Forbidden(ServiceError):
    """A known key of the wrong role."""

    status, code = 403, "forbidden"


class NotFound(ServiceError):
    """No thing of that name."""

    status, code = 404, "not_found"


class AdapterRefused(ServiceError):
    """A version that is not there or must not serve; what served keeps serving."""

    status, code = 409, "adapter_refused"


class BodyTooLarge(ServiceError):
    """A body beyond the limit; it was not read to its end."""

    status, code = 413, "body_too_large"


class NotJson(ServiceError):
    """A body that is declared as something else than JSON."""

    status, code = 415, "not_json"


class Unprocessable(ServiceError):
    """A request whose fields cannot be used."""

    status, code = 422, "unprocessable"


class Overloaded(ServiceError):
    """The queue is full, or too long for the request's deadline."""

    status, code = 429, "overloaded"


class NotReady(ServiceError):
    """Nothing can be forecast yet, or not any more; the message says why."""

    status, code = 503, "not_ready"


class DeadlineExceeded(ServiceError):
    """The deadline passed before the forecast began; nothing was computed."""

    status, code = 504, "deadline_exceeded"


def unprocessable(*faults: FieldFault) -> Unprocessable:
    """A 422 that names every field at fault."""
    first = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:3])
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Unprocessable(first + more, fields=faults)
