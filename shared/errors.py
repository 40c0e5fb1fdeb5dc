"""The one base of every error that a user can mend."""


class KronosError(ValueError):
    """A mistake a user can mend: commands show it as one line and exit with 2, without a traceback.

    Modules raise named subclasses. A message says what was expected, what came, and what to do.
    """
