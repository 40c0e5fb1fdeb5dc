"""A calendar that was exported before meets the source's calendar of today: what was known when is kept.

Design choices:
- A source may keep each revision as a row of its own (another first_seen_at), or overwrite the row. The first
  kind is taken over as it is. The second is noticed here, because the snapshot still holds the old row: the
  new content becomes a row first seen now, and the old row stays as it was known until now.
- An actual that appears once its release is past is no revision but the release itself, if the snapshot was
  read before it: by the rule for first_seen_at it became known at the release.
- Nothing that a snapshot once knew is forgotten, whatever the source deletes or rewrites.
"""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from kronos_shared.columns import CALENDAR_COLUMNS

KEY = ["event_id", "first_seen_at"]
CONTENT = [column for column in CALENDAR_COLUMNS if column not in KEY]


@dataclass(frozen=True, kw_only=True)
class Revised:
    """A merged calendar, and how it came about; rows are counted, unless it says otherwise."""

    calendar: pd.DataFrame
    added: int
    """Rows with a key that the snapshot did not have."""
    released: int
    """Rows that the snapshot knew without their actual, and which have been released since."""
    overwritten: int
    """Rows whose latest content the source had overwritten: kept as rows first seen now."""
    gone: int
    """Events that the source no longer has; they stay as they were known."""


def revise(earlier: pd.DataFrame, today: pd.DataFrame, *, read_at: datetime, now: datetime) -> Revised:
    """Merge two typed calendars of the same source.

    Args:
        earlier: the snapshot's.
        today: the source's, whole.
        read_at: when the snapshot's calendar was read.
        now: when the source was read, which is when an overwritten row was first seen to be so.
    """
    old, new = _keyed(earlier), _keyed(today)
    is_added = ~new.index.isin(old.index)
    last = old.groupby("event_id", sort=False).tail(1)
    last_key = dict(zip(last["event_id"], last.index, strict=True))
    # Only the source's latest word on an event can be news; older versions are history, kept as it was.
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
    """Rows in the order in which each event's versions became known, indexed by their key."""
    table = calendar.sort_values(KEY, kind="stable", na_position="first")
    seen = table["first_seen_at"].astype("int64").where(table["first_seen_at"].notna(), -1)
    return table.set_axis(pd.MultiIndex.from_arrays([table["event_id"], seen], names=["event", "seen"]))


def _same(left: pd.DataFrame, right: pd.DataFrame) -> pd.Series:
    """Row by row: equal in every column, two nulls counting as equal."""
    return ((left == right) | (left.isna() & right.isna())).all(axis=1)
