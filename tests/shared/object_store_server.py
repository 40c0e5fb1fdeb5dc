"""An S3 server of this process, on the loopback: moto's, with writes one at a time and faults on demand.

moto compares an object's ETag and then writes: two threads could both pass. A real store decides at once, and
so does this one, because one lock is held around each request.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_REGION": "us-east-1",
}

Answer = Iterable[bytes]
Start = Callable[..., Any]


@dataclass
class Server:
    """The server's application."""

    app: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    requests: list[str] = field(default_factory=list)
    """Method and path of each."""
    fault: Callable[[str, str], str | None] = lambda _method, _path: None
    """By method and path: a status such as `503 Slow Down` instead of an answer; `lost` does what is asked
    and loses the answer.
    """

    def __call__(self, environ: dict[str, Any], start: Start) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self.lock:
            self.requests.append(f"{method} {path}")
            fault = self.fault(method, path)
            if fault not in (None, "lost"):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return _say(start, str(fault))
            answer = list(self.app(environ, start if fault is None else _nothing))
        return answer if fault is None else _say(start, "500 Internal Server Error")

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a client finds it."""
        return KEYS | {"AWS_ENDPOINT_URL": self.url}


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _say(start: Start, status: str) -> Answer:
    code = status.partition(" ")[2].replace(" ", "")
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """The server in a thread."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", port, server, threaded=True)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()


def new_bucket(server: Server, name: str) -> str:
    """Make a bucket, and return its URL with a prefix."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=name)
    return f"s3://{name}/desk/adapters"
