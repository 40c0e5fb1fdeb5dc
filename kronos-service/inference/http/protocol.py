"""HTTP/1.1 with limits in time and number, which uvicorn leaves to a proxy: a connection must send the whole
head of a request, then its whole body, each within a time, and there are only so many connections.
"""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class BoundedProtocol(H11Protocol):
    """One connection of a server that holds at most `most_connections`.

    A client that connects beyond that takes the place of the one that has kept its head unfinished for the
    longest; where every connection has a request, it is answered 503.
    """

    def __init__(
        self, *args: Any, most_connections: int, head_seconds: float, body_seconds: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._most_connections = most_connections
        self._seconds = {h11.IDLE: head_seconds, h11.SEND_BODY: body_seconds}
        self._part: type | None = None
        """What the client is sending: a head (IDLE), a body, or nothing that has a deadline."""
        self._since = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most_connections and not self._take_a_place():
            transport.write(FULL)
            transport.close()
            return
        self._watch(h11.IDLE)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # a deadline belongs to a whole head or body: further bytes of the same one do not extend it
        if self.conn.their_state is not self._part:
            self._watch(self.conn.their_state)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._watch(None)  # between two requests uvicorn's own time for idle connections counts

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch(None)
        super().connection_lost(exc)

    def _watch(self, part: type | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._part, self._since = part, self.loop.time()
        if part in self._seconds:
            self._deadline = self.loop.call_later(self._seconds[part], self._give_up)

    def _give_up(self) -> None:
        self.transport.abort()  # a polite close would wait for a client that reads nothing

    def _take_a_place(self) -> bool:
        waiting = [
            one
            for one in self.connections
            if isinstance(one, BoundedProtocol) and one is not self and one._part is h11.IDLE
        ]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda one: one._since)
        self.connections.discard(oldest)
        oldest._give_up()
        return True
