"""What stands before PostgREST in a hosted project: it checks the key, and passes on what its role asks.

`Gateway` is a transport of httpx, in the client's own process. Run as a program, this file is the same
behind a real socket, with a round trip that takes time, and with faults at random points:

    GATEWAY_KEYS='["..."]' python gateway.py PORT REST_PORT ROUND_TRIP_S FAULT_PROBABILITY SEED
"""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from backend import KEYS, Backend, free_ports

PREFIX = "/rest/v1"
REFUSED = {
    "message": "Invalid API key",
    "hint": "Double check your Supabase `anon` or `service_role` API key.",
}
PASSED_ON = ("prefer", "accept", "range", "content-type")
FAULTS = ("timeout", "429", "500", "503", "57014", "reset", "truncated", "html")
SLOW_S = 1.5
"""How long a "timeout" lasts; clients under test wait for 1 s."""


class Gateway(httpx.HTTPTransport):
    """Requests to any host go to the backend's PostgREST."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(limits=httpx.Limits(max_connections=16))
        self.backend = backend

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("apikey")
        if key not in KEYS.values():
            return httpx.Response(401, json=REFUSED)
        if not request.url.path.startswith(PREFIX):
            return httpx.Response(404, html="<h1>Not found</h1>")
        target = request.url.raw_path.removeprefix(PREFIX.encode())
        url = request.url.copy_with(
            scheme="http", host="127.0.0.1", port=self.backend.rest_port, raw_path=target
        )
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        headers["authorization"] = f"Bearer {key}"
        sent = httpx.Request(request.method, url, headers=headers, content=request.read())
        sent.extensions = request.extensions
        return super().handle_request(sent)


@contextmanager
def gateway_server(
    backend: Backend, *, round_trip_s: float = 0.0, faults: float = 0.0, seed: int = 0
) -> Iterator[str]:
    """The gateway in a process of its own; yields the address of the project."""
    (port,) = free_ports(1)
    command = [sys.executable, __file__, *map(str, (port, backend.rest_port, round_trip_s, faults, seed))]
    environment = {**os.environ, "GATEWAY_KEYS": json.dumps(list(KEYS.values()))}
    server = subprocess.Popen(command, env=environment)
    try:
        until = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


class Handler(BaseHTTPRequestHandler):
    """One thread a connection; connections are kept."""

    protocol_version = "HTTP/1.1"
    rest_port: int
    round_trip_s: float
    faults: float
    keys: list[str]
    chance: random.Random

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._handle(None)

    def _handle(self, sent: bytes | None) -> None:
        time.sleep(self.round_trip_s)
        fault = self.chance.choice(FAULTS) if self.chance.random() < self.faults else ""
        if fault == "timeout":
            time.sleep(SLOW_S)
            self.close_connection = True
        elif fault in ("429", "500", "503"):
            self._answer(int(fault), b'{"message": "later"}', {"Retry-After": "0"})
        elif fault == "57014":
            self._answer(500, b'{"code": "57014", "message": "canceling statement due to statement timeout"}')
        elif fault == "html":
            self._answer(200, b"<html><h1>Just a moment...</h1></html>", {"Content-Type": "text/html"})
        elif self.headers.get("apikey") not in self.keys:
            self._answer(401, json.dumps(REFUSED).encode())
        elif not self.path.startswith(PREFIX):
            self._answer(404, b"<h1>Not found</h1>", {"Content-Type": "text/html"})
        else:
            self._pass_on(fault, sent)

    def _pass_on(self, fault: str, sent: bytes | None) -> None:
        status, headers, body = self._ask(sent)
        if fault == "truncated":
            body = body[: self.chance.randrange(len(body))]
        cut = self.chance.randrange(len(body)) if fault == "reset" else None
        self._answer(status, body, headers, cut)

    def _ask(self, sent: bytes | None) -> tuple[int, dict[str, str], bytes]:
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        headers["Authorization"] = f"Bearer {self.headers['apikey']}"
        for _ in range(5):
            with suppress(OSError, HTTPException):
                rest = HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
                rest.request(self.command, self.path.removeprefix(PREFIX), body=sent, headers=headers)
                answer = rest.getresponse()
                body = answer.read()
                rest.close()
                kept = ("Content-Type", "Content-Range")
                return answer.status, {n: v for n, v in answer.getheaders() if n in kept}, body
        return 502, {}, b"{}"

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        """With `cut`, the connection is reset after so many bytes of the body."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # clients leave, and so do we
            super().handle()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def main(port: str, rest_port: str, round_trip_s: str, faults: str, seed: str) -> None:
    Handler.rest_port, Handler.round_trip_s = int(rest_port), float(round_trip_s)
    Handler.faults, Handler.chance = float(faults), random.Random(int(seed))
    Handler.keys = json.loads(os.environ["GATEWAY_KEYS"])
    ThreadingHTTPServer.request_queue_size = 64
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
