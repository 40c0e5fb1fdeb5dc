"""Runs the app: uvicorn, JSON logs on stderr, and a shutdown that loses no admitted request."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI

from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.demo import announce, demo_settings
from kronos_service.inference.http.protocol import BoundedProtocol
from kronos_service.inference.models.replica_state import sole_use
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings
from kronos_service.model.factory import require_device
from kronos_shared.errors import KronosError

SWITCH_SECONDS: Final = 0.001
"""How often Python may change threads: at the default 5 ms a rejection waits for the running forecast."""
NOTICE_SECONDS: Final = 1.0
"""For so long after the signal connections still get a 503, until load balancers have seen /readyz fail."""

SHUTDOWN_SECONDS: Final = 5
"""After everything admitted has its answer: a half-sent request or an unread answer is cut off then."""
RESERVED_FILES: Final = 128
"""Open files kept from connections, for the store, the source and the libraries."""
BACKLOG: Final = 128
"""Connections that the system accepts ahead of the service."""
ROUNDS: Final = 3
"""Turns of the event loop from accepting a connection too many to closing one; each may accept a backlog."""

_log = structlog.get_logger()
_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


class Server(uvicorn.Server):
    """On SIGTERM, SIGINT or SIGHUP it admits nothing more, finishes what it admitted, and exits."""

    def __init__(
        self, config: uvicorn.Config, service: Service, announce: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(config)
        self.service, self.announce = service, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where: port 0 is known only now."""
        await super().startup(sockets)
        if self.announce is not None and not self.should_exit:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            port = self.servers[0].sockets[0].getsockname()[1]
            self.announce(f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; exit at once at the second."""
        if self.service.queue.is_closed:
            super().handle_exit(sig, frame)
            return
        threading.Thread(target=self._drain, args=(signal.Signals(sig).name,), name="drain").start()

    def _drain(self, signal_name: str) -> None:
        _log.info("draining", signal=signal_name, waiting=self.service.queue.depth)
        self.service.queue.close()
        self.service.queue.join()
        threading.Event().wait(NOTICE_SECONDS)
        self.should_exit = True


class AddressError(KronosError):
    """The service cannot listen where it should."""


def require_free(host: str, port: int) -> None:
    """Check that the service can listen, before it loads anything: uvicorn tries only after start-up.

    Raises:
        AddressError: the port is in use or not permitted, or the host is not an address of this machine.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":  # elsewhere it would share a port in use
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise AddressError(
            f"cannot listen on {host} port {port} ({error.strerror}): end what uses it, or set KRONOS_PORT "
            "or KRONOS_HOST"
        ) from None


def serve_demo() -> None:
    """Serve the sample market to this machine, without keys; raises as `demo_settings` and `serve`."""
    with demo_settings() as settings:
        serve(settings, announce=announce)


def serve(settings: Settings, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve until a signal ends it.

    Args:
        announce: for a demo, which asks for no key: called with its address once it listens.

    Raises:
        SettingsError: another service uses the state directory, or what the app says.
        AddressError: it cannot listen on its host and port.
        BaseModelError: there is no such device.
    """
    require_free(settings.host, settings.port)
    require_device(settings.device)
    app = create_app(settings, needs_keys=announce is None)
    configure_logs()
    with sole_use(settings.state_dir):
        _serve(app, settings, announce)


def _serve(app: FastAPI, settings: Settings, announce: Callable[[str], None] | None) -> None:
    if settings.source == "snapshot" and settings.snapshot is None:
        _log.warning("sample_market", advice="its prices are made up: set KRONOS_SNAPSHOT or KRONOS_SOURCE")
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # imported modules hold half a million objects: a full collection would stop all for 0.2 s
    server = Server(server_config(app, settings), app.state.service, announce)
    if hasattr(signal, "SIGHUP"):  # uvicorn knows SIGTERM and SIGINT only
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run()


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How the app is served: HTTP/1.1 within the settings' limits."""
    files = _open_files()
    backlog = min(BACKLOG, files // 8)
    protocol = partial(
        BoundedProtocol,
        most_connections=max(1, min(settings.max_connections, files - RESERVED_FILES - ROUNDS * backlog)),
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol,  # type: ignore[arg-type]
        loop="asyncio",  # not whatever else is installed: uvloop comes with Ray
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=backlog,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _open_files() -> int:
    """How many files and connections this process may hold open."""
    try:
        import resource
    except ImportError:  # Windows
        return 8192
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def configure_logs() -> None:
    """Send structlog and the standard library's loggers through one JSON writer."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # these log every request with its address, which may hold a key or a name
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
