"""Who may do what: bearer keys of two roles, compared in constant time."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from kronos_service.inference.errors import Forbidden, Unauthorized
from kronos_service.inference.settings import Settings

Role = Literal["forecast", "admin"]

_BEARER: Final = HTTPBearer(auto_error=False, description="An API key, or for /v1/adapters an admin key.")


def role_of(key: str, settings: Settings) -> Role | None:
    """The role of a key, or None; every known key is compared, so the time tells nothing about them."""
    is_api, is_admin = _is_among(key, settings.api_keys), _is_among(key, settings.admin_keys)
    return "admin" if is_admin else "forecast" if is_api else None


def requires(*roles: Role) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only keys of these roles pass: 401 without a known key, 403 for another role."""

    async def check(
        request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> None:
        if sent is None:
            raise Unauthorized("expected a key, got none: send Authorization: Bearer KEY")
        role = role_of(sent.credentials, request.app.state.settings)
        if role is None:
            raise Unauthorized("this key is not known: check it, or ask the operator for one")
        if role not in roles:
            raise Forbidden(f"expected a key of role {' or '.join(roles)}, got one of role {role}")

    return check


def _is_among(key: str, known: tuple[SecretStr, ...]) -> bool:
    sent = key.encode()
    found = [hmac.compare_digest(sent, one.get_secret_value().encode()) for one in known]
    return any(found)
