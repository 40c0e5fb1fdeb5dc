"""Tiny seeded models, and one thread: more of them only wait for each other at this size."""

from collections.abc import Iterator

import pytest
import torch
from tiny_models import Golden, load_golden, tiny_predictor, tiny_tokenizer

from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tokenizer() -> KronosTokenizer:
    return tiny_tokenizer()


@pytest.fixture
def model() -> Kronos:
    return tiny_predictor()


@pytest.fixture(scope="session", params=["tiny", "tiny_fixed_time", "tiny_sliding"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)
