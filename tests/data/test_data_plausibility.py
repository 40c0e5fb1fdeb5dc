"""Calendars and bars that are well formed and yet not the world's: each departure is found, and named."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.plausibility import (
    Departure,
    PlausibilityError,
    bar_departures,
    calendar_departures,
    closed_days,
    describe,
    refuse,
)
from kronos_service.data.public_facts import CLASSES, LEADER_PRICES, RELEASES
from kronos_service.data.tables import bar_table, calendar_table
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.__main__ import main
from kronos_shared.columns import ASSET_CLASSES

NOW = datetime(2025, 6, 1, tzinfo=UTC)
CPI = [
    "2023-01-12",
    "2023-02-14",
    "2023-03-14",
    "2023-04-12",
    "2023-05-10",
    "2023-06-13",
    "2023-07-12",
    "2023-08-10",
    "2023-09-13",
    "2023-10-12",
    "2023-11-14",
    "2023-12-12",
    "2024-01-11",
    "2024-02-13",
    "2024-03-12",
    "2024-04-10",
    "2024-05-15",
    "2024-06-12",
]
NFP = [
    "2023-01-06",
    "2023-02-03",
    "2023-03-10",
    "2023-04-07",
    "2023-05-05",
    "2023-06-02",
    "2023-07-07",
    "2023-08-04",
    "2023-09-01",
    "2023-10-06",
    "2023-11-03",
    "2023-12-08",
    "2024-01-05",
    "2024-02-02",
    "2024-03-08",
    "2024-04-05",
    "2024-05-03",
    "2024-06-07",
]


def releases(
    event_type: str,
    dates: list[str],
    hour: str = "08:30",
    actual: list[float] | float = 0.3,
    zone: str = "America/New_York",
) -> pd.DataFrame:
    local = pd.to_datetime(pd.Series([f"{day} {hour}" for day in dates])).dt.tz_localize(zone)
    rows = pd.DataFrame({"event_type": event_type, "release_at": local.dt.tz_convert("UTC")})
    rows = rows.assign(event_name="", currency="USD", impact="high", actual=actual, forecast=actual)
    return calendar_table(rows)


def found(calendar: pd.DataFrame, **options: object) -> dict[str, Departure]:
    departures = calendar_departures(calendar, now=NOW, **options)  # type: ignore[arg-type]
    return {one.name: one for one in departures}


def shifted(dates: list[str], days: int) -> list[str]:
    return [f"{date.fromisoformat(day) + timedelta(days=days)}" for day in dates]


def test_the_table_knows_every_type_class_and_leader() -> None:
    assert set(RELEASES) == set(DEFAULT_TAXONOMY.event_types)
    assert set(CLASSES) == set(ASSET_CLASSES)
    assert set(LEADER_PRICES) == set(DEFAULT_TAXONOMY.leaders)


@pytest.mark.parametrize(
    "calendar",
    [
        releases("cpi", CPI),
        releases("nfp", NFP, actual=216e3),
        releases("nfp", NFP, actual=216.0),  # all of it in thousands
        releases("cpi", CPI, actual=0.003),  # all of it in fractions
        releases("cpi", CPI, actual=0.0),
    ],
)
def test_the_worlds_own_calendar_has_no_departures(calendar: pd.DataFrame) -> None:
    assert found(calendar) == {}


@pytest.mark.parametrize(
    ("calendar", "name", "rows", "is_refused", "says"),
    [
        (releases("nfp", shifted(NFP, 1), actual=2e5), "closed-day", 18, True, "Sat 2023-01-07"),
        (releases("nfp", [*NFP, "2024-07-04"], actual=2e5), "closed-day", 1, False, "Thu 2024-07-04"),
        (releases("cpi", ["2024-01-01"]), "closed-day", 1, True, "Mon 2024-01-01"),
        (releases("nfp", shifted(NFP, -1), actual=2e5), "weekday", 18, False, "weekdays than Friday"),
        (releases("cpi", [day[:8] + "01" for day in CPI]), "day-of-month", 18, True, "outside day 9 to 20"),
        (releases("cpi", [day[:8] + "28" for day in CPI]), "day-of-month", 18, True, "outside day 9 to 20"),
        (releases("cpi", [day[:8] + "11" for day in CPI]), "day-of-month", 18, False, "on day 11 of the"),
        (releases("nfp", NFP, "09:30", 2e5), "hour", 18, False, "09:30 (18); first 2023-01-06), all by +1 h"),
        (releases("nfp", NFP, "13:30", 2e5, "UTC"), "hour", 11, False, "all in summer: a clock without"),
        (releases("cpi", CPI[:6] + CPI[14:]), "pause", 1, False, "2023-06-13 to 2024-03-12"),
        (releases("cpi", CPI + shifted(CPI, 2)), "count", 1, False, "2023: 24"),
        (releases("nfp", NFP, actual=[216e3] * 9 + [216.0] * 9), "unit", 18, False, "another unit than"),
        (releases("cpi", CPI, actual=[0.3] * 9 + [0.003] * 9), "unit", 18, False, "(0.003, 0.003"),
        (releases("unemployment_rate", NFP, actual=[4.1] * 17 + [320.0]), "figure", 2, False, "(320, 320)"),
    ],
)
def test_each_departure_is_found_with_its_rows(
    calendar: pd.DataFrame, name: str, rows: int, is_refused: bool, says: str
) -> None:
    departure = found(calendar)[name]
    assert (departure.rows, departure.is_refused) == (rows, is_refused)
    assert says in departure.says
    (line,) = describe([departure])
    assert line.startswith(f"warning: {name}: {calendar['event_type'][0]}: {rows} of {departure.of} (")


def test_a_figure_before_its_release_is_refused_and_no_flag_accepts_it() -> None:
    calendar = releases("cpi", [*CPI, "2029-01-11"])
    early = found(calendar)["early-figure"]
    assert (early.rows, early.is_refused) == (1, True)
    with pytest.raises(PlausibilityError, match="no flag accepts a figure before its release"):
        refuse([early], ["closed-day", "early-figure"][:1])
    scheduled = releases("cpi", [*CPI[2:], "2024-07-11"], actual=np.nan)
    assert found(scheduled) == {}


def test_a_refusal_names_the_flag_that_goes_on() -> None:
    departures = calendar_departures(releases("nfp", shifted(NFP, 1), actual=2e5), now=NOW)
    with pytest.raises(PlausibilityError, match=r"add --accept closed-day$") as refused:
        refuse(departures)
    assert "on a bar that it did not move" in str(refused.value)
    refuse(departures, ["closed-day"])
    assert any(line.startswith("accepted: closed-day: nfp") for line in describe(departures, ["closed-day"]))


def test_a_type_that_begins_late_or_stops_within_the_calendar_pauses() -> None:
    calendar = pd.concat([releases("nfp", NFP, actual=2e5), releases("cpi", CPI[6:12])], ignore_index=True)
    bars = (date(2020, 1, 1), date(2025, 1, 1))
    pause = found(calendar, bars=bars)["pause"]
    assert pause.says.endswith("(2023-01-06 to 2023-07-12, 2023-12-12 to 2024-06-07)")


def test_a_postponed_release_counts_on_its_new_day_only() -> None:
    calendar = releases("nfp", shifted(NFP[:1], 1), actual=np.nan)
    moved = releases("nfp", NFP[:1], actual=2e5)
    moved["event_id"] = calendar["event_id"]
    moved["first_seen_at"] = pd.Timestamp("2023-01-01", tz="UTC")
    assert found(pd.concat([calendar, moved], ignore_index=True)) == {}


def test_nothing_is_released_on_federal_holidays_but_for_two() -> None:
    closed = closed_days(date(2022, 1, 1), date(2023, 12, 31))
    assert {date(2023, 1, 2), date(2023, 11, 23), date(2022, 12, 26), date(2023, 6, 19)} <= closed
    assert not {date(2022, 11, 11), date(2023, 10, 9), date(2023, 4, 7)} & closed  # Good Friday: payrolls


def test_bars_that_are_not_their_markets_are_found() -> None:
    days = pd.date_range("2024-01-01", periods=40, tz="UTC")
    price = 40_000 + 100.0 * np.arange(40)
    good = pd.DataFrame({"symbol": "BTCUSDT", "ts": days, "open": price, "high": price + 9, "low": price - 9})
    good = good.assign(close=price, volume=5.0)
    symbols = pd.DataFrame(
        {"symbol": ["BTCUSDT", "VIX"], "asset_class": ["crypto", "index"], "tradable": True}
    )
    assert bar_departures(bar_table(good), symbols) == []
    swapped = bar_departures(bar_table(good.assign(symbol="VIX")), symbols)
    assert [(one.name, one.subject, one.rows) for one in swapped] == [("price", "VIX", 40)]
    empty = bar_departures(bar_table(good.assign(volume=0.0)), symbols)
    assert [(one.name, one.rows) for one in empty] == [("volume", 40)]
    stuck = good.copy()
    stuck.loc[20:, ["open", "high", "low", "close"]] = 40_000.0
    assert [(one.name, one.rows) for one in bar_departures(bar_table(stuck), symbols)] == [("flat", 20)]


BARS = (
    "symbol,ts,open,high,low,close,volume\nSPY,2024-06-10,533,536,532,535,9\nSPY,2024-06-11,534,537,532,536,9"
)
MAP = """
[symbols]
constants = { asset_class = "us_equity", tradable = true }
[calendar]
time_zone = "America/New_York"
"""


def imported(directory: Path, rows: list[str], *flags: str) -> int:
    (directory / "bars.csv").write_text(BARS)
    (directory / "map.toml").write_text(MAP)
    header = "release_at,currency,impact,event_type,actual,forecast\n"
    (directory / "releases.csv").write_text(header + "\n".join(rows) + "\n")
    names = {"--ohlcv": "bars.csv", "--calendar": "releases.csv", "--map": "map.toml", "--out": "s"}
    return main(
        ["import", *(word for flag, file in names.items() for word in (flag, str(directory / file))), *flags]
    )


def test_an_import_refuses_says_how_to_go_on_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{day} 08:30,USD,high,nfp,216K,170K" for day in shifted(NFP, 1)]
    assert imported(tmp_path, rows) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: the calendar cannot be true: closed-day: nfp: 18 of 18 (100%) releases on"
    )
    assert not (tmp_path / "s").exists()
    advised = error.split("add ")[1].split()
    assert imported(tmp_path, rows, *advised) == 0
    export = ["export", "--source", "snapshot", "--tables", str(tmp_path / "s"), "--out", str(tmp_path / "t")]
    assert [main(export), main([*export, *advised])] == [2, 0]
    shown = capsys.readouterr().out
    assert "accepted: closed-day: nfp: 18 of 18" in shown
    assert "Releases" in shown
    assert "12 6" in shown  # a year's count after the other
    assert "08:30 (18)" in shown


def test_an_import_warns_of_what_may_be_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{day} 08:30,USD,high,cpi,0.3,0.2" for day in CPI[:6] + CPI[14:]]
    assert imported(tmp_path, rows) == 0
    assert "warning: pause: cpi: 1 of 9 (11%) times between releases are longer" in capsys.readouterr().out


def test_a_misspelt_name_is_refused_with_the_names_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path, [], "--accept", "closed-days") == 2
    assert "'closed-day'" in capsys.readouterr().err
    assert imported(tmp_path, [], "--accept", "early-figure") == 2


def test_a_sample_market_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, copy, again = (str(tmp_path / name) for name in ("made", "copy", "again"))
    span = ["--start", "2024-01-02", "--end", "2024-12-31"]
    assert main(["sample", "--out", made, "--symbols", "2", *span]) == 0
    assert main(["export", "--source", "snapshot", "--tables", made, "--out", copy]) == 0
    assert main(["export", "--source", "snapshot", "--tables", copy, "--out", again]) == 0
    shown = capsys.readouterr().out
    assert shown.count("plausibility: not applicable, this is a sample market") == 2
