"""Splits of the small market."""

from pathlib import Path

import numpy as np
import pytest

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.samples.splits import Span, Splits, build_splits
from kronos_service.model.factory import Bundle

SPANS: dict[str, Span] = {
    "train": (np.datetime64("2021-06-01"), np.datetime64("2022-05-31")),
    "val": (np.datetime64("2022-06-01"), np.datetime64("2022-09-30")),
    "test": (np.datetime64("2022-10-01"), np.datetime64("2023-03-31")),
}


@pytest.fixture(scope="session")
def spans() -> dict[str, Span]:
    return SPANS


@pytest.fixture(scope="session")
def splits(market: Snapshot, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    cache: Path = tmp_path_factory.mktemp("tokens")
    return build_splits(market, bundle, dates=SPANS, context=72, scored=8, cache=cache)
