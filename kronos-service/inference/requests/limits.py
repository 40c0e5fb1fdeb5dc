"""What one request may ask for at most, whatever serves."""

from collections.abc import Iterator

from kronos_service.inference.errors import FieldFault, unprocessable
from kronos_service.inference.schemas import ForecastRequest
from kronos_service.inference.settings import Settings


def check_limits(request: ForecastRequest, settings: Settings) -> None:
    """Raise Unprocessable naming every field that is over its limit."""
    faults = tuple(_faults(request, settings))
    if faults:
        raise unprocessable(*faults)


def _faults(request: ForecastRequest, settings: Settings) -> Iterator[FieldFault]:
    limits = {
        "series": (len(request.series), settings.max_series),
        "horizon": (request.horizon, settings.max_horizon),
        "paths": (request.paths, settings.max_paths),
        "deadline_ms": (request.deadline_ms or 0, settings.max_deadline_ms),
    }
    for field, (value, limit) in limits.items():
        if value > limit:
            yield FieldFault(field=field, message=f"expected at most {limit}, got {value}")
    rows = len(request.series) * request.paths
    if rows > settings.max_rows:
        message = (
            f"{len(request.series)} series x {request.paths} paths are {rows}, more than {settings.max_rows}"
        )
        yield FieldFault(field="paths", message=message)
    if len(set(request.quantiles)) < len(request.quantiles):
        yield FieldFault(field="quantiles", message="expected each level once")
