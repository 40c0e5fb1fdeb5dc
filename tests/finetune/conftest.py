"""Commands write below the working directory unless they are told otherwise: not into the checkout."""

import pytest


@pytest.fixture(autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh one for each test."""
    monkeypatch.chdir(tmp_path_factory.mktemp("working-directory"))
