"""Supabase over HTTP, through the official client.

Design choices:
- PostgREST silently caps a page (1,000 rows by default). Every read walks a unique key, advances by what
  came, goes on until a page is empty, and compares what it got with the count the server gave at the start.
- One place retries: tenacity, on timeouts, broken connections, 429 and 5xx. The client's own retries are off.
- Errors name the table and the remedy. The key is a secret: it is in no message and in no name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import httpx
import pandas as pd
from postgrest import APIError, APIResponse, CountMethod
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from supabase import Client, ClientOptions, SupabaseException, create_client
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from kronos_shared.errors import KronosError

PAGE: Final = 1000
KEYS: Final = {
    "ohlcv_1d": ("symbol", "ts"),
    "symbols": ("symbol",),
    "economic_calendar": ("event_id", "first_seen_at"),
}
"""The unique key that each table is read along; in the calendar the row that was always known comes first."""

_MISSING_TABLE: Final = ("PGRST205", "42P01")

Row = Mapping[str, Any]


class SupabaseError(KronosError):
    """Supabase cannot be read as it is configured."""


class BusyServer(httpx.HTTPError):
    """The server answered 429 or 5xx: worth another try."""


_PASSING: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, BusyServer)


class SupabaseSettings(BaseSettings):
    """From the environment: SUPABASE_URL, SUPABASE_KEY and, if wanted, the other fields likewise."""

    model_config = SettingsConfigDict(env_prefix="SUPABASE_", str_strip_whitespace=True)

    url: str
    """Project address, such as https://abc.supabase.co."""
    key: SecretStr
    """A JWT of the role kronos_training, or the service_role key."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for one page."""
    attempts: int = Field(default=5, ge=1)
    """Tries per page before giving up."""
    backoff_s: float = Field(default=0.5, ge=0)
    """First pause between tries; it doubles up to 30 s, with jitter."""


