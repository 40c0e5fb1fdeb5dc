"""Who may do what: bearer keys of two roles, compared in constant time."""

import hmac
from typing import Literal

from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from kronos_service.inference.errors import Forbidden, Unauthorized
from kronos_service.inference.settings import Settings

Role = Literal["forecast", "admin"]


class RequireKey(HTTPBearer):
    """Lets only keys of these roles pass: 401 without a known key, 403 for another role."""

    def __init__(self, *roles: Role) -> None:
        super().__init__(
            scheme_name=HTTPBearer.__name__,
            description="An API key, or for /v1/adapters an admin key.",
            auto_error=False,
        )
        self.roles = roles

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials:
        sent = await super().__call__(request)
        if sent is None:
            raise Unauthorized("expected a key, got none: send Authorization: Bearer KEY")
        role = role_of(sent.credentials, request.app.state.settings)
        if role is None:
            raise Unauthorized("this key is not known: check it, or ask the operator for one")
        if role not in self.roles:
            raise Forbidden(f"expected a key of role {' or '.join(self.roles)}, got one of role {role}")
        return sent


def role_of(key: str, settings: Settings) -> Role | None:
    """The role of a key, or None; every known key is compared, so the time tells nothing about them."""
    is_api, is_admin = _is_among(key, settings.api_keys), _is_among(key, settings.admin_keys)
    return "admin" if is_admin else "forecast" if is_api else None


def _is_among(key: str, known: tuple[SecretStr, ...]) -> bool:
    sent = key.encode()
    found = [hmac.compare_digest(sent, one.get_secret_value().encode()) for one in known]
    return any(found)
