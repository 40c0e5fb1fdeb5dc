"""Tiny seeded models, and what the upstream code computed."""

import pytest
from hypothesis import settings
from tiny_models import Golden, load_golden, tiny_predictor, tiny_tokenizer

from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer

# how long an example takes says more about the machine than about the code
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def tokenizer() -> KronosTokenizer:
    return tiny_tokenizer()


@pytest.fixture
def model() -> Kronos:
    return tiny_predictor()


@pytest.fixture(scope="session", params=["tiny", "tiny_fixed_time", "tiny_sliding"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)
