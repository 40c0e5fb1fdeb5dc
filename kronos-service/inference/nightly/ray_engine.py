"""The chunks of a batch on a Ray cluster: Ray Data hands them to processes that each hold the model.

A chunk is put beside the file to come by the process that made it, in one step, as the local engine does: one
that Ray repeats after the death of a node is put again with the same bytes.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kronos_service.inference.nightly.chunk import ChunkForecaster
from kronos_service.inference.nightly.partial import Partial
from kronos_service.inference.nightly.plan import Plan, planned_model
from kronos_shared.errors import KronosError
from kronos_shared.ray_cluster import ClusterError, cluster, gpus_each, workers

Row = dict[str, Any]


class _Worker:
    """Lives on a node as long as there are chunks."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan, self._partial = plan, Partial(directory)

    @cached_property
    def _forecast(self) -> ChunkForecaster:
        return ChunkForecaster(self._plan, planned_model(self._plan))

    def __call__(self, row: Row) -> Row:
        # Ray Data hands on the text of a failed start or call with all of its tracebacks, not the exception
        try:
            self._partial.put(row["number"], self._forecast([str(symbol) for symbol in row["symbols"]]))
        except KronosError as error:
            return {"number": row["number"], "refusal": str(error)}
        return {"number": row["number"], "refusal": ""}


def forecast_chunks(plan: Plan, partial: Partial, chunks: Mapping[int, Sequence[str]]) -> Iterator[int]:
    """Forecast the chunks and keep them in `partial`; yields the number of each that is done.

    Raises:
        ClusterError: there is no cluster, or a worker could not do its part.
    """
    with cluster():
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"number": number, "symbols": list(symbols)} for number, symbols in chunks.items()]
        # a block per chunk: it is reported as soon as it is done, and only it is repeated
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,  # type: ignore[arg-type]  # a class gives an actor that keeps its state
            fn_constructor_args=(plan, partial.directory.resolve()),
            compute=ray.data.ActorPoolStrategy(size=min(workers(), len(rows))),
            num_cpus=1,
            num_gpus=gpus_each(),
        )
        for row in done.iter_rows():
            if row["refusal"]:
                raise ClusterError(row["refusal"])
            yield row["number"]
