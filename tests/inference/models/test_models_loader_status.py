"""What the status says: reasons for anybody to read."""

from pathlib import Path

import pytest

from kronos_service.inference.models.loader_status import LONGEST_REASON, one_line

ROOT = Path("/srv/desk/adapters")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (f"{ROOT}/versions/000001-a: is missing", "000001-a: is missing"),
        (f"{ROOT}/LATEST.json is missing", "LATEST.json is missing"),
        (f"{ROOT}: cannot be read", "cannot be read"),
        (f"LATEST is not valid: {ROOT}: it is a link", "LATEST is not valid: it is a link"),
        (f"cannot use {ROOT}: it is away", "cannot use adapters: it is away"),
        (f"x; the last good one: {ROOT}/versions/b: is cut", "x; the last good one: b: is cut"),
        ("two\nlines\x1b[31m", "two?lines?[31m"),
        ("1.5 of 2.0", "1.5 of 2.0"),
    ],
)
def test_a_reason_is_one_line_without_the_place(reason: str, shown: str) -> None:
    assert one_line(reason, without=[ROOT, Path()]) == shown
    assert one_line(reason.replace(str(ROOT), f"s3:/{ROOT}"), without=[f"s3:/{ROOT}"]) == shown


def test_a_long_reason_is_cut_and_says_so() -> None:
    whole, cut = "x" * LONGEST_REASON, "x" * (LONGEST_REASON + 1)
    assert (one_line(whole, without=[]), one_line(cut, without=[])) == (whole, whole + "…")
