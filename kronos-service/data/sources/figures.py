"""Numbers as vendors write them: 3.2%, 216K, and whatever stands for a missing one."""

import re
from collections.abc import Sequence
from typing import Final, Literal

import pandas as pd

from kronos_service.data.sources.faults import SHOWN
from kronos_service.data.sources.text_files import FileError
from kronos_service.data.tables import some

MISSING: Final = ("", "-", "--", "\u2013", "\u2014", ".", "null", "none", "nan", "na", "n/a")
"""What stands for no value, in small letters; a symbol may be called so."""
Decimal = Literal[".", ","] | None
_FIGURE: Final = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([%KMBT]?)$")
_UNITS: Final = {"": 1.0, "%": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def without_missing(raw: pd.Series) -> pd.Series:
    """The values of a column with null for each that stands for none."""
    if raw.dtype.kind in "biufM" or isinstance(raw.dtype, pd.DatetimeTZDtype):
        return raw
    is_missing = raw.astype("str").str.strip().str.lower().isin(MISSING)
    kept: pd.Series = raw.where(~is_missing)
    return kept


def read_figures(
    rows: pd.DataFrame, columns: Sequence[str], where: str, decimal: Decimal = None
) -> tuple[pd.DataFrame, list[FileError]]:
    """The rows with numbers in those of the columns that they have; and the fault, if some values are none.

    Args:
        rows: text or numbers; the index is the row.
        where: the file, for the message.
        decimal: the decimal mark, which makes the other one the mark of thousands; without it a comma is a
            fault, because 1,234 means different things in different places.
    """
    wrong = list[tuple[int, str, object]]()
    for name in columns:
        if name in rows.columns:
            numbers, unread = _read(rows[name], decimal)
            rows = rows.assign(**{name: numbers})
            wrong += [
                (row + 1, name, value) for row, value in zip(unread.index.tolist(), unread, strict=True)
            ]
    return rows, [_fault(sorted(wrong, key=lambda one: one[0]), where)] if wrong else []


def _read(raw: pd.Series, decimal: Decimal) -> tuple[pd.Series, pd.Series]:
    """Numbers, null where there are none, and the values that are neither."""
    raw = without_missing(raw)
    if decimal is None:
        try:
            return pd.to_numeric(raw).astype("float64"), raw.iloc[:0]
        except (ValueError, TypeError):
            pass
    text = raw.astype("str").str.strip().where(raw.notna())
    if decimal is not None:
        text = _with_point(text, decimal)
    found = text.str.extract(_FIGURE)
    numbers = pd.to_numeric(found[0]).astype("float64") * found[1].map(_UNITS)
    return numbers, raw[text.notna() & found[0].isna()]


def _with_point(text: pd.Series, decimal: Literal[".", ","]) -> pd.Series:
    """Numbers with a point as the decimal mark; groups of three digits are joined."""
    group = "," if decimal == "." else "."
    grouped = text.str.match(rf"^[+-]?\d{{1,3}}(?:\{group}\d{{3}})+(?!\d|\{group})", na=False)
    joined = text.where(~grouped, text.str.replace(group, "", regex=False))
    ambiguous = joined.str.contains(group, regex=False, na=False)
    pointed = joined.str.replace(decimal, ".", regex=False)
    kept: pd.Series = pointed.where(~ambiguous, text + " ")  # a number it is not
    return kept


def _fault(wrong: Sequence[tuple[int, str, object]], where: str) -> FileError:
    (row, column, value), *others = wrong
    shown = [f"row {row}: {column} is {value!r}" for row, column, value in others[:SHOWN]]
    more = f", and so are {len(others)} more ({some(shown, SHOWN, len(others))})" if others else ""
    advice = (
        '; where commas are marks, say which: decimal = "." or decimal = "," in the map'
        if any("," in str(value) for _, _, value in wrong)
        else ""
    )
    return FileError(
        f"{where}, row {row}: {column} is {value!r}{more}; expected a number such as 1234.5, 3.2% or "
        f"216K{advice}"
    )
