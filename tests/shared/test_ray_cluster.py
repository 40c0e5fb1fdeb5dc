"""What connecting to a Ray cluster says of it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from kronos_shared.ray_cluster import cluster

pytestmark = pytest.mark.ray


@pytest.fixture
def others_work(ray_cluster: Any) -> Iterator[None]:
    """Another program holds every processor of the cluster."""
    import ray

    class Other:
        def ready(self) -> None: ...

    def connect() -> None:
        ray.init(address=ray_cluster.address, namespace="others", log_to_driver=False)

    connect()
    count = int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
    remote: Any = ray.remote(num_cpus=count)(Other)
    holder = remote.options(name="holder", lifetime="detached").remote()
    ray.get(holder.ready.remote())
    ray.shutdown()
    yield
    connect()
    ray.kill(ray.get_actor("holder"))
    while ray.available_resources().get("CPU", 0) < count:  # type: ignore[no-untyped-call]
        time.sleep(0.1)
    ray.shutdown()


@pytest.mark.usefixtures("others_work")
def test_a_cluster_without_a_free_processor_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with cluster():
        pass
    assert "no free processor" in caplog.text


@pytest.mark.usefixtures("ray_cluster")
def test_a_free_cluster_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with cluster():
        pass
    assert "processor" not in caplog.text
