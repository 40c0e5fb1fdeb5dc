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
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pandas as pd
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, FEATURES, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError

NUMBERS: Final = {*FEATURES, "actual", "forecast", "previous"}
SCHEMES: Final = ("postgresql", "postgres")
NETWORK: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""libpq's settings unless the URL has its own: they notice a dead server in a minute instead of hours."""

REMEDIES: Final = (
    (
        r"password authentication failed|no password supplied",
        "check its user and password, which may have expired",
    ),
    (r"could not translate host name|Name or service", "check its host name"),
    (r"database .* does not exist", "check the name of the database"),
    (r"Connection refused|timeout expired|Network is unreachable|No route", "check its host and port"),
    (r"SSL", "check its sslmode"),
    (r"statement timeout", "raise statement_timeout for its user"),
)


class PostgresError(KronosError):
    """The database cannot be read with these settings."""


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

    def symbols(self) -> pd.DataFrame:
        return pd.concat(self._read("symbols", SYMBOL_COLUMNS, "symbol"), ignore_index=True)

    def bars(self, since: date | None = None, after: str | None = None) -> Iterator[pd.DataFrame]:
        where = _conditions({"ts >= {}::date": since, "symbol > {}": after})
        return self._read("ohlcv_1d", BAR_COLUMNS, "symbol, ts", where)

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
            raise PostgresError(_explain(table, self.name, error)) from None


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
    url = (settings or postgres_settings()).database_url.get_secret_value()
    address, name = _checked(url)
    try:
        connection = adbc.connect(address)
    except adbc_driver_manager.Error as error:
        words = _words(error)
        remedy = next((what for cause, what in REMEDIES if re.search(cause, words)), "check it")
        raise PostgresError(f"DATABASE_URL opens no connection to {name} ({words}): {remedy}") from None
    with connection:
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read, read only")
            cursor.execute("set time zone 'UTC'")  # of dates and times without a zone
        yield PostgresSource(connection=connection, name=name)


def _checked(url: str) -> tuple[str, str]:
    """The URL for libpq, and a name without secrets; a URL that libpq would quote in its error is refused."""
    form = "expected postgresql://user:password@host:5432/database"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 5432
    except ValueError:
        raise PostgresError(f"DATABASE_URL does not parse: {form} (percent-encode the password)") from None
    if re.search(r"%(?![0-9a-fA-F]{2})", url):  # libpq would quote it, with the password
        raise PostgresError("DATABASE_URL has a stray %: percent-encode it as %25")
    if parts.scheme not in SCHEMES or not host or re.search(r"\s", url):
        scheme = f"scheme {parts.scheme!r}" if re.fullmatch(r"[a-z+0-9]{1,24}", parts.scheme) else "no scheme"
        raise PostgresError(f"DATABASE_URL is not an address of PostgreSQL ({scheme}): {form}")
    if port == 6543 and host.endswith(".supabase.com"):
        raise PostgresError(
            "DATABASE_URL names the transaction pooler (port 6543), which cannot read in bulk: "
            "use the session pooler or the direct connection, port 5432"
        )
    given = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    query = urlencode(NETWORK | given, quote_via=quote)
    return parts._replace(query=query).geturl(), f"postgres:{host}{unquote(parts.path)}"


def _conditions(values: dict[str, date | str | None]) -> str:
    """A where clause of the conditions that have a value; text is quoted."""
    given = [
        text.format("'{}'".format(str(value).replace("'", "''")))
        for text, value in values.items()
        if value is not None
    ]
    return f"where {' and '.join(given)}" if given else ""


def _explain(table: str, name: str, error: adbc_driver_manager.Error) -> str:
    words = _words(error)
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


def _words(error: Exception) -> str:
    """What the server said, without libpq's preface and our query."""
    line = " ".join(str(error).split())
    line = re.split(r"ERROR: +|failed: |Failed to connect: ", line)[-1]
    return re.split(r" LINE 1| Query was| ?\. SQLSTATE| Is the server", line)[0]
