"""PostgreSQL (Supabase's too) over a direct connection, in bulk: Arrow batches through ADBC.

- All reads of a source share one read-only REPEATABLE READ transaction: the three tables are of one moment,
  even while others write.
- Batches are yielded as they arrive, so memory does not grow with the table.
- The server casts numeric columns to float8: exact decimals would arrive as text, which is slow.
- DATABASE_URL holds a password, so no message and no name contains it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pandas as pd
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kronos_service.data.sources.database_url import Address, read_address
from kronos_service.data.sources.database_url import PostgresError as PostgresError
from kronos_service.data.tables import bars_of
from kronos_service.events.sessions import DAILY, Interval
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, FEATURES, INTERVAL, SYMBOL_COLUMNS

NUMBERS: Final = {*FEATURES, "actual", "forecast", "previous"}
REMEDIES: Final = (
    (
        r"Tenant or user not found",
        "the pooler expects the user as USER.PROJECT, such as kronos_export.abcdefghijklmnop, at the host "
        "of the project's region",
    ),
    (
        r"password authentication failed|no password supplied",
        "check its user and password, which may have expired",
    ),
    (r"could not translate host name|Name or service|nodename nor servname", "check its host name"),
    (r"database .* does not exist", "check the name of the database"),
    (r"Connection refused|timeout expired|Network is unreachable|No route", "check its host and port"),
    (r"SSL", "check its sslmode"),
    (r"statement timeout", "raise statement_timeout for its user"),
)
_DIRECT: Final = re.compile(r"db\.[a-z0-9]+\.supabase\.co")
_UNREACHABLE: Final = re.compile(
    r"could not translate|Name or service|nodename nor servname|Network is unreachable|No route|"
    r"timeout expired"
)
_IPV6_ONLY: Final = (
    "Supabase's direct connection has an IPv6 address only, which this machine does not reach: use the "
    "session pooler (Connect in the dashboard, port 5432), whose user is kronos_export.PROJECT"
)


class PostgresSettings(BaseSettings):
    """From the environment: DATABASE_URL."""

    model_config = SettingsConfigDict(str_strip_whitespace=True)

    database_url: SecretStr
    """postgresql://user:password@host:5432/database: the direct connection, or the session pooler."""


@dataclass(frozen=True, kw_only=True)
class PostgresSource:
    """The tables of one database as they were at the first read; see `Source`."""

    connection: Any
    name: str
    address: Address

    def symbols(self) -> pd.DataFrame:
        return pd.concat(self._read("symbols", SYMBOL_COLUMNS, "symbol"), ignore_index=True)

    def bars(
        self, since: date | None = None, after: str | None = None, interval: Interval = DAILY
    ) -> Iterator[pd.DataFrame]:
        length = None if interval == DAILY else interval
        where = _conditions({f'"{INTERVAL}" = {{}}': length, "ts >= {}::date": since, "symbol > {}": after})
        return self._read(bars_of(interval), BAR_COLUMNS, "symbol, ts", where)

    def count_bars(self, first: date | None, before: date) -> int:
        where = _conditions({"ts >= {}::date": first, "ts < {}::date": before})
        with self._cursor("ohlcv_1d") as cursor:
            cursor.execute(f"select count(*) from public.ohlcv_1d {where}")
            return int(cursor.fetchall()[0][0])

    def calendar(self) -> pd.DataFrame:
        order = "event_id, first_seen_at nulls first"
        return pd.concat(self._read("economic_calendar", CALENDAR_COLUMNS, order), ignore_index=True)

    def _read(
        self, table: str, wanted: tuple[str, ...], order: str, where: str = ""
    ) -> Iterator[pd.DataFrame]:
        with self._cursor(table) as cursor:
            cursor.execute(f"select * from public.{table} limit 0")
            present = [column[0] for column in cursor.description]
            # An absent column is no error yet: typing the table names it, with what the table has.
            columns = [f"{c}::float8" if c in NUMBERS else c for c in present if c in wanted]
            chosen = ", ".join(columns) or "1"
            in_order = [c.strip() for c in order.split(",") if c.split()[0] in present]
            by = f"order by {', '.join(in_order)}" if in_order else ""
            cursor.execute(f"select {chosen} from public.{table} {where} {by}")
            rows = 0
            for batch in cursor.fetch_record_batch():
                rows += batch.num_rows
                yield batch.to_pandas()
        if rows == 0 and not where:
            raise PostgresError(
                f"table {table} of {self.name} shows no rows: it is empty, or row-level security hides it "
                "from this user; load it, or use a login that is in role kronos_training"
            )

    @contextmanager
    def _cursor(self, table: str) -> Iterator[Any]:
        try:
            with self.connection.cursor() as cursor:
                yield cursor
        except adbc_driver_manager.Error as error:
            raise PostgresError(_explain(table, self.address, error)) from None


