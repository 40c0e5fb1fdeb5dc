"""Who may do what: bearer keys of two roles."""

import re
from typing import Final

import structlog
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from kronos_service.inference.errors import Forbidden, Unauthorized
from kronos_service.inference.http.keys import Caller, KeyRing, Role

_LOCAL_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")


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

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        if not request.app.state.needs_keys:
            self._pass_local(request)
            return None
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

    def _pass_local(self, request: HTTPConnection) -> None:
        """Let a caller without a key pass where the request was meant for this machine.

        A browser sends requests of other sites' pages too, and a name server may have told it that another
        site is this machine: then the origin is not the host, or the host is no local name.
        """
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        is_local = _LOCAL_HOST.fullmatch(host) is not None
        if not is_local or origin not in (None, f"http://{host}"):
            raise Forbidden("the demo answers its own page and programs of this machine only")
        request.state.caller = Caller("demo", self.roles[0])
