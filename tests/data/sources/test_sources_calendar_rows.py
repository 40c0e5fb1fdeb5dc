"""What does not count never stops an import; what counts is reported whole, in one line."""

from pathlib import Path

import pytest

from kronos_service.data.sources.column_map import parse_column_maps
from kronos_service.data.sources.files import FileError, read_files
from kronos_service.data.sources.snapshot import TableSource
from kronos_service.data.tables import TableError

HEADER = "release_at,currency,impact,event_type,event_name,actual,forecast\n"
CLAIMS = "2024-07-11T12:30:00Z,USD,high,jobless_claims,Claims,222K,236K\n"
BARS = "symbol,ts,open,high,low,close,volume\nSPY,2024-01-11,10,11,9,10,5\n"


def read(directory: Path, rows: str, text: str = "", bars: str = BARS) -> TableSource:
    (directory / "bars.csv").write_text(bars)
    (directory / "releases.csv").write_text(rows if "release_at" in rows else HEADER + rows)
    head = '[symbols]\nconstants = { asset_class = "us_equity", tradable = true }\n[calendar]\n'
    maps = parse_column_maps(head + text, "map")
    return read_files([directory / "bars.csv"], [directory / "releases.csv"], None, maps)


@pytest.mark.parametrize(
    "row",
    [
        '2024-07-12T07:00:00Z,CHF,low,M3 Money Supply,M3,"1,196.9B",\n',
        "2024-07-12 Tentative,EUR,low,Bond Auction,Auction,,\n",
        ",JPY,Holiday,Bank Holiday,Marine Day,,\n",
        "2024-07-15,CNY,strong,gdp,GDP q/q,0.7%,<1\n",
        '2024-07-12T17:00:00Z,USD,Red,10-y Bond Auction,Auction,4.28|2.6,"a, b"\n',
        "All Day,USD,-,Independence Day,Holiday,-,-\n",
        "2024-07-12T17:00:00Z,,low,cpi,CPI,0.1,0.2\n",
    ],
)
def test_a_row_that_does_not_count_is_left_out_unread_and_counted(tmp_path: Path, row: str) -> None:
    source = read(tmp_path, row + CLAIMS + row, 'unknown_event_types = "drop"')
    assert source.event_rows["event_type"].tolist() == ["jobless_claims"]
    assert source.event_rows["actual"].tolist() == [222e3]
    assert sum(note.startswith("left out 2 ") for note in source.notes) == 1


def test_all_faults_of_all_files_are_one_line(tmp_path: Path) -> None:
    rows = (
        '2024-01-11T13:30:00Z,USD,high,cpi,CPI,"1,5",0.2\n'
        "tomorrow,USD,huge,nfp,NFP,<1K,160K\n"
        "2024-01-12,USD,high,ppi,PPI,x,0.2\n"
        "2024-01-12T13:30:00Z,USD,high,moon_phase,Moon,0.1,0.2\n"
    )
    bars = BARS + "SPY,12/01/2024,10,11,ten,10,5\n"
    with pytest.raises(TableError) as refused:
        read(tmp_path, rows, bars=bars)
    message = str(refused.value)
    for part in (
        "bars.csv, row 2: low is 'ten'",
        "bars.csv, ts: expected ISO 8601 times, got '12/01/2024' (row 2)",
        "got moon_phase: map them",
        "releases.csv, row 1: actual is '1,5', and so are 2 more ",
        "(row 2: actual is '<1K', row 3: actual is 'x')",
        "unknown impact huge",
        "release_at: expected ISO 8601 times, got 'tomorrow' (row 2)",
        "release_at: 1 values have no time of day (row 3: 2024-01-12)",
    ):
        assert part in message, part
    assert "You might want" not in message


def test_files_that_cannot_be_read_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*a.csv .*; cannot read .*b.csv"):
        read_files([tmp_path / "a.csv"], [tmp_path / "b.csv"], None, parse_column_maps("", "map"))


def test_a_name_with_the_period_behind_it_is_pointed_out(tmp_path: Path) -> None:
    rows = "".join(
        f"2024-{month:02}-11T13:30:00Z,USD,high,CPI (MoM) ({name}),,0.1,0.2\n"
        for month, name in enumerate(["Jan", "Feb", "Mar"], start=2)
    )
    values = '\n[calendar.values.event_type]\n"{}" = "cpi"\n'
    source = read(tmp_path, rows, 'unknown_event_types = "drop"' + values.format("CPI (MoM) (Feb)"))
    assert len(source.event_rows) == 1
    (hint,) = [note for note in source.notes if "are near" in note]
    assert hint.startswith('warning: 2 rows of "CPI (MoM)*" are near "CPI (MoM) (Feb)" of the map')
    assert len(read(tmp_path, rows, values.format("CPI (MoM)*")).event_rows) == 3  # as the hint says


def test_a_name_nearly_in_the_map_is_pointed_out(tmp_path: Path) -> None:
    rows = CLAIMS + "2024-02-13T13:30:00Z,USD,high,Non-farm Payrols,,0.1,0.2\n"
    values = 'unknown_event_types = "drop"\nvalues.event_type = { "Non-Farm Payrolls" = "nfp" }'
    assert any('"Non-farm Payrols" are near' in note for note in read(tmp_path, rows, values).notes)


def test_a_schedule_needs_no_figures_and_says_so(tmp_path: Path) -> None:
    rows = "release_at,currency,impact,event_type\n2027-01-12T13:30:00Z,USD,high,cpi\n"
    source = read(tmp_path, rows)
    assert source.event_rows[["actual", "forecast"]].isna().all(axis=None)
    assert source.event_rows["event_name"].tolist() == ["cpi"]
    assert "releases.csv has no column actual: its rows are a schedule without it" in source.notes


@pytest.mark.parametrize(
    ("time_format", "value", "expected"),
    [
        ("%Y-%m-%dT%H:%M:%SZ", "2024-01-11T13:30:00Z", "13:30"),
        ("%d.%m.%Y %H:%M UTC", "11.01.2024 13:30 UTC", "13:30"),
        ("%Y-%m-%d %H:%M:%S+00:00", "2024-01-11 13:30:00+00:00", "13:30"),
        ("%Y-%m-%d %H:%M", "2024-01-11 08:30", "13:30"),
    ],
)
def test_a_time_format_that_ends_in_utc_means_utc_whatever_the_zone(
    tmp_path: Path, time_format: str, value: str, expected: str
) -> None:
    text = f'time_zone = "America/New_York"\ntime_format = "{time_format}"'
    source = read(tmp_path, f"{value},USD,high,cpi,CPI,0.1,0.2\n", text)
    assert f"{source.event_rows['release_at'].iloc[0]:%H:%M}" == expected


def test_times_without_a_zone_are_said_to_be_read_as_utc(tmp_path: Path) -> None:
    row = "2024-01-11 08:30,USD,high,cpi,CPI,0.1,0.2\n"
    assumed = "releases.csv: 1 release times name no zone, nor does the map: they are read as UTC"
    assert any(note.startswith(assumed) for note in read(tmp_path, row).notes)
    assert read(tmp_path, row, 'time_zone = "UTC"').notes == ()
    assert read(tmp_path, row.replace("08:30", "08:30Z")).notes == ()


def test_without_a_row_that_counts_it_is_said_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no USD rows of the event types .*left out 1 .*: EUR \(1\)"):
        read(tmp_path, CLAIMS.replace("USD", "EUR"))


def test_the_rest_of_the_map_is_unknown_by_the_near_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"calendar.time_zonne: unknown key, did you mean time_zone\?"):
        read(tmp_path, CLAIMS, 'time_zonne = "UTC"')
