"""Csv files as vendors write them: encoding, delimiter and line of names are found out, not assumed."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

import pandas as pd

from kronos_service.data.tables import TableError, some
from kronos_shared.errors import first_line

DELIMITERS: Final = {"\t": "tabs", ";": "semicolons", ",": "commas"}
"""In the order in which they are tried: commas may also be decimal marks."""
SUFFIXES: Final = (".csv", ".tsv", ".txt", ".prn")
_SAMPLE_LINES: Final = 20
_BOMS: Final = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_VALUE: Final = re.compile(r"[-+]?[\d.,]+([eE][-+]?\d+)?%?|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ].*)?")
"""A number, a date or a time: what no column is called."""


class FileError(TableError):
    """A file cannot be read, or a column is not what the map says."""


class TextTable(NamedTuple):
    """The rows of a csv file as text; an empty cell is null."""

    rows: pd.DataFrame
    has_header: bool
    """Whether its first line names the columns; they are called 1, 2, 3 ... otherwise."""


def read_text_table(file: Path) -> TextTable:
    """Read a csv file.

    Raises:
        FileError: it cannot be read, is in another encoding, has no rows, repeats a name, or is ragged.
    """
    text = _decoded(file)
    lines = list(_first_lines(text, _SAMPLE_LINES))
    if not lines:
        raise FileError(f"{file} does not parse as csv: it is empty")
    delimiter = _delimiter(lines)
    (first,) = csv.reader(lines[:1], delimiter=delimiter)
    cells = [cell.strip() for cell in first]
    has_header = not _are_values(cells)
    names = _names(file, cells) if has_header else [str(number) for number in range(1, len(cells) + 1)]
    try:
        rows = pd.read_csv(
            StringIO(text),
            sep=delimiter,
            header=None,
            names=names,
            skiprows=_lines_before(text) + has_header,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
        )
    except pd.errors.EmptyDataError:
        raise FileError(f"{file} has no rows") from None
    except pd.errors.ParserError as error:
        raise FileError(f"{file} does not parse as csv: {_ragged(error)}") from None
    if not isinstance(rows.index, pd.RangeIndex):
        raise FileError(f"{file}: its rows have more cells than its header; fix the header")
    if rows.empty:
        raise FileError(f"{file} has no rows")
    return TextTable(rows, has_header)


def _decoded(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {file} ({error.strerror or error})") from None
    encoding = next((name for mark, name in _BOMS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:200]:  # every other byte of UTF-16 without its mark
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise FileError(f"{file} is neither UTF-8 nor UTF-16; save it as UTF-8") from None


def _lines_before(text: str) -> int:
    """Empty lines at the top."""
    return len(text) - len(text.lstrip("\r\n")) and text[: len(text) - len(text.lstrip("\r\n"))].count("\n")


def _first_lines(text: str, most: int) -> Sequence[str]:
    return [line for line in text[:100_000].lstrip("\r\n").splitlines()[:most] if line.strip()]


def _delimiter(lines: Sequence[str]) -> str:
    """The one that cuts all lines into equally many cells, or else the line of names into the most."""
    counts = {one: [len(cells) for cells in csv.reader(lines, delimiter=one)] for one in DELIMITERS}
    steady = [one for one, cells in counts.items() if cells[0] > 1 and len(set(cells)) == 1]
    return steady[0] if steady else max(counts, key=lambda one: counts[one][0])


def _are_values(cells: Sequence[str]) -> bool:
    """Whether a line holds values: half of its filled cells or more are numbers, dates or times."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and 2 * sum(bool(_VALUE.fullmatch(cell)) for cell in filled) >= len(filled)


def _names(file: Path, cells: Sequence[str]) -> list[str]:
    names = [cell or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileError(f"{file} has several columns called {some(twice)}: rename all but the one to read")
    return names


def _ragged(error: pd.errors.ParserError) -> str:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    return f"line {found[2]} has {found[3]} cells, expected {found[1]}" if found else first_line(error)
