"""A batch on a real cluster of two nodes: the local engine's file, also where a node dies under it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kronos_service.inference.nightly import memory, ray_engine
from kronos_service.inference.nightly.command import Summary
from kronos_service.inference.nightly.plan import Plan
from kronos_shared.ray_cluster import ClusterError

pytestmark = pytest.mark.ray
Run = Callable[..., tuple[Summary, str]]


def test_a_node_that_dies_in_the_middle_costs_nothing(
    run: Run, ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MOST_SYMBOLS", 1)  # seven chunks: enough to lose one in the middle
    monkeypatch.setattr(memory, "MOST_SYMBOLS", 1)  # seven chunks: enough to lose one in the middle
    here, _ = run(out=tmp_path / "here.parquet", paths=50)
    node, done = ray_cluster.add_node(num_cpus=1), list[int]()
    real = ray_engine.forecast_chunks

    def losing_a_node(*given: Any) -> Iterator[int]:
        for number in real(*given):
            done.append(number)
            if len(done) == 2:
                ray_cluster.remove_node(node, allow_graceful=False)
            yield number

    monkeypatch.setattr(ray_engine, "forecast_chunks", losing_a_node)
    there, said = run(out=tmp_path / "there.parquet", paths=50, engine="ray")
    assert sorted(done) == list(range(7))
    assert there.out.read_bytes() == here.out.read_bytes()
    assert "7 of 7 symbols" in said


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_worker_refuses_is_said_as_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ray_engine.forecast_chunks

    def of_another_adapter(plan: Plan, *given: Any) -> Iterator[int]:
        return real(replace(plan, digest="0" * 64), *given)

    monkeypatch.setattr(ray_engine, "forecast_chunks", of_another_adapter)
    with pytest.raises(ClusterError, match="has changed meanwhile: start the command again"):
        run(out=tmp_path / "there.parquet", engine="ray")
    assert not (tmp_path / "there.parquet").exists()
