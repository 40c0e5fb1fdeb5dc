"""Fair shares by key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.inference.errors import Overloaded
from kronos_service.inference.metrics import Metrics
from kronos_service.inference.scheduler.shares import Shares
from kronos_service.inference.settings import KeyLimit


@given(st.floats(0.1, 50), st.lists(st.floats(0, 0.5), max_size=60))
def test_no_key_gets_more_than_its_rate_and_a_second_ahead(rate: float, pauses: list[float]) -> None:
    now, taken = 1000.0, 0
    shares = Shares({"a": KeyLimit(rate=rate, share=1)}, places=8, metrics=Metrics())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kronos_service.inference.scheduler.shares.time.monotonic", lambda: now)
        for pause in pauses:
            now += pause
            try:
                shares.take("a")
                taken += 1
            except Overloaded as error:
                now += error.retry_after or 0
                shares.take("a")  # as told
                taken += 1
        assert taken <= max(1, rate) + rate * (now - 1000) + 1e-6
        shares.take("b")


def test_a_share_is_of_the_places_and_at_least_one() -> None:
    limits = {"a": KeyLimit(rate=1, share=0.5), "*": KeyLimit(rate=1, share=0.01)}
    shares = Shares(limits, places=8, metrics=Metrics())
    assert [shares.places(name) for name in ("a", "b")] == [4, 1]
    assert Shares({}, places=8, metrics=Metrics()).places("a") == 8
