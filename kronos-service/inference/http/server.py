"""Runs the app: uvicorn, JSON logs, and an end without loss."""

import gc
import signal
import sys
import threading
from types import FrameType
from typing import Final

import structlog
import uvicorn

from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.logs import configure_logs
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings

SWITCH_SECONDS: Final = 0.001
"""How often Python changes threads: with its usual 5 ms a refusal waits for the forecast that runs."""
NOTICE_SECONDS: Final = 1.0
"""So long after the signal connections are still taken and answered 503, until balancers look elsewhere."""

_log = structlog.get_logger()


class Server(uvicorn.Server):
    """On SIGTERM or SIGINT it admits nothing more, finishes what it admitted, and ends."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or give up draining at once."""
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


def serve(settings: Settings) -> None:
    """Serve until a signal ends it."""
    app = create_app(settings)
    configure_logs()
    if settings.source == "snapshot" and settings.snapshot is None:
        _log.warning("sample_market", advice="its prices are made up: set KRONOS_SNAPSHOT or KRONOS_SOURCE")
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # half a million objects of imported modules: looking through them stops everything for 0.2 s
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False, server_header=False
    )
    Server(config, app.state.service).run()
