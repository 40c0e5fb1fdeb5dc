"""What an error of the operating system says about a file. None of them says that the content is bad: the
file is not there yet, not permitted, or the disk is in trouble, and any of it may pass.
"""

import errno
from typing import Final

_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_NOT_PERMITTED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
UNSUPPORTED: Final = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What a network disk answers where it has no such call, such as an fsync of a directory."""


def is_missing(error: OSError) -> bool:
    """Whether there is nothing of that name (yet)."""
    return error.errno in _NOT_THERE


def explain(error: OSError) -> str:
    """The error in a few words, without a path, and what to do about it where that is known."""
    if is_missing(error):
        return "is missing"
    said = error.strerror or type(error).__name__
    if error.errno in _NOT_PERMITTED:
        return f"is not permitted to this user ({said}): give it access; it is tried again"
    return f"cannot be used now ({said}); it is tried again"
