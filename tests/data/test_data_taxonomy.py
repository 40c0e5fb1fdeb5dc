"""A taxonomy of the user's in data: sources, validation, plausibility, snapshots and their manifests."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_tables import NOW, small_tables, write_small

from kronos_service.data.coverage import read_coverage
from kronos_service.data.plausibility import calendar_departures
from kronos_service.data.sample import is_synthetic, write_sample
from kronos_service.data.sample_worlds import OWN_TAXONOMY, own_events
from kronos_service.data.snapshot.manifest import MANIFEST, SnapshotError
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.data.snapshot.revisions import revise
from kronos_service.data.sources.column_map import parse_column_maps
from kronos_service.data.sources.files import read_files
from kronos_service.data.sources.snapshot import snapshot_source
from kronos_service.data.tables import TableError, calendar_table
from kronos_service.data.validation import check_calendar
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, TaxonomyError, read_taxonomy
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.export_training_data import export

OWN = read_taxonomy(OWN_TAXONOMY)
"""The one that ships as an example."""


def released(event_type: str, at: str, symbol: str | None = None, **values: Any) -> dict[str, Any]:
    row = {
        "event_type": event_type,
        "event_name": event_type,
        "currency": "EUR" if event_type == "ecb_rate_decision" else "USD",
        "impact": "high",
        "release_at": at,
        "actual": 1.0,
        "forecast": 0.5,
        "symbol": symbol,
    }
    return row | values


CALENDAR = [
    released("ecb_rate_decision", "2024-01-11T13:15:00Z"),
    released("oil_inventories", "2024-01-10T15:30:00Z"),
    released("earnings_after_close", "2024-01-10T21:30:00Z", "SPY"),
    released("earnings_after_close", "2024-01-10T21:30:00Z", "QQQ"),
]


def test_two_companies_on_one_day_are_two_events() -> None:
    table = calendar_table(pd.DataFrame(CALENDAR))
    assert sorted(table["event_id"]) == [
        "EUR:ecb_rate_decision:2024-01-11",
        "QQQ:earnings_after_close:2024-01-10",
        "SPY:earnings_after_close:2024-01-10",
        "oil_inventories:2024-01-10",
    ]
    check_calendar(table, OWN)


@pytest.mark.parametrize("symbol", [None, "", np.nan])
def test_a_null_or_empty_symbol_is_everybodys(symbol: Any) -> None:
    table = calendar_table(pd.DataFrame([released("oil_inventories", "2024-01-10T15:30:00Z", symbol=symbol)]))
    assert table["symbol"].isna().all()
    check_calendar(table, OWN)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (released("earnings_after_close", "2024-01-10T21:30:00Z"), "expected a symbol in every row"),
        (released("oil_inventories", "2024-01-10T15:30:00Z", "SPY"), "expected no symbol in rows of oil"),
    ],
)
def test_a_symbol_that_does_not_fit_its_type_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=f"table economic_calendar: {message}"):
        check_calendar(calendar_table(pd.DataFrame([row])), OWN)


def own_tables() -> dict[str, pd.DataFrame]:
    return small_tables() | {"calendar": pd.DataFrame(CALENDAR)}


def test_a_snapshot_holds_its_taxonomy_and_symbols(tmp_path: Path) -> None:
    write_small(tmp_path / "s", own_tables(), taxonomy=OWN)
    snapshot = load_snapshot(tmp_path / "s", now=NOW)
    assert snapshot.taxonomy.content() == OWN.content()
    assert snapshot.calendar["symbol"].dropna().tolist() == ["QQQ", "SPY"]
    assert read_coverage(tmp_path / "s").missing_leaders == ("QQQ", "GLD")
    assert snapshot_source(tmp_path / "s").taxonomy.sha256 == OWN.sha256


def test_the_content_hash_covers_the_taxonomy_and_the_default_leaves_it_as_it_was(tmp_path: Path) -> None:
    tables = small_tables()
    plain = write_small(tmp_path / "a", tables)
    assert "taxonomy" not in plain
    nulls = tables | {"calendar": tables["calendar"].assign(symbol=None)}
    with_nulls = write_small(tmp_path / "b", nulls)
    assert with_nulls["sha256"] == plain["sha256"]
    own = write_small(tmp_path / "c", own_tables(), taxonomy=OWN)
    manifest = json.loads((tmp_path / "c" / MANIFEST).read_bytes())
    manifest["taxonomy"]["tier1"] = []
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(manifest))
    assert load_snapshot(tmp_path / "c", now=NOW).sha256 != own["sha256"]
    manifest["taxonomy"]["families"] = {}
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SnapshotError, match=r"families: .*; export again"):
        load_snapshot(tmp_path / "c", now=NOW)


def test_an_export_keeps_the_taxonomy_of_its_source_and_of_the_snapshot_it_extends(tmp_path: Path) -> None:
    write_small(tmp_path / "s", own_tables(), taxonomy=OWN)
    source = snapshot_source(tmp_path / "s")
    export(source, tmp_path / "out", now=NOW, accept=("hour", "closed-day"))
    assert load_snapshot(tmp_path / "out", now=NOW).taxonomy.sha256 == OWN.sha256
    export(source, tmp_path / "out", now=NOW, incremental=True)
    assert load_snapshot(tmp_path / "out", now=NOW).taxonomy.sha256 == OWN.sha256
    with pytest.raises(TaxonomyError, match=f"{OWN.sha256[:12]}.*{DEFAULT_TAXONOMY.sha256[:12]}"):
        export(source, tmp_path / "out", now=NOW, incremental=True, taxonomy=DEFAULT_TAXONOMY)


def test_export_and_import_take_a_taxonomy(tmp_path: Path) -> None:
    tables = own_tables()
    bars, releases = tmp_path / "ohlcv_1d.csv", tmp_path / "economic_calendar.csv"
    for name, path in (("bars", bars), ("calendar", releases), ("symbols", tmp_path / "symbols.csv")):
        tables[name].to_csv(path, index=False)
    given = {
        "export": ["--source", "snapshot", "--tables", str(tmp_path)],
        "import": ["--ohlcv", str(bars), "--calendar", str(releases), "--symbols", str(path)],
    }
    for command, files in given.items():
        out = tmp_path / command
        argv = [command, *files, "--out", str(out), "--taxonomy", str(OWN_TAXONOMY)]
        assert main(argv) == 0
        assert load_snapshot(out).taxonomy.sha256 == OWN.sha256


def test_a_revised_date_of_a_company_is_a_row_of_its_own() -> None:
    earlier = calendar_table(pd.DataFrame(CALENDAR))
    today = earlier.copy()
    is_spy = today["symbol"] == "SPY"
    today.loc[is_spy, "release_at"] += pd.Timedelta("7D")
    read_at = datetime(2024, 1, 9, tzinfo=UTC)
    found = revise(earlier, today, read_at=read_at, now=datetime(2024, 1, 9, 12, tzinfo=UTC))
    assert (found.added, found.overwritten, found.gone) == (0, 1, 0)
    spy = found.calendar[found.calendar["symbol"] == "SPY"]
    assert spy["first_seen_at"].isna().tolist() == [True, False]


def test_files_bring_symbols_of_symbol_events_and_dates_with_the_hour_of_their_type(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(
        "symbol,ts,open,high,low,close,volume\nSPY,2024-01-10,1,2,1,2,5\nSPY,2024-01-11,2,3,2,3,5\n"
    )
    (tmp_path / "events.csv").write_text(
        "symbol,date,event\nSPY,2024-01-10,amc\nQQQ,2024-01-11,bmo\nCL1,2024-01-10,oil\n"
    )
    maps = parse_column_maps(
        """
        [symbols]
        constants = { asset_class = "us_equity", tradable = true }
        [calendar]
        time_zone = "America/New_York"
        columns = { release_at = "date", event_type = "event" }
        constants = { currency = "USD", impact = "high" }
        [calendar.values.event_type]
        amc = "earnings_after_close"
        bmo = "earnings_before_open"
        oil = "oil_inventories"
        [calendar.times]
        earnings_after_close = "16:30"
        earnings_before_open = "07:00"
        oil_inventories = "10:30"
        """,
        "map",
    )
    source = read_files([tmp_path / "bars.csv"], [tmp_path / "events.csv"], None, maps, OWN)
    table = calendar_table(source.calendar())
    check_calendar(table, OWN)
    found = {row.event_id: f"{row.release_at:%d %H:%M}" for row in table.itertuples()}
    assert found == {
        "oil_inventories:2024-01-10": "10 15:30",
        "SPY:earnings_after_close:2024-01-10": "10 21:30",
        "QQQ:earnings_before_open:2024-01-11": "11 12:00",
    }
    assert any(
        "1 symbols of events that fall on every symbol's bars are left out" in note for note in source.notes
    )
    assert source.taxonomy is OWN


def test_usual_hours_of_the_taxonomy_are_compared_in_their_zone() -> None:
    rows = [
        released("ecb_rate_decision", "2024-01-25T13:15:00Z"),
        released("ecb_rate_decision", "2024-02-07T14:15:00Z"),
        released("oil_inventories", "2024-01-10T15:30:00Z"),
        released("earnings_after_close", "2030-01-10T21:30:00Z", "SPY"),
    ]
    found = calendar_departures(calendar_table(pd.DataFrame(rows)), now=NOW, taxonomy=OWN)
    assert [(one.name, one.subject, one.rows) for one in found] == [
        ("hour", "ecb_rate_decision", 1),
        ("early-figure", "earnings_after_close", 1),
    ]


def test_the_market_of_own_events_is_marked_and_reproducible(tmp_path: Path) -> None:
    ends = {"symbols": 3, "start": date(2022, 1, 3), "end": date(2022, 6, 30), "world": own_events()}
    first, again = (write_sample(tmp_path / name, **ends)["sha256"] for name in ("a", "b"))  # type: ignore[arg-type]
    assert first == again
    snapshot = load_snapshot(tmp_path / "a")
    assert is_synthetic(snapshot.sha256, marked=snapshot.is_sample)
    assert snapshot.symbols[snapshot.symbols["tradable"]]["symbol"].tolist() == ["QQQ", "SYN01", "SYN02"]
    assert set(snapshot.calendar["symbol"].dropna()) == {"SYN01", "SYN02"}
    assert set(snapshot.calendar["currency"]) == {"EUR", "USD"}
