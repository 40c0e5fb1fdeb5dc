"""Supabase over HTTP, through the official client; `postgrest` reads each table.

Bars are read in ranges of symbols, several in parallel: at 40 ms a round trip, page after page would take
minutes. The ranges follow the server's order of symbols and cover all of it, so a symbol that is added
meanwhile falls into one of them.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import islice, pairwise
from typing import Final, TypeVar

import httpx
import pandas as pd
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from supabase import Client, ClientOptions, SupabaseException, create_client

from kronos_service.data.sources.postgrest import RestReader, Span, SupabaseError, refuse_busy
from kronos_service.data.tables import SHORT_BARS, bars_of
from kronos_service.events.sessions import DAILY, Interval
from kronos_shared.columns import INTERVAL

Item = TypeVar("Item")
Result = TypeVar("Result")

KEYS: Final = {
    "ohlcv_1d": ("symbol", "ts"),
    SHORT_BARS: ("symbol", "ts"),
    "symbols": ("symbol",),
    "economic_calendar": ("event_id", "first_seen_at"),
}
"""Unique key that orders each table, of bars in ohlcv among those of one length; in the calendar the row that
was always known comes first.
"""
_ADDRESS: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
)
"""What messages may show: without user-info, however malformed."""
RANGE: Final = 3
"""Symbols per range: enough to fill whole pages, few enough that all threads end together."""


class SupabaseSettings(BaseSettings):
    """From the environment: SUPABASE_URL, SUPABASE_KEY, and optionally the other fields."""

    model_config = SettingsConfigDict(env_prefix="SUPABASE_", str_strip_whitespace=True)

    url: str
    """Project address, such as https://abc.supabase.co."""
    key: SecretStr
    """A secret key of the project; a PostgREST of one's own also takes a JWT of kronos_training."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for one page."""
    attempts: int = Field(default=5, ge=1)
    """Tries per page before giving up."""
    backoff_s: float = Field(default=0.5, ge=0)
    """First pause between tries; it doubles up to 30 s, with jitter."""
    connections: int = Field(default=8, ge=1, le=16)
    """Pages read in parallel."""


@dataclass(frozen=True, kw_only=True)
class SupabaseSource:
    """The tables of one Supabase project; see `Source`."""

    reader: RestReader
    settings: SupabaseSettings

    @property
    def name(self) -> str:
        return f"supabase:{httpx.URL(self.settings.url).host}"

    def symbols(self) -> pd.DataFrame:
        return self._whole("symbols")

    def bars(
        self, since: date | None = None, after: str | None = None, interval: Interval = DAILY
    ) -> Iterator[pd.DataFrame]:
        names = [str(name) for name in self.symbols()["symbol"]]
        spans = _ranges(names[names.index(after) + 1 :] if after in names else names)
        if after is not None:
            spans[0].append(("symbol", "gt", after))
        if since is not None:
            spans = [[*span, ("ts", "gte", _midnight(since))] for span in spans]
        if interval != DAILY:
            spans = [[*span, (INTERVAL, "eq", interval)] for span in spans]
        read, is_empty = partial(self._bars_within, bars_of(interval)), True
        for frames in ordered_map(read, spans, at_once=self.settings.connections):
            is_empty = is_empty and not frames
            yield from frames
        if is_empty and since is None and after is None:
            raise SupabaseError(self._hidden(bars_of(interval)))

    def count_bars(self, first: date | None, before: date) -> int:
        at_least = [] if first is None else [("ts", "gte", _midnight(first))]
        return self.reader.count("ohlcv_1d", [*at_least, ("ts", "lt", _midnight(before))])

    def calendar(self) -> pd.DataFrame:
        return self._whole("economic_calendar")

    def _bars_within(self, table: str, span: Span) -> list[pd.DataFrame]:
        return list(self.reader.pages(table, KEYS[table], span))

    def _whole(self, table: str) -> pd.DataFrame:
        frames = list(self.reader.pages(table, KEYS[table], ()))
        if not frames:
            raise SupabaseError(self._hidden(table))
        return pd.concat(frames, ignore_index=True)

    def _hidden(self, table: str) -> str:
        return (
            f"table {table} at {self.settings.url} shows no rows: it is empty, or row-level security hides "
            "it from this key; load it, or use a key of the role kronos_training"
        )


