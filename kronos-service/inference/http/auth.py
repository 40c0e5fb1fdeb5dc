"""Who may do what: bearer keys of two roles."""

import structlog
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from kronos_service.inference.errors import Forbidden, Unauthorized
from kronos_service.inference.http.keys import KeyRing, Role


class RequireKey(HTTPBearer):
    """Lets only keys of these roles pass: 401 without a known key, 403 for another role.

    The caller is `request.state.caller` from then on, and its name is in every log line of the request.
    """

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
        keys: KeyRing = request.app.state.keys
        caller = keys.caller_of(sent.credentials)
        if caller is None:
            raise Unauthorized("this key is not known: check it, or ask the operator for one")
        request.state.caller = caller
        structlog.contextvars.bind_contextvars(key=caller.name)
        if caller.role not in self.roles:
            raise Forbidden(
                f"expected a key of role {' or '.join(self.roles)}, got one of role {caller.role}"
            )
        return sent
