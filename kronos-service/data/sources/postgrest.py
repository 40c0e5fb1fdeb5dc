"""Reads tables page by page from PostgREST, through the official client: every row once, or an error.

- The server silently caps a page (1,000 rows by default), so a short page does not mean the last one. A read
  follows a unique key from the last row it got. Each answer also counts the rows left, in the same statement,
  so the last page is recognised whatever the cap is and whatever is written meanwhile.
- Only this module retries (the client's own retries are off): tenacity, with jitter, on timeouts, broken
  connections, 408, 425, 429 (for as long as Retry-After says), 5xx, and answers that are not rows.
- A page that exceeds the database's statement timeout (57014) is asked for again, smaller.
- Errors name the table and the remedy, and never the key, which is secret.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import httpx
import pandas as pd
from postgrest import APIError, CountMethod
from supabase import Client
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from kronos_shared.errors import KronosError

PAGE: Final = 10_000
"""Rows to ask for; most servers return 1,000 at most."""
LEAST: Final = 100
"""Rows to ask for at least, when pages shrink."""
LONGEST_PAUSE: Final = 60.0
"""Seconds to wait at most, whatever Retry-After says."""

_MISSING_TABLE: Final = ("PGRST205", "42P01")

Row = Mapping[str, Any]
Span = Sequence[tuple[str, str, str]]
"""Which rows of a table: (column, PostgREST's operator, limit), all of which must hold."""


class SupabaseError(KronosError):
    """Supabase cannot be read with these settings."""


class BusyServer(httpx.HTTPError):
    """The server answered 408, 425, 429 or 5xx: retry after `pause` seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class SlowStatement(BusyServer):
    """The database cancelled a page that took too long (57014)."""


class BrokenAnswer(httpx.HTTPError):
    """200, but no rows: a page of HTML, JSON cut short, or no count."""


_RETRIED: Final = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.DecodingError,
    BusyServer,
    BrokenAnswer,
)


FAILURES: Final = (APIError, httpx.HTTPError, httpx.InvalidURL)
"""What a request raises in the end."""


@dataclass(frozen=True, kw_only=True)
class RestReader:
    """Reads tables through one client; safe to share between threads."""

    client: Client
    url: str
    attempts: int
    backoff_s: float

    def pages(self, table: str, key: Sequence[str], span: Span) -> Iterator[pd.DataFrame]:
        """Every row of the span once, in the order of a unique key of one or two columns, nulls first.

        Raises:
            SupabaseError: the table cannot be read, or rows were deleted meanwhile.
        """
        expected, received, size, last = 0, 0, PAGE, None
        while True:
            query = partial(self._query, table, key, span, last)
            rows, left, size = self._fetch(table, query, size)
            expected, received = (left if last is None else expected), received + len(rows)
            if rows:
                yield pd.DataFrame(rows)
            if len(rows) == left:
                break
            last = rows[-1]
        if received < expected:
            raise SupabaseError(
                f"table {table}: {expected} rows counted but {received} read; rows were deleted meanwhile, "
                "or the key does not order them: read again when nothing writes"
            )

    def count(self, table: str, span: Span) -> int:
        """How many rows the span has."""
        return self._fetch(table, partial(self._query, table, (), span, None), 1)[1]

    def _query(self, table: str, key: Sequence[str], span: Span, last: Row | None) -> Any:
        query: Any = self.client.table(table).select("*", count=CountMethod.exact)
        for column, operator, limit in span:
            query = query.filter(column, operator, limit)
        if last is not None:
            # The gte is implied, but with it the database starts its index scan there: 3 ms a page, not 105.
            query = query.gte(key[0], last[key[0]]).or_(_after(key, last))
        for column in key:
            query = query.order(column, nullsfirst=True)
        return query

    def _fetch(self, table: str, query: Callable[[], Any], size: int) -> tuple[list[Row], int, int]:
        """Rows, the count of rows from here on, and the page size that the database managed."""
        try:
            for attempt in retrying(self.attempts, self.backoff_s):
                with attempt:
                    try:
                        return *_rows(query().limit(size).execute()), size
                    except SlowStatement:
                        size = min(size, max(size // 4, LEAST))
                        raise
        except FAILURES as error:
            raise SupabaseError(explain(table, self.url, self.attempts, error, "read")) from error
        raise AssertionError("tenacity returns or raises")


def retrying(attempts: int, backoff_s: float) -> Retrying:
    """Tries again after what may pass, and raises the last error."""
    return Retrying(
        retry=retry_if_exception_type(_RETRIED),
        stop=stop_after_attempt(attempts),
        wait=_pause(wait_random_exponential(multiplier=backoff_s, max=30)),
        reraise=True,
    )


def explain(table: str, url: str, attempts: int, error: Exception, verb: Literal["read", "write"]) -> str:
    """What went wrong with a table, after so many tries, and what to do about it."""
    if isinstance(error, APIError):
        message = f"{error.code or ''} {error.message or ''}".strip()
        if error.code in _MISSING_TABLE:
            return f"no table {table} at {url}: create it with shared/schema.sql ({message})"
        if error.code == "42703":
            return f"table {table}: {url} lacks a column ({message}); compare it with shared/schema.sql"
        if error.code == "404":
            return f"table {table}: {url} has no REST API (404): is SUPABASE_URL right?"
        if error.code in ("401", "42501", "PGRST301") or "API key" in message or "JWT" in message:
            return f"table {table}: {url} refused SUPABASE_KEY ({message}): use a key that may {verb} it"
        return f"table {table}: {url} refused the request: {message}"
    if isinstance(error, BrokenAnswer):
        return (
            f"table {table}: {url} answered with {error}, {attempts} times; "
            "is SUPABASE_URL the address of the project's API?"
        )
    if isinstance(error, SlowStatement):
        return f"table {table}: {url} {error}, {attempts} times; raise statement_timeout for the role"
    if isinstance(error, BusyServer):
        return f"table {table}: {url} {error}, {attempts} times; try again later"
    return f"table {table}: cannot reach {url} ({type(error).__name__}: {error}); check SUPABASE_URL"


def refuse_busy(response: httpx.Response) -> None:
    """A hook of the HTTP client: raise on answers worth a retry."""
    if response.status_code not in (408, 425, 429) and response.status_code < 500:
        return
    response.read()
    answer = " ".join(response.text[:80].split())
    if "57014" in response.text:
        raise SlowStatement(f"gave up on a page ({answer})")
    asked = response.headers.get("retry-after", "")
    raise BusyServer(
        f"answered {response.status_code} {answer!r}", float(asked) if asked.isdecimal() else 0.0
    )


def _pause(jitter: wait_random_exponential) -> Callable[[RetryCallState], float]:
    """Seconds to the next try: doubling with jitter, or longer if the server asks for it."""

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = min(error.pause, LONGEST_PAUSE) if isinstance(error, BusyServer) else 0.0
        return max(asked, jitter(state))

    return pause


def _rows(answer: Any) -> tuple[list[Row], int]:
    rows, left = answer.data, answer.count
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows[:1]):
        raise BrokenAnswer("something other than rows")
    if left is None:
        raise BrokenAnswer("no row count, so a short read would go unseen")
    if len(rows) > left or (left and not rows):
        raise BrokenAnswer(f"{len(rows)} rows where it counts {left}")
    return rows, left


def _after(key: Sequence[str], last: Row) -> str:
    """The filter for rows after `last` in the order of `key`, nulls first; the first column is never null."""
    clauses = [f"{key[0]}.gt.{_quoted(last[key[0]])}"]
    if len(key) == 2:
        second = last[key[1]]
        beyond = f"{key[1]}.not.is.null" if second is None else f"{key[1]}.gt.{_quoted(second)}"
        clauses.append(f"and({key[0]}.eq.{_quoted(last[key[0]])},{beyond})")
    return ",".join(clauses)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