def postgres_settings() -> PostgresSettings:
    """The settings of the environment.

    Raises:
        PostgresError: DATABASE_URL is absent or not text.
    """
    try:
        return PostgresSettings.model_validate({})
    except ValidationError:
        raise PostgresError("set DATABASE_URL in the environment (absent or not valid)") from None


@contextmanager
def postgres_source(settings: PostgresSettings | None = None) -> Iterator[PostgresSource]:
    """A source for the database of the settings, or of DATABASE_URL; leaving it ends the transaction.

    Raises:
        PostgresError: DATABASE_URL is absent or invalid, or the server refuses the connection.
    """
    address = read_address((settings or postgres_settings()).database_url.get_secret_value())
    with connect(address) as connection:
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read, read only")
            cursor.execute("set time zone 'UTC'")  # of dates and times without a zone
        yield PostgresSource(connection=connection, name=address.name, address=address)


def connect(address: Address) -> Any:
    """An ADBC connection, to be closed by a `with` statement.

    Raises:
        PostgresError: the server cannot be reached or refuses.
    """
    try:
        return adbc.connect(address.url)
    except adbc_driver_manager.Error as error:
        raise PostgresError(_no_connection(address, words_of(error))) from None


def _no_connection(address: Address, words: str) -> str:
    if _DIRECT.fullmatch(address.host) and _UNREACHABLE.search(words):
        remedy = _IPV6_ONLY
    else:
        remedy = next((what for cause, what in REMEDIES if re.search(cause, words)), "check it")
    said = f" ({shown})" if (shown := address.says(words)) else ""
    return f"DATABASE_URL opens no connection to {address.name}{said}: {remedy}"


def _conditions(values: dict[str, date | str | None]) -> str:
    """A where clause of the conditions that have a value; text is quoted."""
    given = [
        text.format("'{}'".format(str(value).replace("'", "''")))
        for text, value in values.items()
        if value is not None
    ]
    return f"where {' and '.join(given)}" if given else ""


def _explain(table: str, address: Address, error: adbc_driver_manager.Error) -> str:
    name, words = address.name, address.says(words_of(error)) or "its words name this user"
    match error.sqlstate:
        case "42P01":
            return f"no table {table} in {name}: create it with shared/schema.sql ({words})"
        case "42501":
            return (
                f"table {table} of {name}: this user may not read it ({words}); use a login that is in role "
                "kronos_training, or apply shared/schema.sql again"
            )
        case "57014" | "25P03" | "25P02":
            return (
                f"table {table} of {name}: the server cut the read off ({words}); "
                "raise statement_timeout for this user"
            )
        case None | "57P01" | "57P02" | "08006":
            return f"table {table} of {name}: the connection was lost ({words}); run the export again"
    return f"table {table} of {name}: the server refused the read: {words} ({error.sqlstate})"


def words_of(error: Exception) -> str:
    """What the server said, without libpq's preface and our query."""
    line = " ".join(str(error).split())
    line = re.split(r"ERROR: +|failed: |Failed to connect: ", line)[-1]
    return re.split(r" LINE 1| Query was| ?\. SQLSTATE| Is the server", line)[0]
