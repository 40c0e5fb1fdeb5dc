"""The gains of a manifest as the page is given them; whatever else a manifest holds is no gain."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.inference.page.gains import gain_in, validation_in, walk_forward_in
from kronos_service.inference.page.manifests import read_published
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_store import published

GAIN = {"nats": 0.5, "low": 0.25, "high": 0.75, "percent": 10.0, "targets": 40, "dates": 25}
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["gains", "folds", "seeds", "gain", "model", "over", "by", "group", "nats", "adapter_event"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def test_the_packaged_adapters_gains_are_its_manifests() -> None:
    (name,) = published(SAMPLE_ADAPTERS)
    metrics = read_published(SAMPLE_ADAPTERS, name).manifest.metrics
    found = validation_in(metrics)
    assert found is not None
    for day in ("tier1", "event", "quiet"):
        gain = getattr(found.adapter, day)
        assert gain.model_dump() == metrics["gains"][f"adapter_{day}"]
    assert found.placebo is None
    assert walk_forward_in(metrics) is None


def test_a_placebo_and_a_walk_forward_are_given_where_they_are_recorded() -> None:
    metrics = {"gains": {"adapter_event": GAIN, "placebo_event": GAIN | {"nats": 0.0}}}
    found = validation_in(metrics)
    assert found is not None
    assert found.placebo is not None
    assert found.placebo.event is not None
    assert (found.placebo.event.nats, found.placebo.quiet, found.adapter.quiet) == (0.0, None, None)

    def row(model: str, over: str, by: str, group: str, nats: float) -> dict[str, Any]:
        return {"model": model, "over": over, "by": by, "group": group, "gain": GAIN | {"nats": nats}}

    rows = [
        row("adapter", "control", "day", "event", 1.0),
        row("placebo", "control", "day", "quiet", 2.0),
        row("adapter", "base", "day", "event", 9.0),
        row("adapter", "control", "family", "event", 8.0),
    ]
    folds = ["2023-01-01", "2024-01-01", "2024-12-31"]
    walked = walk_forward_in({"walk_forward": {"gains": rows, "folds": folds, "seeds": [0, 1]}})
    assert walked is not None
    assert walked.adapter.event is not None
    assert walked.placebo is not None
    assert walked.placebo.quiet is not None
    assert (walked.adapter.event.nats, walked.placebo.quiet.nats) == (1.0, 2.0)
    assert (walked.adapter.quiet, walked.folds, walked.seeds) == (None, folds, 2)


@pytest.mark.parametrize(
    "record", ["unknown", None, {}, GAIN | {"low": None}, GAIN | {"high": float("nan")}, [GAIN]]
)
def test_what_is_no_gain_is_not_recorded(record: Any) -> None:
    assert gain_in(record) is None


@given(metrics=st.dictionaries(st.sampled_from(["gains", "walk_forward"]), ANYTHING))
def test_whatever_metrics_hold_there_is_an_answer(metrics: dict[str, Any]) -> None:
    for found in (validation_in(metrics), walk_forward_in(metrics)):
        assert found is None or found.model_dump_json()