@dataclass(frozen=True, kw_only=True)
class SupabaseSource:
    """The tables of one Supabase project; see `Source`."""

    client: Client
    settings: SupabaseSettings

    @property
    def name(self) -> str:
        return f"supabase:{httpx.URL(self.settings.url).host}"

    def symbols(self) -> pd.DataFrame:
        return _whole(self._pages("symbols"))

    def bars(self, since: date | None = None) -> Iterator[pd.DataFrame]:
        return self._pages("ohlcv_1d", {} if since is None else {"ts": since.isoformat()})

    def calendar(self, since: date | None = None) -> pd.DataFrame:
        at_least = {} if since is None else {"release_at": since.isoformat()}
        return _whole(self._pages("economic_calendar", at_least))

    def _pages(self, table: str, at_least: Mapping[str, str] | None = None) -> Iterator[pd.DataFrame]:
        """Every row whose columns are `at_least` the given values, once, in the order of the key."""
        expected, received, last = 0, 0, None
        while True:
            page = self._page(table, at_least or {}, last)
            if last is None:
                expected = _count(table, page)
                if expected == 0 and not at_least:
                    raise SupabaseError(
                        f"table {table} at {self.settings.url} shows no rows: it is empty, or row-level "
                        "security hides it from this key"
                    )
            if not page.data:
                break
            rows: list[Row] = page.data  # type: ignore[assignment]
            received, last = received + len(rows), rows[-1]
            yield pd.DataFrame(rows)
        if received < expected:
            raise SupabaseError(
                f"table {table}: {expected} rows counted but {received} read; rows were deleted meanwhile, "
                "or the key does not order them: read again when nothing writes"
            )

    def _page(self, table: str, at_least: Mapping[str, str], last: Row | None) -> APIResponse:
        key = KEYS[table]
        query = self.client.table(table).select("*", count=CountMethod.exact if last is None else None)
        for column, value in at_least.items():
            query = query.gte(column, value)
        if last is not None:
            # The gte says nothing new, but it lets the database enter its index there: 3 ms a page, not 105.
            query = query.gte(key[0], last[key[0]]).or_(_after(key, last))
        for column in key:
            query = query.order(column, nullsfirst=True)
        retrying = Retrying(
            retry=retry_if_exception_type(_PASSING),
            stop=stop_after_attempt(self.settings.attempts),
            wait=wait_random_exponential(multiplier=self.settings.backoff_s, max=30),
            reraise=True,
        )
        try:
            page: APIResponse = retrying(query.limit(PAGE).execute)
        except (APIError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise SupabaseError(self._explain(table, error)) from error
        if not isinstance(page.data, list):
            raise SupabaseError(
                f"table {table}: {self.settings.url} answered with something other than rows; "
                "is SUPABASE_URL the address of the project's API?"
            )
        return page

    def _explain(self, table: str, error: Exception) -> str:
        url = self.settings.url
        if isinstance(error, APIError):
            message = f"{error.code or ''} {error.message or ''}".strip()
            if error.code in _MISSING_TABLE:
                return f"no table {table} at {url}: create it with shared/schema.sql ({message})"
            if error.code == "404":
                return f"table {table}: {url} has no REST API (404): is SUPABASE_URL right?"
            if error.code in ("401", "42501", "PGRST301") or "API key" in message or "JWT" in message:
                return f"table {table}: {url} refused SUPABASE_KEY ({message}): use a key that may read it"
            return f"table {table}: {url} refused the request: {message}"
        if isinstance(error, BusyServer):
            return f"table {table}: {url} {error}, {self.settings.attempts} times; try again later"
        return f"table {table}: cannot reach {url} ({type(error).__name__}: {error}); check SUPABASE_URL"


def supabase_source(
    settings: SupabaseSettings | None = None, *, transport: httpx.BaseTransport | None = None
) -> SupabaseSource:
    """A source for the project that the settings, or else the environment, name.

    Args:
        settings: default: from SUPABASE_URL and SUPABASE_KEY.
        transport: what carries the requests, for proxies and tests.

    Raises:
        SupabaseError: a setting is absent or cannot be; nothing has been sent yet.
    """
    try:
        settings = settings or SupabaseSettings.model_validate({})
    except ValidationError as error:
        wrong = ", ".join(f"SUPABASE_{'_'.join(map(str, e['loc']))}".upper() for e in error.errors())
        raise SupabaseError(f"set {wrong} in the environment (absent or not valid)") from None
    http = httpx.Client(
        timeout=settings.timeout_s, transport=transport, event_hooks={"response": [_refuse_busy]}
    )
    options = ClientOptions(httpx_client=http, postgrest_client_retry=False)
    try:
        client = create_client(settings.url, settings.key.get_secret_value().strip(), options)
    except (SupabaseException, ValueError) as error:
        raise SupabaseError(f"SUPABASE_URL {settings.url!r} or SUPABASE_KEY is not valid: {error}") from None
    return SupabaseSource(client=client, settings=settings)


def _refuse_busy(response: httpx.Response) -> None:
    if response.status_code == 429 or response.status_code >= 500:
        response.read()
        raise BusyServer(f"answered {response.status_code} {response.text[:80]!r}")


def _count(table: str, page: APIResponse) -> int:
    if page.count is None:
        raise SupabaseError(f"table {table}: the server gave no row count, so a short read would go unseen")
    return page.count


def _after(key: Sequence[str], last: Row) -> str:
    """The filter "comes after `last` in the order of `key`", nulls first; the first column is never null."""
    clauses = [f"{key[0]}.gt.{_quoted(last[key[0]])}"]
    if len(key) == 2:
        second = last[key[1]]
        beyond = f"{key[1]}.not.is.null" if second is None else f"{key[1]}.gt.{_quoted(second)}"
        clauses.append(f"and({key[0]}.eq.{_quoted(last[key[0]])},{beyond})")
    return ",".join(clauses)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _whole(pages: Iterator[pd.DataFrame]) -> pd.DataFrame:
    frames = list(pages)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
