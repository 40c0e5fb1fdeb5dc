"""JSON that two readers could understand in two ways is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_shared import strict_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_what_the_standard_allows_is_read_as_it_is(value: Any) -> None:
    assert strict_json.parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "key 'a' appears twice"),
        (b'[{"x": {"a": 1, "a": 2}}]', "key 'a' appears twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "1e999 is out of range"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "digits"),
        (b'"\xff"', "utf-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_what_is_strange_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        strict_json.parse(content)
    assert len(str(error.value)) < 200
