"""Reading Supabase: every row once, whatever the cap; passing faults retried, others explained in a line."""

import threading
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pandas as pd
import pytest
from fake_postgrest import FakePostgrest, Row
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pytest_mock import MockerFixture
from supabase import SupabaseException

from kronos_service.data.sources import Source
from kronos_service.data.sources.postgrest import SupabaseError
from kronos_service.data.sources.supabase import (
    SupabaseSettings,
    SupabaseSource,
    ordered_map,
    supabase_client,
    supabase_source,
)

URL = "https://abc.supabase.co"
AWKWARD = ["BRK.B", 'quo"te', "com,ma", "par(en)", "back\\slash", "plus+", "a b", "ÄÖ", "%25", "&x=1"]


def source(fake: FakePostgrest, url: str = URL, key: str = "secret-key", attempts: int = 3) -> SupabaseSource:
    chosen = SupabaseSettings(url=url, key=SecretStr(key), attempts=attempts, backoff_s=0)
    return supabase_source(chosen, transport=fake.transport())


def bar_rows(symbols: list[str], count: int) -> list[Row]:
    days = pd.date_range("2024-01-01", periods=count, tz="UTC")
    return [{"symbol": s, "ts": day.isoformat(), "close": 1.0, "volume": 2} for s in symbols for day in days]


def market(rows: list[Row]) -> dict[str, list[Row]]:
    """Bars, and the table of their symbols."""
    symbols = [
        {"symbol": name, "asset_class": "fx", "tradable": True} for name in {r["symbol"] for r in rows}
    ]
    return {"ohlcv_1d": rows, "symbols": symbols}


def calendar_rows(versions: list[int]) -> list[Row]:
    """For each event, so many rows: the first was always known, the others were seen later."""
    seen = [None, *(f"2024-02-{day:02}T12:00:00+00:00" for day in range(1, 20))]
    return [
        {
            "event_id": f"e{i:03}",
            "release_at": f"2024-01-{i % 28 + 1:02}T13:30:00+00:00",
            "first_seen_at": when,
        }
        for i, count in enumerate(versions)
        for when in seen[:count]
    ]


def keys(frames: Iterator[pd.DataFrame] | list[pd.DataFrame], *columns: str) -> list[tuple[Any, ...]]:
    table = pd.concat(list(frames)).astype(object)
    return [
        tuple(None if pd.isna(v) else v for v in row) for row in table[list(columns)].itertuples(index=False)
    ]


