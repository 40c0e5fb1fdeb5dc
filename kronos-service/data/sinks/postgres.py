"""Forecasts into PostgreSQL over a direct connection: COPY into a temporary table, then one upsert.

All rows of a file are written in one transaction. DATABASE_URL holds a password, so no message contains it.
"""

from functools import partial
from pathlib import Path

import adbc_driver_manager
import pyarrow as pa

from kronos_service.data.forecasts import SCHEMA, read_batches
from kronos_service.data.sinks import KEY, NOT_STORED, TABLE, Upsert
from kronos_service.data.sources.database_url import Address, PostgresError, read_address
from kronos_service.data.sources.postgres import PostgresSettings, connect, postgres_settings, words_of

COLUMNS = [name for name in SCHEMA.names if name not in NOT_STORED]
_NEW = "kronos_new_forecasts"
_UPSERT = (
    f"insert into public.{TABLE} ({', '.join(COLUMNS)}) select {', '.join(COLUMNS)} from pg_temp.{_NEW} "
    f"on conflict ({', '.join(KEY)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
)


def postgres_upsert(settings: PostgresSettings | None = None) -> Upsert:
    """How to write into the database of the settings, or of DATABASE_URL.

    Raises:
        PostgresError: DATABASE_URL is absent or invalid; writing raises it too, where the server refuses.
    """
    url = (settings or postgres_settings()).database_url.get_secret_value()
    return partial(_upsert, read_address(url))


def _upsert(address: Address, path: Path) -> int:
    schema = pa.schema([SCHEMA.field(name) for name in COLUMNS])
    batches = (batch.cast(schema) for batch in read_batches(path, COLUMNS))
    rows = pa.RecordBatchReader.from_batches(schema, batches)
    with connect(address) as connection:
        try:
            with connection.cursor() as cursor:
                cursor.adbc_ingest(_NEW, rows, mode="create", temporary=True)
                cursor.execute(_UPSERT)
                cursor.execute(f"select count(*) from pg_temp.{_NEW}")
                count = int(cursor.fetchall()[0][0])
            connection.commit()
        except adbc_driver_manager.Error as error:
            raise PostgresError(_explain(address, error)) from None
    return count


def _explain(address: Address, error: adbc_driver_manager.Error) -> str:
    name, words = address.name, address.says(words_of(error)) or "its words name this user"
    match error.sqlstate:
        case "42P01" | "42P10" | "42703":
            return f"table {TABLE} of {name} is missing or older: apply shared/schema.sql again ({words})"
        case "42501":
            return (
                f"table {TABLE} of {name}: this user may not write it ({words}); use a login that is in role "
                "kronos_forecaster"
            )
        case "23514" | "23502":
            return f"table {TABLE} of {name} refused a row: {words}; compare it with shared/schema.sql"
    return f"table {TABLE} of {name}: the rows were not written ({words}): run the command again"
