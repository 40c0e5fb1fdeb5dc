"""What the page is made of and asks for, without a browser: files, policy, and what it is answered."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service import KronosEvents
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import encode_rows
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.scorecard.command import score_forecasts_made
from kronos_service.finetune.event_conditioned.scorecard.config import ScorecardConfig
from kronos_service.inference.http.static_files import STATIC
from kronos_shared.adapter_manifest import MANIFEST, MODEL_CARD, AdapterManifest
from kronos_shared.adapter_store import latest, publish

Ask = Callable[..., dict[str, Any]]
Serve = Callable[..., AbstractContextManager[TestClient]]

FILES = sorted(str(file.relative_to(STATIC)) for file in STATIC.rglob("*") if file.is_file())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ADMIN = {"Authorization": "Bearer an-admin-key-of-the-tests"}
PAST = date(2022, 11, 30)


def got(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def faults(client: TestClient, path: str, **query: Any) -> dict[str, str]:
    answer = client.get(path, params=query)
    assert answer.status_code == 422, answer.text
    return {fault["field"]: fault["message"] for fault in answer.json()["error"]["fields"]}


# The files


@pytest.mark.parametrize(("prefix", "root"), [("/", ""), ("/ui/", ""), ("/", "/kronos")])
def test_the_root_leads_to_the_page(serve: Serve, prefix: str, root: str) -> None:
    with serve(root_path=root) as client:
        answer = client.get(prefix, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{root}/ui")


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is_and_asked_for_again_by_its_tag(
    client: TestClient, name: str
) -> None:
    answer = client.get(f"/ui/static/{name}")
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["Content-Type"].partition(";")[0] == TYPES.get(Path(name).suffix, "text/plain")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = client.get(f"/ui/static/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_library_is_the_file_whose_sum_is_pinned() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^CHARTS_SHA256 := ([0-9a-f]{64})$", makefile, re.M)
    (version,) = re.findall(r"^CHARTS_PACKAGE := lightweight-charts@(\S+)$", makefile, re.M)
    library = (STATIC / "vendor" / "lightweight-charts.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() == pinned
    assert f"lightweight-charts {version}" in (STATIC / "vendor" / "NOTICE").read_text(encoding="utf-8")


def test_files_are_compressed_for_who_takes_that(client: TestClient) -> None:
    path = "/ui/static/vendor/lightweight-charts.js"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    small = client.get(path, headers={"Accept-Encoding": "gzip, br"})
    assert "Content-Encoding" not in plain.headers
    assert small.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Vary"] == small.headers["Vary"] == "Accept-Encoding"
    assert small.content == plain.content
    assert int(small.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 3


@pytest.mark.parametrize("path", ["/ui", "/docs", *(f"/ui/static/{name}" for name in FILES)])
def test_whatever_the_browser_gets_may_load_from_here_only_and_run_nothing_inline(
    client: TestClient, path: str
) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("img-src") == "'self' data:"
    assert policy.pop("default-src") == "'none'"
    assert set(policy) == {
        *("script-src", "style-src", "connect-src", "base-uri", "form-action", "frame-ancestors")
    }
    assert set(policy.values()) == {"'self'", "'none'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


class Markup(HTMLParser):
    """What a page names, and what its policy would forbid."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.named += [value for name in ("src", "href") if (value := values.get(name)) is not None]
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self.inline += [tag] * (tag == "style" or (tag == "script" and "src" not in values))


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_a_page_names_only_what_is_served_here(client: TestClient, path: str) -> None:
    markup = Markup()
    markup.feed(client.get(path).text)
    links = [name for name in markup.named if not name.startswith(("#", "https://www.tradingview.com"))]
    assert len(links) >= 5
    for name in links:
        assert ":" not in name
        assert client.get(f"/{name}").status_code == 200, name
    assert markup.inline == []


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js") and "vendor" not in name])
def test_a_module_imports_files_that_there_are_and_parses_no_markup(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    imported = re.findall(r'^import (?:[^;"]+ from )?"([^"]+)";$', text, re.M)
    assert all((STATIC / other).is_file() for other in imported), imported
    for words in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert words not in re.sub(r"(?s)/\*\*.*?\*/", "", text), words


@pytest.mark.parametrize(
    "path",
    ["nowhere.js", "..%2F__init__.py", "%2e%2e/bars.py", "a%00b", "vendor", "", "%2Fetc%2Fpasswd", "é" * 300],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/ui/static/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_can_be_switched_off_and_the_api_stays(serve: Serve, ask: Ask) -> None:
    with serve(ui=False) as client:
        for path in ("/", "/ui", "/ui/", "/docs", "/ui/static/app.js", "/redoc"):
            assert client.get(path).status_code == 404, path
        assert ask(client)["series"]
        assert got(client, "/v1/symbols")["total"] == 7


# Symbols and bars


def test_the_search_finds_parts_of_names_those_that_begin_with_it_first(
    serve: Serve, market: Snapshot, tmp_path: Path
) -> None:
    """Under 64 bars there is nothing to forecast, and so nothing to find."""
    few = (market.bars["symbol"] == "SYN03") & (market.bars["ts"] < pd.Timestamp("2022-11-01", tz="UTC"))
    old = (market.bars["symbol"] == "SYN02") & (market.bars["ts"] > pd.Timestamp("2022-06-01", tz="UTC"))
    for name, table in (
        ("ohlcv_1d", market.bars[~few & ~old].replace({"symbol": {"SYN01": "ASYN"}})),
        ("symbols", market.symbols.replace({"symbol": {"SYN01": "ASYN"}})),
        ("economic_calendar", market.calendar),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
    with serve(snapshot=tmp_path) as client:
        found = got(client, "/v1/symbols", search="syn")
        assert [one["symbol"] for one in found["symbols"]] == ["SYN02", "ASYN"]
        assert (found["total"], found["matching"]) == (6, 2)
        assert [one["is_stale"] for one in found["symbols"]] == [True, False]
        assert found["symbols"][0]["last_bar"] == "2022-06-01"
        one = got(client, "/v1/symbols", search="SYN", most=1)
        assert ([found["symbol"] for found in one["symbols"]], one["matching"]) == (["SYN02"], 2)
        assert got(client, "/v1/symbols", search="<b>")["symbols"] == []
        assert faults(client, "/v1/symbols", most=501).keys() == {"query.most"}


def test_bars_end_at_the_date_and_what_came_stands_apart(client: TestClient, market: Snapshot) -> None:
    bars = market.bars[market.bars["symbol"] == "SPY"].reset_index(drop=True)
    found = got(client, "/v1/bars", symbol="SPY", as_of=str(PAST), most=20)
    until = bars[bars["ts"] <= pd.Timestamp(PAST, tz="UTC")]
    for name, expected in (("bars", until.iloc[-20:]), ("after", bars.iloc[len(until) :].iloc[:64])):
        assert found[name]["ts"] == [f"{day:%Y-%m-%d}" for day in expected["ts"]]
        for column in ("open", "high", "low", "close", "volume"):
            assert found[name][column] == expected[column].tolist()
    assert (found["as_of_date"], found["last_bar"]) == (str(PAST), "2022-12-30")
    assert found["first_bar"] == f"{bars['ts'].iloc[0]:%Y-%m-%d}"
    last = got(client, "/v1/bars", symbol="SPY")
    assert (last["as_of_date"], last["after"]["ts"]) == ("2022-12-30", [])
    assert got(client, "/v1/bars", symbol="SPY", as_of="2022-11-27")["as_of_date"] == "2022-11-25"  # a Sunday


def test_releases_have_the_calendars_name_figures_and_the_surprise_that_the_adapter_is_shown(
    client: TestClient,
) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    market = service.refresher.current()
    found = got(client, "/v1/bars", symbol="SPY", most=200)
    names = dict(zip(market.calendar["event_type"], market.calendar["event_name"], strict=True))
    assert {one["name"] for one in found["events"]} <= set(names.values()) - {""}
    bars = market.bars["SPY"].iloc[-200:]
    shown = encode_rows(market.tables, bars["ts"], "us_equity", symbol="SPY")[:, DEFAULT_TAXONOMY.surprise]
    days = found["bars"]["ts"]
    largest: dict[str, float] = {}
    for one in found["events"]:
        assert (one["actual"] is None or one["forecast"] is None) == (one["z"] is None)
        if one["z"] is not None:
            largest[one["date"]] = max(largest.get(one["date"], 0.0), one["z"], key=abs)
    # released before the close, which is what happens to all of this market's, it is known with that bar
    assert len(largest) > 20
    expected = [largest.get(day, 0.0) for day in days[1:]]
    assert np.allclose(shown[1:], expected, atol=1e-6)


def test_releases_ahead_are_those_that_were_known(client: TestClient, ask: Ask) -> None:
    (series,) = ask(client, series=[{"symbol": "SPY", "as_of": str(PAST)}], horizon=8)["series"]
    found = got(client, "/v1/bars", symbol="SPY", as_of=str(PAST))
    ahead = [one for one in found["ahead"] if one["date"] <= series["dates"][-1]]
    assert ahead
    assert [{name: one[name] for name in one if name != "name"} for one in ahead] == series["events"]
    assert all(one["name"] for one in ahead)
    assert min(one["date"] for one in found["ahead"]) > str(PAST)
    weekend = got(client, "/v1/bars", symbol="BTCUSDT", as_of="2022-12-02")["leaders"]
    assert weekend["BTCUSDT"][:4] == ["2022-12-03", "2022-12-04", "2022-12-05", "2022-12-06"]
    assert all(weekend[name][:2] == ["2022-12-05", "2022-12-06"] for name in ("SPY", "DXY", "VIX"))
    assert "2022-12-26" not in found["leaders"]["BTCUSDT"]  # no session of the symbol
    assert "2022-12-26" not in weekend["SPY"]
    assert "2022-12-26" in weekend["DXY"]


def test_a_release_that_is_postponed_later_stands_where_it_stood(
    serve: Serve, market: Snapshot, tmp_path: Path
) -> None:
    calendar = market.calendar
    ahead = calendar["release_at"] > pd.Timestamp(PAST, tz="UTC") + pd.Timedelta(days=3)
    first = calendar[ahead & calendar["first_seen_at"].isna()].iloc[:1]
    (moved_from,) = first["release_at"]
    moved = first.assign(
        release_at=moved_from + pd.Timedelta(days=5), first_seen_at=moved_from - pd.Timedelta(days=1)
    )
    market.bars.to_parquet(tmp_path / "ohlcv_1d.parquet")
    market.symbols.to_parquet(tmp_path / "symbols.parquet")
    pd.concat([calendar, moved]).to_parquet(tmp_path / "economic_calendar.parquet")
    with serve(snapshot=tmp_path) as client:
        found = got(client, "/v1/bars", symbol="BTCUSDT", as_of=str(PAST))

    def moments(listed: str) -> set[pd.Timestamp]:
        (event_type,) = first["event_type"]
        return {pd.Timestamp(one["release_at"]) for one in found[listed] if one["event_type"] == event_type}

    assert moved_from in moments("ahead")
    assert moved["release_at"].iloc[0] not in moments("ahead")
    assert moved_from not in moments("events")
    assert moved["release_at"].iloc[0] in moments("events")


def test_what_there_are_no_bars_of_is_a_fault_with_what_to_ask_instead(client: TestClient) -> None:
    assert "did you mean SPY?" in faults(client, "/v1/bars", symbol="SPYY")["symbol"]
    early = faults(client, "/v1/bars", symbol="SPY", as_of="2021-02-01")["as_of"]
    first = re.match(r"expected (\S+) or later, got 2021-02-01", early)
    assert first is not None
    assert len(got(client, "/v1/bars", symbol="SPY", as_of=first[1])["bars"]["ts"]) == 64
    assert faults(client, "/v1/bars").keys() == {"query.symbol"}
    assert faults(client, "/v1/bars", symbol="SPY", most=0, as_of="soon").keys() == {
        "query.most",
        "query.as_of",
    }


QUERY = st.dictionaries(
    st.sampled_from(["search", "symbol", "as_of", "most", "x"]),
    st.text(max_size=8)
    | st.sampled_from(["SPY", "2022-11-30", "0001-01-01", "9999-12-31", "5", "-1", "1e3", "\x00"]),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/symbols", "/v1/bars"]), query=QUERY)
def test_whatever_is_asked_is_answered_or_refused(
    client: TestClient, path: str, query: dict[str, str]
) -> None:
    answer = client.get(path, params=query)
    assert answer.status_code in (200, 422), answer.text


def test_without_a_market_or_a_key_nothing_is_told(serve: Serve) -> None:
    with serve() as client:
        client.app.state.service.refresher._market = None  # type: ignore[attr-defined]
        for path in ("/v1/symbols", "/v1/bars?symbol=SPY"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert (
                client.get(path, headers={"Authorization": "Bearer nobody-knows-this-key"}).status_code == 401
            )


# Forecasts of the past, of the base, and their moves


@pytest.fixture(scope="module")
def cut(market: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The market as it was on the evening of PAST: no later bar, no later figure."""
    path, end = tmp_path_factory.mktemp("cut"), pd.Timestamp(PAST, tz="UTC")
    calendar = market.calendar
    released = calendar["release_at"] <= end + pd.Timedelta(hours=22)
    market.bars[market.bars["ts"] <= end].to_parquet(path / "ohlcv_1d.parquet")
    market.symbols.to_parquet(path / "symbols.parquet")
    calendar.assign(actual=calendar["actual"].where(released)).to_parquet(path / "economic_calendar.parquet")
    return path


@pytest.mark.parametrize("model", ["adapter", "base"])
def test_a_forecast_of_the_past_is_the_one_that_was_made_then(
    serve: Serve, client: TestClient, ask: Ask, cut: Path, model: str
) -> None:
    """To the bit, with all that came later in the source: nothing of it is read."""
    asked = {"horizon": 6, "paths": 8, "seed": 5, "model": model, "return_paths": True}
    then = datetime(2022, 12, 1, 1, tzinfo=UTC)
    with serve(snapshot=cut, now=then) as past:
        expected = ask(past, series=[{"symbol": "SPY"}, {"symbol": "BTCUSDT"}], **asked)["series"]
    days = [{"symbol": name, "as_of": str(PAST)} for name in ("SPY", "BTCUSDT")]
    found = ask(client, series=days, **asked)["series"]
    assert found == expected
    assert ask(client, series=[{"symbol": "SPY"}], **asked)["series"][0]["paths"] != found[0]["paths"]


def test_the_base_beside_the_adapter_is_the_python_doors_base(
    client: TestClient, ask: Ask, store: Path, base_path: Path, market: Snapshot
) -> None:
    """It reads as many bars as the adapter does, and is shown no events."""
    model = KronosEvents.from_adapter(store, base_model=str(base_path))
    bars = market.bars[market.bars["symbol"] == "SPY"].assign(asset_class="us_equity")
    paths = model.paths(bars, horizon=4, paths=5, seed=3, base_only=True)
    answer = ask(client, model="base", return_paths=True)
    closes = np.array(answer["series"][0]["paths"]["close"])
    assert np.array_equal(paths["close"].to_numpy().reshape(5, 4), closes)
    assert answer["model"]["version"] is answer["model"]["digest"] is None
    adapted = ask(client, return_paths=True)
    assert adapted["model"]["version"] is not None
    assert adapted["series"][0]["bars_used"] == answer["series"][0]["bars_used"]
    assert adapted["series"][0]["paths"] != answer["series"][0]["paths"]
    assert answer["series"][0]["missing_leaders"] == []


def test_the_base_reads_no_more_bars_than_the_adapter(client: TestClient) -> None:
    serving = client.app.state.service.loader.current()  # type: ignore[attr-defined]
    shorter = serving.manifest.normalization.model_copy(update={"context": 70})
    manifest = serving.manifest.model_copy(update={"normalization": shorter})
    base = replace(serving, manifest=manifest).without_adapter
    assert (base.context, base.manifest, base.version) == (70, None, None)
    assert base.without_adapter is base
    assert serving.without_adapter is serving.without_adapter  # so that requests for it are one batch


def test_what_the_base_or_a_date_cannot_do_is_refused(client: TestClient) -> None:
    body: dict[str, Any] = {"series": [{"symbol": "SPY"}], "horizon": 4, "paths": 2}
    scenario = {"surprises": [{"date": "2023-01-04", "event_type": "cpi", "z": 1.0}]}
    candles = [{"ts": "2022-12-30", "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0}]
    inline = {"symbol": "x", "asset_class": "crypto", "candles": candles, "as_of": "2022-12-30"}
    for changes, field, words in (
        ({"model": "base", "scenario": scenario}, "scenario", "knows no events"),
        ({"model": "both"}, "model", "'adapter' or 'base'"),
        (
            {"series": [{"symbol": "SPY", "as_of": "2021-01-05"}]},
            "series.0.as_of",
            "or later, got 2021-01-05",
        ),
        ({"series": [inline]}, "series.0", "end the candles where the forecast begins"),
    ):
        answer = client.post("/v1/forecast", json=body | changes)
        assert answer.status_code == 422, answer.text
        (fault,) = answer.json()["error"]["fields"]
        assert fault["field"] == field
        assert words in fault["message"]


def test_moves_are_quantiles_of_each_bars_own_move(client: TestClient, ask: Ask, market: Snapshot) -> None:
    (series,) = ask(client, quantiles=[0.05, 0.5], return_paths=True, paths=9)["series"]
    last = float(market.bars.loc[market.bars["symbol"] == "SPY", "close"].iloc[-1])
    closes = np.array(series["paths"]["close"])
    moves = 100 * (closes / np.column_stack([np.full(9, last), closes[:, :-1]]) - 1)
    assert series["last_close"] == last
    assert series["moves"].keys() == {"0.05", "0.5"}
    assert np.allclose(series["moves"]["0.05"], np.quantile(moves, 0.05, axis=0), rtol=1e-12, atol=1e-12)
    assert np.allclose(series["moves"]["0.5"], np.median(moves, axis=0), rtol=1e-12, atol=1e-12)


# Versions, trust and the track record


@pytest.fixture
def own_store(adapter_of: Callable[[int], Path], tmp_path: Path) -> Path:
    for seed in (1, 2):
        publish(adapter_of(seed), tmp_path / "store", keep=5)
    return tmp_path / "store"


@pytest.fixture
def served(serve: Serve, own_store: Path) -> Iterator[TestClient]:
    with serve(adapters=own_store, poll_seconds=3600) as client:
        yield client


def names_of(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "versions").iterdir())


def test_the_versions_say_which_serves_which_is_pinned_and_which_is_refused(
    served: TestClient, own_store: Path, adapter_of: Callable[[int], Path]
) -> None:
    first, second = names_of(own_store)

    def marks() -> dict[str, set[str]]:
        found = got(served, "/v1/adapters")
        flags = ("serves", "is_latest", "is_pinned", "is_resident")
        return {one["version"]: {name for name in flags if one[name]} for one in found["versions"]}

    assert marks() == {second: {"serves", "is_latest", "is_resident"}, first: set()}
    assert list(marks()) == [second, first]
    served.post("/v1/adapters/pin", json={"version": first}, headers=ADMIN)
    assert marks() == {first: {"serves", "is_pinned", "is_resident"}, second: {"is_latest", "is_resident"}}
    served.post("/v1/adapters/pin", json={"version": None}, headers=ADMIN)

    third = publish(adapter_of(3), own_store, keep=5).version
    weights = own_store / "versions" / third / "event_emb.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    served.post("/v1/adapters/reload", headers=ADMIN)
    found = got(served, "/v1/adapters")
    assert (found["serving"], found["latest"]) == (second, third)
    assert (
        "event_emb.safetensors is not the file the manifest describes"
        in found["versions"][0]["refused_because"]
    )
    assert str(own_store) not in json.dumps(found)
    (own_store / "versions" / third / MANIFEST).write_text("{}")
    unread = got(served, "/v1/adapters")["versions"][0]
    assert unread["unread_because"].startswith(f"{third}: its manifest has sha256")
    assert unread["created_at"] is unread["synthetic"] is unread["gain"] is None


def test_trust_repeats_the_manifest_and_what_it_does_not_hold_is_null(
    client: TestClient, store: Path
) -> None:
    pointer = latest(store)
    assert pointer is not None
    directory = store / "versions" / pointer.version
    manifest = AdapterManifest.from_bytes((directory / MANIFEST).read_bytes())
    found = got(client, f"/v1/adapters/{pointer.version}")
    assert (found["version"], found["digest"]) == (pointer.version, pointer.manifest_sha256)
    assert found["training"]["splits"] == {name: list(days) for name, days in manifest.data.splits.items()}
    assert found["card"] == (directory / MODEL_CARD).read_text()
    assert found["base"] == manifest.base.model_dump()
    for name in ("audit", "validation", "walk_forward"):
        assert found[name] is None


def test_a_card_that_is_not_the_manifests_is_not_shown(served: TestClient, own_store: Path) -> None:
    for name in names_of(own_store):
        (own_store / "versions" / name / MODEL_CARD).write_text("trust me\n")
        assert got(served, f"/v1/adapters/{name}")["card"] is None


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("000009-0123456789ab", 404),
        ("latest", 422),
        ("..", 404),
        ("%2e%2e%2fversions", 404),
        ("000001-0123456789AB", 422),
    ],
)
def test_no_other_name_is_looked_up(client: TestClient, name: str, status: int) -> None:
    answer = client.get(f"/v1/adapters/{name}")
    assert answer.status_code == status, answer.text
    assert "/" not in answer.json()["error"]["message"].replace("/v1", "")


def test_the_record_is_what_scorecard_wrote(
    serve: Serve, ask: Ask, market_path: Path, tmp_path: Path
) -> None:
    with serve(now=datetime(2022, 11, 1, 12, tzinfo=UTC), served_log=tmp_path / "log") as client:
        for symbol in ("SPY", "SYN01"):
            ask(client, series=[{"symbol": symbol}], paths=30)
    config = ScorecardConfig(forecasts=(tmp_path / "log",), snapshot=market_path, out=tmp_path / "out")
    written, _ = score_forecasts_made(config)
    with serve(scorecard=tmp_path / "out" / "scorecard.json") as client:
        found = got(client, "/v1/record")
    assert found["reason"] is None
    assert found["scorecard"]["targets"] == written["targets"] == 2 * 4
    (version,), (expected,) = found["scorecard"]["versions"], written["versions"]
    assert (version["version"], version["pit"]) == (expected["version"], expected["pit"])
    for group, from_file in zip(version["groups"], expected["groups"], strict=True):
        assert group == {name: from_file[name] for name in group}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the scorecard is missing"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"targets": NaN}', "not JSON"),
        (b"{}", "not a scorecard.json as `scorecard` writes it (targets)"),
        (b" " * (4 * 2**20 + 1), "longer than 4194304 bytes"),
    ],
)
def test_what_is_no_scorecard_is_a_reason(
    serve: Serve, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "scorecard.json"
    if content is not None:
        path.write_bytes(content)
    with serve(scorecard=path) as client:
        found = got(client, "/v1/record")
    assert (found["is_configured"], found["scorecard"]) == (True, None)
    assert reason in found["reason"]
    assert str(tmp_path) not in found["reason"]


def test_without_a_scorecard_there_is_no_record(client: TestClient) -> None:
    assert got(client, "/v1/record")["is_configured"] is False