@pytest.mark.parametrize("cap", [1, 7, 1000, 5000])
def test_every_bar_comes_once_and_in_order_whatever_the_cap(cap: int) -> None:
    rows = bar_rows(AWKWARD, 3 if cap < 1000 else 230)
    fake = FakePostgrest(market(rows), cap=cap)
    read: Source = source(fake)
    expected = sorted((row["symbol"], row["ts"]) for row in rows)
    assert keys(read.bars(), "symbol", "ts") == expected
    ranges = [AWKWARD[i : i + 3] for i in range(0, len(AWKWARD), 3)]
    pages = sum(-(-len(names) * len(rows) // len(AWKWARD) // cap) for names in ranges)
    assert len(fake.requests) == pages + -(-len(AWKWARD) // cap)  # no page is asked for that has no rows


def test_bars_shorter_than_a_day_are_read_by_their_length() -> None:
    made = bar_rows(["B", "A", "C", "D"], 5)
    rows = [{**row, "interval": length} for length in ("1h", "4h") for row in made]
    tables = market(rows)
    fake = FakePostgrest({"ohlcv": tables["ohlcv_1d"], "symbols": tables["symbols"]}, cap=7)
    read = pd.concat(source(fake).bars(interval="4h"))
    assert read["interval"].unique().tolist() == ["4h"]
    assert keys([read], "symbol", "ts") == sorted({(row["symbol"], row["ts"]) for row in rows})
    with pytest.raises(SupabaseError, match=r"table ohlcv at .* shows no rows"):
        list(source(FakePostgrest({**fake.tables, "ohlcv": rows[:20]})).bars(interval="4h"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_every_version_of_an_event_comes_once_wherever_the_pages_end(versions: list[int], cap: int) -> None:
    rows = calendar_rows(versions)
    read = source(FakePostgrest({"economic_calendar": rows}, cap=cap)).calendar()
    expected = [(row["event_id"], row["first_seen_at"]) for row in rows]
    assert keys([read], "event_id", "first_seen_at") == expected


def test_no_row_is_lost_or_doubled_while_another_client_writes() -> None:
    rows = bar_rows(["B", "D"], 60)
    more = iter(bar_rows(["A", "C", "E"], 20))

    def write(fake: FakePostgrest) -> None:
        fake.tables["ohlcv_1d"] = [*fake.tables["ohlcv_1d"], next(more)]

    fake = FakePostgrest(market(rows), cap=10, before=write)
    read = keys(source(fake).bars(), "symbol", "ts")
    assert len(read) == len(set(read))
    assert {(row["symbol"], row["ts"]) for row in rows} <= set(read)


def test_since_leaves_out_what_is_older() -> None:
    tables = market(bar_rows(["A", "B"], 10)) | {"economic_calendar": calendar_rows([2] * 10)}
    read = source(FakePostgrest(tables, cap=3))
    days = keys(read.bars(date(2024, 1, 8)), "ts")
    assert days == [(f"2024-01-{day:02}T00:00:00+00:00",) for day in (8, 9, 10)] * 2
    assert list(read.bars(date(2030, 1, 1))) == []


def test_a_short_read_is_an_error_and_not_a_small_table() -> None:
    rows = bar_rows(["A"], 30)

    def delete(fake: FakePostgrest) -> None:
        if len(fake.requests) == 3:
            fake.tables["ohlcv_1d"] = rows[:15]

    with pytest.raises(SupabaseError, match="30 rows counted but 15 read"):
        list(source(FakePostgrest(market(rows), cap=10, before=delete)).bars())
    with pytest.raises(SupabaseError, match="no row count"):
        list(source(FakePostgrest(market(rows), counts=False)).bars())


PASSING: list[httpx.Response | Exception] = [
    httpx.ReadTimeout("slow"),
    httpx.ConnectError("refused"),
    httpx.RemoteProtocolError("closed"),
    httpx.Response(429, json={"message": "slow down"}),
    httpx.Response(500, json={"code": "57014", "message": "canceling statement due to statement timeout"}),
    httpx.Response(503, text="upstream"),
    httpx.Response(504),
    httpx.Response(200, html="<h1>Just a moment</h1>"),
    httpx.Response(200, text='[{"symbol": "A"'),
    httpx.Response(200, content=b""),
    httpx.Response(200, json=[]),
]


@pytest.mark.parametrize(
    "fault", PASSING, ids=lambda fault: getattr(fault, "status_code", type(fault).__name__)
)
def test_a_fault_of_the_moment_is_retried_and_a_lasting_one_given_up_in_a_line(
    fault: httpx.Response | Exception,
) -> None:
    tables = market(bar_rows(["A"], 5))
    fake = FakePostgrest(tables, answers=[fault, fault])
    assert len(keys(source(fake).bars(), "ts")) == 5
    lasting = FakePostgrest(tables, answers=[fault] * 10)
    with pytest.raises(SupabaseError, match="table symbols") as refused:
        list(source(lasting).bars())
    assert len(lasting.requests) == 3  # ours alone: the client's own retries are off
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "answer", "message"),
    [
        ({"key": "wrong"}, None, "refused SUPABASE_KEY .*Invalid API key"),
        (
            {},
            httpx.Response(403, json={"code": "42501", "message": "permission denied"}),
            "refused SUPABASE_KEY",
        ),
        (
            {},
            httpx.Response(401, json={"code": "PGRST301", "message": "JWT expired"}),
            "refused SUPABASE_KEY",
        ),
        (
            {},
            httpx.Response(404, json={"code": "PGRST205", "message": "no"}),
            "create it with shared/schema.sql",
        ),
        (
            {},
            httpx.Response(404, json={"code": "42P01", "message": "no"}),
            "create it with shared/schema.sql",
        ),
        ({}, httpx.Response(404, html="<h1>Not found</h1>"), "is SUPABASE_URL right"),
        (
            {},
            httpx.Response(400, json={"code": "42703", "message": "column x"}),
            r"42703 column x.*compare it with shared/schema\.sql",
        ),
        ({"url": URL + "/" + "x" * 70_000}, None, "cannot reach"),
    ],
)
def test_what_cannot_pass_is_explained_at_once_in_a_line_without_the_key(
    change: dict[str, str], answer: httpx.Response | None, message: str
) -> None:
    fake = FakePostgrest(market(bar_rows(["A"], 5)), answers=[answer] if answer else [])
    with pytest.raises(SupabaseError, match=message) as refused:
        list(source(fake, **change).bars())  # type: ignore[arg-type]
    assert len(fake.requests) <= 1
    assert "\n" not in str(refused.value)
    assert "secret-key" not in str(refused.value)


def test_an_empty_or_hidden_table_is_an_error() -> None:
    with pytest.raises(SupabaseError, match="row-level security hides it"):
        source(FakePostgrest({"symbols": []})).symbols()


@pytest.mark.parametrize(
    "url", ["https://me:S3cret@abc.supabase.co", "https://me:S3/x@abc.supabase.co", "S3cret", "ftp://S3", ""]
)
def test_an_address_with_user_and_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SupabaseError, match="SUPABASE_URL is not valid: expected an address such") as refused:
        supabase_source(SupabaseSettings(url=url, key=SecretStr("k")))
    assert "S3" not in str(refused.value)


def test_settings_come_from_the_environment_and_absent_ones_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SupabaseError, match="set SUPABASE_URL, SUPABASE_KEY in the environment"):
        supabase_source()
    monkeypatch.setenv("SUPABASE_URL", URL)
    monkeypatch.setenv("SUPABASE_KEY", "secret-key\n")  # as `cat key` leaves it
    fake = FakePostgrest({"symbols": [{"symbol": "A", "asset_class": "fx", "tradable": True}]})
    read = supabase_source(transport=fake.transport())
    assert len(read.symbols()) == 1
    assert read.name == "supabase:abc.supabase.co"
    assert "secret-key" not in repr(read.settings)


@pytest.mark.parametrize("url", ["", "abc.supabase.co", "ftp://abc"])
def test_an_address_that_cannot_be_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(SupabaseError, match="not valid"):
        source(FakePostgrest({}), url=url)


def test_the_official_client_gets_our_timeout_a_clean_key_and_no_retries_of_its_own(
    mocker: MockerFixture,
) -> None:
    """Its own retries would multiply ours, and its own timeout is 5 s, or a whole number."""
    created = mocker.patch("kronos_service.data.sources.supabase.create_client")
    chosen = SupabaseSettings(url=URL, key=SecretStr("secret-key\n"), timeout_s=7.5)
    assert supabase_client(chosen) is created.return_value
    url, key, options = created.call_args.args
    assert (url, key) == (URL, "secret-key")
    assert options.postgrest_client_retry is False
    assert options.httpx_client.timeout == httpx.Timeout(7.5)


def test_a_client_that_cannot_be_made_is_one_line_without_the_key(mocker: MockerFixture) -> None:
    refusal = SupabaseException("Invalid API key")
    mocker.patch("kronos_service.data.sources.supabase.create_client", side_effect=refusal)
    with pytest.raises(SupabaseError, match="SUPABASE_KEY is not valid: Invalid API key") as refused:
        supabase_client(SupabaseSettings(url=URL, key=SecretStr("secret-key")))
    assert "secret-key" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pauses_double_up_to_half_a_minute_with_jitter(mocker: MockerFixture) -> None:
    """Without jitter all clients of a server that recovers would come back at once."""
    sleep = mocker.patch("tenacity.nap.time.sleep")
    chosen = SupabaseSettings(url=URL, key=SecretStr("secret-key"), attempts=40, backoff_s=0.5)
    fake = FakePostgrest({}, answers=[httpx.Response(503)] * 40)
    with pytest.raises(SupabaseError, match="table symbols"):
        supabase_source(chosen, transport=fake.transport()).symbols()
    pauses = [call.args[0] for call in sleep.call_args_list]
    assert len(pauses) == 39
    most = [min(30.0, 0.5 * 2**number) for number in range(39)]
    assert all(0 <= pause <= limit for pause, limit in zip(pauses, most, strict=True))
    assert max(pauses) > 15
    assert len(set(pauses)) > 30


def test_a_server_that_asks_for_a_pause_gets_it(mocker: MockerFixture) -> None:
    sleep = mocker.patch("tenacity.nap.time.sleep")
    answers: list[httpx.Response | Exception] = [
        httpx.Response(429, headers={"retry-after": "7"}),
        httpx.Response(503, headers={"retry-after": "86400"}),
    ]
    fake = FakePostgrest(market(bar_rows(["A"], 5)), answers=answers)
    assert len(source(fake).symbols()) == 1
    assert [call.args for call in sleep.call_args_list] == [(7.0,), (60.0,)]


def test_a_page_that_takes_the_database_too_long_is_asked_for_again_smaller() -> None:
    fake = FakePostgrest(market(bar_rows(["A"], 1200)), cap=5000)

    def give_up(fake: FakePostgrest) -> None:
        asked = int(fake.requests[-1].url.params["limit"])
        if asked > 700:
            message = {"code": "57014", "message": "canceling statement due to statement timeout"}
            fake.answers[:] = [httpx.Response(500, json=message)]

    fake.before = give_up
    assert len(keys(source(fake).bars(), "ts")) == 1200
    assert [r.url.params["limit"] for r in fake.requests][-4:] == ["10000", "2500", "625", "625"]


def test_several_pages_are_under_way_at_once_and_never_more_than_asked_for() -> None:
    """The fake waits until so many requests are in it; it would wait in vain for one more."""
    under_way, most, change = 0, 0, threading.Condition()

    def meet(fake: FakePostgrest) -> None:
        nonlocal under_way, most
        if "ohlcv_1d" not in fake.requests[-1].url.path:
            return
        with change:
            under_way, most = under_way + 1, max(most, under_way + 1)
            change.notify_all()
            change.wait_for(lambda: most >= 4, timeout=10)
        with change:
            change.wait(0.05)
            under_way -= 1

    rows = bar_rows([f"S{i:02}" for i in range(36)], 2)
    chosen = SupabaseSettings(url=URL, key=SecretStr("secret-key"), connections=4)
    read = supabase_source(chosen, transport=FakePostgrest(market(rows), before=meet).transport())
    assert keys(read.bars(), "symbol", "ts") == [(row["symbol"], row["ts"]) for row in rows]
    assert most == 4


def test_an_export_that_goes_on_reads_the_symbols_after_the_last_alone() -> None:
    rows = bar_rows(sorted(AWKWARD), 3)
    for position, last in enumerate(sorted(AWKWARD)):
        read = source(FakePostgrest(market(rows), cap=4))
        rest = rows[3 * (position + 1) :]
        chunks = [*read.bars(after=last), pd.DataFrame(columns=["symbol", "ts"])]
        assert keys(chunks, "symbol", "ts") == [(row["symbol"], row["ts"]) for row in rest]


def test_bars_are_counted_between_two_dates() -> None:
    read = source(FakePostgrest(market(bar_rows(["A", "B"], 10)), cap=3))
    assert read.count_bars(None, date(2030, 1, 1)) == 20
    assert read.count_bars(date(2024, 1, 3), date(2024, 1, 5)) == 4


def test_a_date_means_midnight_utc_whatever_the_time_zone_of_the_server() -> None:
    fake = FakePostgrest(market(bar_rows(["A"], 10)) | {"economic_calendar": calendar_rows([1] * 10)})
    read = source(fake)
    list(read.bars(date(2024, 1, 8)))
    read.count_bars(date(2024, 1, 8), date(2024, 1, 10))
    asked = [
        value
        for request in fake.requests
        for name, value in request.url.params.multi_items()
        if name in ("ts", "release_at")
    ]
    assert sorted(asked) == [*["gte.2024-01-08T00:00:00Z"] * 2, "lt.2024-01-10T00:00:00Z"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers()), st.integers(1, 8))
def test_results_come_in_the_order_of_the_items(items: list[int], at_once: int) -> None:
    assert list(ordered_map(lambda item: item + 1, items, at_once=at_once)) == [item + 1 for item in items]


def test_a_reader_that_does_not_take_holds_the_work_back() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    results = ordered_map(work, range(100), at_once=3)
    assert next(results) == 0
    assert len(begun) <= 7  # six ahead of the one that was taken
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_turn_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ConnectionError("gone")
        return item

    results = ordered_map(work, range(100), at_once=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ConnectionError, match="gone"):
        next(results)
    assert begun == [0, 1, 2]


def test_no_thread_outlives_the_process() -> None:
    results = ordered_map(lambda _: threading.current_thread().daemon, [1], at_once=1)
    assert list(results) == [True]
