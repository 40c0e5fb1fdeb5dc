"""What an error of the operating system means."""

import errno
import os

import pytest

from kronos_shared.disk_errors import explain, is_missing

DENIED = "is not permitted to this user"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "is missing"),
        (errno.ESTALE, "is missing"),
        (
            errno.EACCES,
            "is not permitted to this user (Permission denied): give it access; it is tried again",
        ),
        (errno.EIO, "cannot be used now (Input/output error); it is tried again"),
        (errno.EMFILE, "cannot be used now (Too many open files); it is tried again"),
    ],
)
def test_an_error_is_explained_without_its_path(number: int, said: str) -> None:
    error = OSError(number, os.strerror(number), "/secret/place")
    assert explain(error) == said
    assert is_missing(error) == (said == "is missing")
