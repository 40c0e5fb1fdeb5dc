"""The economic calendar as sorted arrays: every version of every event, and when each was current.

Only rows in the currency of their event type count (USD by default). Rows of one event_id are its versions,
ordered by `first_seen_at`; a version is current until the next one is seen. The order of the given rows does
not matter.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.events.sessions import Times, utc
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, IMPACT_WEIGHTS, Taxonomy
from kronos_shared.errors import KronosError

ALWAYS: Final = np.datetime64("1700-01-01", "ns")
NEVER: Final = np.datetime64("2250-01-01", "ns")
EVERYBODY: Final = ""
"""The symbol of events that fall on the bars of every symbol."""
_NEEDED: Final = ("event_id", "event_type", "currency", "impact", "release_at", "actual", "forecast")


class CalendarError(KronosError):
    """An economic calendar that cannot be encoded as it is."""


@dataclass(frozen=True, eq=False)
class CalendarRows:
    """The (R,) versions of all events, sorted by event_id and first_seen_at.

    `first_seen_at` is ALWAYS where null; `superseded_at` is when the next version was first seen, or NEVER.
    """

    event_id: npt.NDArray[np.str_]
    event_type: npt.NDArray[np.str_]
    family: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    is_high: npt.NDArray[np.bool_]
    release_at: Times
    first_seen_at: Times
    superseded_at: Times
    actual: npt.NDArray[np.float64]
    forecast: npt.NDArray[np.float64]
    symbol: npt.NDArray[np.str_]
    """The one on whose bars the event falls; `EVERYBODY` where it falls on all."""
    taxonomy: Taxonomy
    """What `family` counts in."""

    def only(self, kept: npt.NDArray[np.bool_]) -> "CalendarRows":
        """The rows of a mask (R,)."""
        columns = {name: column[kept] for name, column in vars(self).items() if name != "taxonomy"}
        return CalendarRows(**columns, taxonomy=self.taxonomy)

    def falls_on(self, symbol: str | None) -> npt.NDArray[np.bool_]:
        """Which rows (R,) are of events that fall on the bars of a symbol; None has none of its own."""
        own = EVERYBODY if symbol is None else symbol
        mask: npt.NDArray[np.bool_] = (self.symbol == EVERYBODY) | (self.symbol == own)
        return mask


def read_calendar(calendar: pd.DataFrame, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> CalendarRows:
    """Check the calendar and sort it; without a column `symbol` every event is everybody's.

    Raises:
        CalendarError: a column, an event_id, a release_at or an impact is missing or invalid, or a symbol is
            missing or one too many.
        UnknownEventType: a type outside the taxonomy.
    """
    rows = counted(calendar, taxonomy)
    taxonomy.check_types(rows["event_type"])
    _check_values(rows)
    symbol = symbols_of(rows)
    if wrong := symbol_faults(rows["event_type"], symbol, taxonomy):
        raise CalendarError(wrong)
    numbers = {name: taxonomy.families.index(family) for name, family in taxonomy.event_types.items()}
    event_id = rows["event_id"].to_numpy(dtype=np.str_)
    first_seen_at = _first_seen(rows)
    order = np.lexsort((first_seen_at, event_id))
    event_id, first_seen_at, rows = event_id[order], first_seen_at[order], rows.iloc[order]
    symbol = symbol.iloc[order]
    same_event = event_id[1:] == event_id[:-1]
    twins = same_event & (first_seen_at[1:] == first_seen_at[:-1])
    if twins.any():
        raise CalendarError(
            f"expected one row per event_id and first_seen_at, got {twins.sum()} more, the first of "
            f"{event_id[1:][twins][0]}: give each version its own first_seen_at, each event its own event_id"
        )
    # A version knows nothing of its successor: it is current until the moment the next one is first seen.
    superseded_at = np.full(len(rows), NEVER)
    superseded_at[:-1][same_event] = first_seen_at[1:][same_event]
    event_type = rows["event_type"].to_numpy(dtype=np.str_)
    return CalendarRows(
        event_id=event_id,
        event_type=event_type,
        family=np.array([numbers[name] for name in event_type], dtype=np.int64),
        weight=np.array([IMPACT_WEIGHTS[impact] for impact in rows["impact"]], dtype=np.float64),
        is_high=(rows["impact"] == "high").to_numpy(dtype=np.bool_),
        release_at=utc(rows["release_at"]),
        first_seen_at=first_seen_at,
        superseded_at=superseded_at,
        actual=rows["actual"].to_numpy(dtype=np.float64),
        forecast=rows["forecast"].to_numpy(dtype=np.float64),
        symbol=symbol.to_numpy(dtype=np.str_),
        taxonomy=taxonomy,
    )


def calendar_reach(calendar: pd.DataFrame, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> np.datetime64:
    """The UTC date (datetime64[D]) of the last release that counts.

    Of those that are everybody's, where there are any: a company announces its dates long before an office
    publishes its own, and the schedule is complete only as far as both are.
    """
    rows = counted(calendar, taxonomy)
    is_shared = symbols_of(rows) == EVERYBODY
    releases = utc((rows[is_shared] if is_shared.any() else rows)["release_at"])
    if len(releases) == 0:
        currencies = ", ".join(taxonomy.all_currencies)
        raise CalendarError(f"expected events in {currencies}, got none: export the calendar again")
    return np.datetime64(releases.max(), "D")


def symbols_of(rows: pd.DataFrame) -> pd.Series:
    """The symbol of each row, `EVERYBODY` where it is null or there is no such column."""
    if "symbol" not in rows.columns:
        return pd.Series(EVERYBODY, index=rows.index, dtype="str")
    return rows["symbol"].astype("str").where(rows["symbol"].notna(), EVERYBODY)


def symbol_faults(event_type: pd.Series, symbol: pd.Series, taxonomy: Taxonomy) -> str | None:
    """Why symbols (see `symbols_of`) do not fit their event types, in one line; None where they do."""
    wants = event_type.isin(taxonomy.symbol_types)
    lacking, extra = wants & (symbol == EVERYBODY), ~wants & (symbol != EVERYBODY)
    if lacking.any():
        return (
            f"expected a symbol in every row of {', '.join(sorted(set(event_type[lacking])))}, got "
            f"{lacking.sum()} rows without one: fill in the column symbol"
        )
    if extra.any():
        listed = ", ".join(sorted(set(event_type[extra])))
        return (
            f"expected no symbol in rows of {listed}, which fall on every symbol's bars, got "
            f"{extra.sum()} with one: leave it null, or list the type under symbol_types of the taxonomy"
        )
    return None


def counted(calendar: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """The rows in the currency of their event type; see `Taxonomy.counts`."""
    missing = [name for name in _NEEDED if name not in calendar.columns]
    if missing:
        raise CalendarError(
            f"expected calendar columns {', '.join(_NEEDED)}, got none named {', '.join(missing)}"
        )
    return calendar.loc[taxonomy.counts(calendar["event_type"], calendar["currency"])]


def _first_seen(rows: pd.DataFrame) -> Times:
    """When each row was first seen; null, or no such column, means that it was always known."""
    if "first_seen_at" not in rows.columns:
        return np.full(len(rows), ALWAYS)
    seen = utc(rows["first_seen_at"])
    return np.where(np.isnat(seen), ALWAYS, seen)


def _check_values(rows: pd.DataFrame) -> None:
    if rows["event_id"].isna().any() or rows["release_at"].isna().any():
        raise CalendarError(
            "expected an event_id and a release_at in every row, got a null: fix the calendar"
        )
    unknown = sorted({str(impact) for impact in rows["impact"]} - set(IMPACT_WEIGHTS))
    if unknown:
        raise CalendarError(f"expected impact {', '.join(IMPACT_WEIGHTS)}, got {', '.join(unknown)}: fix it")
