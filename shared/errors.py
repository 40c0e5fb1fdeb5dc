"""The base of every error that a user can fix, and what such errors quote of others."""


class KronosError(ValueError):
    """A mistake that a user can fix: commands show it in one line and exit with 2, without a traceback.

    Modules raise named subclasses. A message says what was expected, what came, and what to do.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's text: libraries add hints that do not concern the user."""
    return (str(error).splitlines() or [type(error).__name__])[0]
