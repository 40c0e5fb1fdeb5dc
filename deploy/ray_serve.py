"""The service under Ray Serve: the same app in as many replicas as the load asks for.

    KRONOS_API_KEYS=... python deploy/ray_serve.py --max-replicas 8

The settings are the service's own (docs/serving.md) and travel with the replicas; paths and the variables
of a database must mean the same on every node. Each replica follows LATEST by itself and has a queue of its
own: limits and shares count per replica, and a pin binds the replica that took it; a rollback reaches all.
Ray's proxy accepts the connections, within its own limits.
"""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from ray import serve

from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.server import configure_logs
from kronos_service.inference.settings import Settings, load_settings

START_SECONDS: Final = 300
"""A replica that is not ready by then takes requests, and its answers say what is missing."""


def deployment(settings: Settings, *, most: int, least: int = 1) -> serve.Application:
    """The application, with `least` to `most` replicas."""

    def replica() -> FastAPI:
        configure_logs()
        own = settings.state_dir / serve.get_replica_context().replica_id.unique_id
        app = create_app(settings.model_copy(update={"state_dir": own}))
        start_ready_first(app)
        return app

    # about one batch; where more than that wait, another replica answers sooner
    busy = max(1, settings.queue_size // 4)
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": busy}
    return serve.deployment(
        serve.ingress(replica)(),
        name="kronos",
        autoscaling_config=scaling,
        max_ongoing_requests=settings.queue_size,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if settings.device.startswith("cuda") else 0},
    ).bind()


def start_ready_first(app: FastAPI) -> None:
    """Let the app's start last until it can forecast: Serve sends a replica requests once it has started, and
    one that still reads its market or loads its model would turn them away.
    """
    start = app.router.lifespan_context

    @asynccontextmanager
    async def ready(started: FastAPI) -> AsyncIterator[None]:
        async with start(started):
            until = time.monotonic() + START_SECONDS
            while started.state.service.lacks() is not None and time.monotonic() < until:
                await asyncio.sleep(0.1)
            yield

    app.router.lifespan_context = ready


def main() -> None:
    """Run until interrupted, on the cluster of RAY_ADDRESS or `ray start`, else on one of this machine."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--max-replicas", type=int, default=8)
    parser.add_argument("--min-replicas", type=int, default=1)
    flags = parser.parse_args()
    settings = load_settings()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    serve.start(http_options={"host": settings.host, "port": settings.port})
    app = deployment(settings, most=flags.max_replicas, least=flags.min_replicas)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve.run(app, name="kronos", blocking=True)
    finally:
        serve.shutdown()  # a cluster that goes on would keep the replicas, and their processors


if __name__ == "__main__":
    main()
