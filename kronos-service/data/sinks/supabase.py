"""Forecasts into Supabase over HTTP, through the official client: upserts of a thousand rows, retried.

A request that fails in the middle leaves the earlier ones written; the next run writes them again, the same.
"""

from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from postgrest import CountMethod, ReturnMethod
from supabase import Client

from kronos_service.data.forecasts import SCHEMA, read_batches
from kronos_service.data.sinks import KEY, NOT_STORED, TABLE, Upsert
from kronos_service.data.sources.postgrest import (
    FAILURES,
    BrokenAnswer,
    SupabaseError,
    explain,
    retrying,
)
from kronos_service.data.sources.supabase import SupabaseSettings, supabase_client, supabase_settings

ROWS: Final = 1000
"""Rows of a request: well below the statement timeout of a hosted project."""


def supabase_upsert(
    settings: SupabaseSettings | None = None, *, transport: httpx.BaseTransport | None = None
) -> Upsert:
    """How to write into the project of the settings, or of SUPABASE_URL and SUPABASE_KEY.

    Raises:
        SupabaseError: a setting is absent or invalid; writing raises it too, where the server refuses.
    """
    settings = settings or supabase_settings()
    return partial(_upsert, supabase_client(settings, transport=transport), settings)


def _upsert(client: Client, settings: SupabaseSettings, path: Path) -> int:
    count = 0
    for rows in _requests(path):
        query = client.table(TABLE).upsert(
            rows, on_conflict=",".join(KEY), returning=ReturnMethod.minimal, count=CountMethod.exact
        )
        try:
            for attempt in retrying(settings.attempts, settings.backoff_s):
                with attempt:
                    if (stored := query.execute().count) != len(rows):
                        raise BrokenAnswer(f"a count of {stored} for {len(rows)} rows")
        except FAILURES as error:
            said = explain(TABLE, settings.url, settings.attempts, error, "write")
            raise SupabaseError(f"{said} ({count} rows were written)") from error
        count += len(rows)
    return count


def _requests(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows as JSON takes them."""
    columns = [name for name in SCHEMA.names if name not in NOT_STORED]
    for batch in read_batches(path, columns):
        for start in range(0, len(batch), ROWS):
            yield [
                {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
                for row in batch.slice(start, ROWS).to_pylist()
            ]
