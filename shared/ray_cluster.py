"""Work on a Ray cluster: the one RAY_ADDRESS names or `ray start` has made here, else one of this machine.

Ray repeats what a dead node was doing on another. What is sent there must therefore leave the same if it runs
twice, and all nodes must see the files under the same paths.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from kronos_shared.cli import needs
from kronos_shared.errors import KronosError

Engine = Literal["local", "ray"]
"""Where a command does its work."""
RETRIES: Final = 10
"""How often a task is repeated whose process or node has died."""


_log = logging.getLogger(__name__)


class ClusterError(KronosError):
    """The cluster cannot be reached, or has lost what it was to do."""


@contextmanager
def cluster() -> Iterator[None]:
    """Be connected to the cluster; leaving ends what still runs there.

    Raises:
        ConfigError: Ray is not installed.
        ClusterError: there is none at RAY_ADDRESS, or the work was lost.
        KronosError: what a task raised.
    """
    with needs("ray"):
        import ray
        from ray.exceptions import RayError, RayTaskError
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise ClusterError(f"no Ray cluster at {where}: {' '.join(str(error).split())[:200]}") from None
    if _free_processors() < 1:
        # without this line a cluster that others fill looks like a command that hangs
        _log.warning(
            "the cluster has no free processor: this waits until one is (ray status says who has them)"
        )
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, KronosError):
            raise error.cause from None
        raise
    except RayError as error:
        raise ClusterError(f"the cluster lost the work: {' '.join(str(error).split())[:200]}") from None
    finally:
        ray.shutdown()


def workers() -> int:
    """Processes that can work at once: one per GPU where there are any, else one per processor."""
    found = _resources()
    return max(1, int(found.get("GPU", 0) or found.get("CPU", 1)))


def gpus_each() -> int:
    """GPUs that one of them occupies, beside a processor."""
    return 1 if _resources().get("GPU") else 0


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _free_processors() -> float:
    import ray

    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free.get("CPU", 0)


def run_tasks(function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Iterator[int]:
    """Call the function with each tuple of arguments, as many at once as there are workers, each in this
    process's directory, so that relative paths mean the same.

    Yields the place of each tuple once its call has returned.
    """
    import ray

    def call(directory: Path, given: tuple[Any, ...]) -> None:
        os.chdir(directory)
        function(*given)

    remote: Any = ray.remote(num_cpus=1, num_gpus=gpus_each(), max_retries=RETRIES)(call)
    here = Path.cwd()
    waiting = {remote.remote(here, given): place for place, given in enumerate(arguments)}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        ray.get(done)
        yield waiting.pop(done)
