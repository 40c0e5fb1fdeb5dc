"""Here the audit is what is tested."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_audit() -> None:
    """As large as a user's."""
