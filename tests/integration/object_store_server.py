"""An S3 server on the loopback, run by `object_store.py` in an environment of its own.

It is moto's, which honours If-None-Match and If-Match on PUT. moto compares and then writes: two threads
could both pass. A real store decides at once, and so does this one: a lock is held around each request.

`PUT /_faults` takes a list of {method, part, status, times}: so many
requests of the method whose path holds the part are answered with the status; `lost` does what is asked and
loses the answer.
"""

import json
import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
faults: list[dict[str, Any]] = []


def serve(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """One request at a time."""
    path, size = environ["PATH_INFO"], int(environ.get("CONTENT_LENGTH") or 0)
    with lock:
        if path == "/_faults":
            faults[:] = json.loads(environ["wsgi.input"].read(size))
            return say(start, "200 OK")
        fault = planned(environ["REQUEST_METHOD"], path)
        if fault is None:
            return list(moto(environ, start))
        if fault == "lost":
            list(moto(environ, lambda *_, **__: None))
            return say(start, "500 Internal Server Error")
        environ["wsgi.input"].read(size)
        return say(start, fault)


def planned(method: str, path: str) -> str | None:
    """The status to answer with, if there is one."""
    for one in faults:
        if one["times"] > 0 and one["method"] == method and one["part"] in path:
            one["times"] -= 1
            return str(one["status"])
    return None


def say(start: Any, status: str) -> list[bytes]:
    """An answer that is not moto's."""
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{status[4:].replace(' ', '')}</Code></Error>".encode()]


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, serve, threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
