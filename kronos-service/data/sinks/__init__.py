"""Where forecasts are written to beside their file: one registry of databases, as of the sources.

Nothing heavy may be imported at the top: `--help` lists the names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from kronos_shared.cli import needs

Upsert = Callable[[Path], int]
"""Writes the rows of a forecast file into the table forecasts, over those of the same key, and returns how
many there are; a second time it changes nothing.
"""


def _supabase() -> Upsert:
    from kronos_service.data.sinks.supabase import supabase_upsert

    return supabase_upsert()


def _postgres() -> Upsert:
    with needs("postgres"):
        from kronos_service.data.sinks.postgres import postgres_upsert

    return postgres_upsert()


SinkName = Literal["supabase", "postgres"]
"""What `--to` chooses from: the keys of `SINKS`."""
SINKS: Final[Mapping[SinkName, Callable[[], Upsert]]] = {"supabase": _supabase, "postgres": _postgres}
"""Name -> what checks the database's settings and returns how to write; nothing is sent yet."""
TABLE: Final = "forecasts"
KEY: Final = ("symbol", "last_bar", "step", "target_name", "version")
NOT_STORED: Final = frozenset({"samples"})
"""Columns of a file that the table lacks: they are as much data as all others together."""
