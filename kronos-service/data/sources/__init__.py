"""Where candles and calendar are read from: the Protocol of a source, and one registry of them.

A new source is one module here and one line in `SOURCES`; the commands and the service then offer it.
Nothing heavy may be imported at the top: `--help` lists the names.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from kronos_shared.cli import needs
from kronos_shared.errors import KronosError

if TYPE_CHECKING:
    import pandas as pd

    from kronos_service.events.sessions import Interval


class Source(Protocol):
    """Hands over the three tables of `data.tables` as its reader gave them; nothing is validated yet."""

    @property
    def name(self) -> str:
        """Where the rows come from, for manifests and messages; never a secret."""

    def symbols(self) -> "pd.DataFrame":
        """The whole table symbols."""

    def bars(
        self, since: date | None = None, after: str | None = None, interval: "Interval" = "1d"
    ) -> "Iterator[pd.DataFrame]":
        """Chunks of ohlcv_1d, or of the bars of this length in ohlcv, in the order of (symbol, ts), from the
        session date `since` on.

        The source decides the order of symbols; `after` skips those up to that one, so that an interrupted
        export can resume.
        """

    def count_bars(self, first: date | None, before: date) -> int:
        """How many daily bars there are from the session date `first` (default: any) to the one before
        `before`.
        """

    def calendar(self) -> "pd.DataFrame":
        """The whole table economic_calendar."""


Opener = Callable[[], AbstractContextManager[Source]]
"""Opens a source; may be called again and again."""


def _supabase(directory: Path | None) -> Opener:  # noqa: ARG001
    from kronos_service.data.sources.supabase import supabase_source

    source = supabase_source()
    return lambda: nullcontext(source)


def _postgres(directory: Path | None) -> Opener:  # noqa: ARG001
    with needs("postgres"):
        from kronos_service.data.sources.postgres import postgres_settings, postgres_source

    settings = postgres_settings()
    return lambda: postgres_source(settings)


def _snapshot(directory: Path | None) -> Opener:
    from kronos_service.data.sources.snapshot import snapshot_source

    if directory is None:
        raise KronosError("expected the directory that source snapshot reads, got none: name it")
    return lambda: nullcontext(snapshot_source(directory))


SourceName = Literal["supabase", "postgres", "snapshot"]
"""What `--source` and KRONOS_SOURCE choose from: the keys of `SOURCES`."""
SOURCES: Final[Mapping[SourceName, Callable[[Path | None], Opener]]] = {
    "supabase": _supabase,
    "postgres": _postgres,
    "snapshot": _snapshot,
}
"""Name -> what checks the source's settings (environment, directory) and returns how to open it."""


def open_source(name: SourceName, directory: Path | None = None) -> AbstractContextManager[Source]:
    """The source of a name in `SOURCES`, to be used in a `with` statement.

    Args:
        directory: of tables, for the source snapshot.

    Raises:
        KronosError: its settings or its extra are missing or not valid, or it cannot be reached.
    """
    return SOURCES[name](directory)()
