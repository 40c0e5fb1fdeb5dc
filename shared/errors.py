"""The base of every error that a user can fix."""


class KronosError(ValueError):
    """A mistake that a user can fix: commands show it in one line and exit with 2, without a traceback.

    Modules raise named subclasses. A message says what was expected, what came, and what to do.
    """
