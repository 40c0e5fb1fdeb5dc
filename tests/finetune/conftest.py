"""Commands write below the working directory unless they are told otherwise: not into the checkout.

The audit that `event-lora` does before it trains looks at less than a user's, but in the tests of the audit.
"""

from collections.abc import Iterator

import pytest

from kronos_service.finetune.event_conditioned.audit import audit


@pytest.fixture(autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh one for each test."""
    monkeypatch.chdir(tmp_path_factory.mktemp("working-directory"))


@pytest.fixture(autouse=True, scope="module")
def quick_audit() -> Iterator[None]:
    """Of a market as small as the tests' a few rows tell as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "QUICK", audit.AuditSize(symbols=4, rows=12, windows=2, futures=1))
        yield