def supabase_source(
    settings: SupabaseSettings | None = None, *, transport: httpx.BaseTransport | None = None
) -> SupabaseSource:
    """A source for the project of the settings.

    Args:
        settings: default: from SUPABASE_URL and SUPABASE_KEY.
        transport: of the requests, for proxies and tests.

    Raises:
        SupabaseError: a setting is absent or invalid; nothing has been sent yet.
    """
    settings = settings or supabase_settings()
    reader = RestReader(
        client=supabase_client(settings, transport=transport),
        url=settings.url,
        attempts=settings.attempts,
        backoff_s=settings.backoff_s,
    )
    return SupabaseSource(reader=reader, settings=settings)


def supabase_settings() -> SupabaseSettings:
    """The settings of the environment; raises SupabaseError as `supabase_source`."""
    try:
        return SupabaseSettings.model_validate({})
    except ValidationError as error:
        wrong = ", ".join(f"SUPABASE_{'_'.join(map(str, e['loc']))}".upper() for e in error.errors())
        raise SupabaseError(f"set {wrong} in the environment (absent or not valid)") from None


def supabase_client(settings: SupabaseSettings, *, transport: httpx.BaseTransport | None = None) -> Client:
    """The official client, without retries of its own; raises SupabaseError as `supabase_source`."""
    if not _ADDRESS.fullmatch(settings.url):
        raise SupabaseError(
            "SUPABASE_URL is not valid: expected an address such as https://abc.supabase.co, without user, "
            "password or query"
        )
    http = httpx.Client(
        timeout=settings.timeout_s, transport=transport, event_hooks={"response": [refuse_busy]}
    )
    options = ClientOptions(httpx_client=http, postgrest_client_retry=False)
    try:
        client = create_client(settings.url, settings.key.get_secret_value().strip(), options)
    except (SupabaseException, ValueError) as error:
        raise SupabaseError(f"SUPABASE_URL {settings.url!r} or SUPABASE_KEY is not valid: {error}") from None
    _ = client.postgrest  # created on first use, which is not thread-safe
    return client


def _midnight(day: date) -> str:
    """00:00 UTC of a date: a bare date would be midnight in the server's time zone."""
    return f"{day.isoformat()}T00:00:00Z"


def _ranges(names: list[str]) -> list[list[tuple[str, str, str]]]:
    """Consecutive ranges that together hold every symbol there may be, listed or not."""
    edges = pairwise([None, *names[RANGE::RANGE], None])
    return [
        [("symbol", how, at) for how, at in (("gte", low), ("lt", high)) if at is not None]
        for low, high in edges
    ]


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int) -> Iterator[Result]:
    """The results of `work` in the order of the items, at most `at_once` running at a time.

    At most 2 x `at_once` items are ahead of the reader, so a slow reader bounds memory. The threads are
    daemons, which a thread pool's are not: after Ctrl-C none of them keeps the process alive. The first error
    is raised in its turn, and no work starts after it.
    """
    slots, is_over = threading.Semaphore(at_once), threading.Event()

    def run(item: Item, future: Future[Result]) -> None:
        with slots:
            if is_over.is_set():
                return
            try:
                future.set_result(work(item))
            except BaseException as error:
                is_over.set()
                future.set_exception(error)

    def begin(item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        threading.Thread(target=run, args=(item, future), daemon=True).start()
        return future

    rest = iter(items)
    begun = deque(begin(item) for item in islice(rest, 2 * at_once))
    try:
        while begun:
            result = begun.popleft().result()
            begun.extend(begin(item) for item in islice(rest, 1))
            yield result
    finally:
        is_over.set()
