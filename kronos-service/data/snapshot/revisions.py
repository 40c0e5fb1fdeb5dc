"""Merges an exported calendar with the source's calendar of today, and keeps what was known when.

- A source may keep each revision as a row of its own (another first_seen_at): such rows are added unchanged.
  Or it may overwrite the row. The snapshot still holds the old row, which stays, and the new content becomes
  a row first seen now: history must not know a figure before it was published.
- An actual that appears after its release is the release itself, not a revision, if the snapshot was read
  before it: by the rule for first_seen_at it became known at the release.
- What a snapshot once knew is never forgotten, whatever the source deletes or rewrites.
"""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from kronos_shared.columns import CALENDAR_COLUMNS

KEY = ["event_id", "first_seen_at"]
CONTENT = [column for column in CALENDAR_COLUMNS if column not in KEY]


@dataclass(frozen=True, kw_only=True)
class Revised:
    """A merged calendar, and how many rows came about in which way."""

    calendar: pd.DataFrame
    added: int
    """Rows with a key that the snapshot did not have."""
    released: int
    """Rows that the snapshot knew without their actual, released since."""
    overwritten: int
    """Rows whose latest content the source has overwritten: added as rows first seen now."""
    gone: int
    """Events (not rows) that the source no longer has; they stay as they were known."""


def revise(earlier: pd.DataFrame, today: pd.DataFrame, *, read_at: datetime, now: datetime) -> Revised:
    """Merge two typed calendars of the same source.

    Args:
        earlier: the snapshot's.
        today: the source's whole calendar.
        read_at: when the snapshot's calendar was read.
        now: when the source was read, and so when an overwritten row was first seen.
    """
    old, new = _keyed(earlier), _keyed(today)
    is_added = ~new.index.isin(old.index)
    last = old.groupby("event_id", sort=False).tail(1)
    last_key = dict(zip(last["event_id"], last.index, strict=True))
    # Only the source's latest version of an event can be new; older versions are history, which stays.
    candidates = new.groupby("event_id", sort=False).tail(1)
    candidates = candidates[candidates.index.isin(old.index)]
    was = old.loc[[last_key[event] for event in candidates["event_id"]], CONTENT].set_axis(candidates.index)
    changed = candidates[~_same(was, candidates[CONTENT])]
    was = was.loc[changed.index]
    filled = was["actual"].isna() & (was["release_at"] >= pd.Timestamp(read_at))
    filled &= _same(was.assign(actual=changed["actual"]), changed[CONTENT])
    released, overwritten = changed[filled], changed[~filled]
    merged = old.copy()
    merged.loc[[last_key[event] for event in released["event_id"]], "actual"] = released["actual"].to_numpy()
    seen_now = overwritten.assign(first_seen_at=pd.Timestamp(now).as_unit("ns"))
    calendar = pd.concat([merged, new[is_added], seen_now])[list(CALENDAR_COLUMNS)]
    order = ["release_at", "event_id", "first_seen_at"]
    return Revised(
        calendar=calendar.sort_values(order, kind="stable", na_position="first", ignore_index=True),
        added=int(is_added.sum()),
        released=len(released),
        overwritten=len(overwritten),
        gone=len(set(old["event_id"]) - set(new["event_id"])),
    )


def _keyed(calendar: pd.DataFrame) -> pd.DataFrame:
    """Rows indexed by key, each event's versions in the order in which they became known."""
    table = calendar.sort_values(KEY, kind="stable", na_position="first")
    seen = table["first_seen_at"].astype("int64").where(table["first_seen_at"].notna(), -1)
    return table.set_axis(pd.MultiIndex.from_arrays([table["event_id"], seen], names=["event", "seen"]))


def _same(left: pd.DataFrame, right: pd.DataFrame) -> pd.Series:
    """Per row: whether every column is equal; two nulls are equal."""
    return ((left == right) | (left.isna() & right.isna())).all(axis=1)
