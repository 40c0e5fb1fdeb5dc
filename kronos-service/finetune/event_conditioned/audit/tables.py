"""Checks of what lies behind the samples: session times, finished bars, splits, and channels that vary."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.sessions import DAILY, Interval, Times, sessions
from kronos_service.finetune.event_conditioned.audit.findings import Check, Finding
from kronos_service.finetune.event_conditioned.audit.rows import PlainRows
from kronos_service.finetune.event_conditioned.samples.splits import Splits, dead_channels


def check_sessions(rows: PlainRows, first: date, last: date, interval: Interval = DAILY) -> Check:
    """The encoder's open, close and as_of of every session are those of the audit's own table."""
    findings, looked_at = [], 0
    for asset_class, table in rows.sessions.items():
        encoder = sessions(asset_class, first, last, interval)
        own = [session for session in table.sessions if first <= _day(session.day) <= last]
        theirs = zip(
            encoder.dates.tolist(), *map(_times, (encoder.opens, encoder.closes, encoder.as_of)), strict=True
        )
        given = {day: rest for day, *rest in theirs}
        looked_at += len(own)
        for session in own:
            expected = [session.opens, session.closes, table.as_of(table.number[session.day])]
            got = given.get(session.day, [])
            if got != expected:
                where, what = f"{asset_class} {session.day}", "open, close, as_of (UTC)"
                findings.append(Finding(where, what, _hours(expected), _hours(got) or "no session"))
    return Check("session times", looked_at, "sessions", findings)


def check_bars(snapshot: Snapshot, rows: PlainRows) -> Check:
    """Every bar belongs to a session that had closed when the snapshot was read."""
    said = (snapshot.manifest or {}).get("read_at")
    now = datetime.fromisoformat(said) if said else datetime.now(UTC)
    findings = []
    for symbol, stamp in zip(snapshot.bars["symbol"], snapshot.bars["ts"], strict=True):
        table = rows.sessions_of(symbol)
        number = table.number.get(table.date_of(stamp))
        if number is None or table.sessions[number].closes > now:
            closes = "a session" if number is None else f"closed by {now:%Y-%m-%d %H:%M}"
            given = "none" if number is None else f"closes {table.sessions[number].closes:%Y-%m-%d %H:%M}"
            findings.append(Finding(f"{symbol} {table.date_of(stamp)}", "finished bar", closes, given))
    return Check("finished bars", len(snapshot.bars), "bars", findings)


def check_splits(splits: Splits) -> Check:
    """Every target is scored once, in the split whose dates it lies in."""
    findings = []
    seen: dict[tuple[str, date], str] = {}
    days = [one.dates.tolist() for one in splits.series]
    for split in splits.splits.values():
        for window in split.windows:
            one = splits.series[window.series]
            for bar in range(window.first_target, window.stop):
                key = (one.symbol, days[window.series][bar])
                inside = split.first <= np.datetime64(_day(key[1])) <= split.last
                if one.follows[bar] and (key in seen or not inside):
                    given = f"in {split.name}" + (f" and in {seen[key]}" if key in seen else "")
                    findings.append(
                        Finding(
                            f"{key[0]} {key[1]}",
                            "split of the target",
                            f"{split.name} is {split.first} to {split.last}",
                            given,
                        )
                    )
                seen[key] = split.name
    spans = sorted((split.first, split.last, split.name) for split in splits.splits.values())
    for (_, last, name), (first, _, following) in pairwise(spans):
        if first <= last:
            findings.append(
                Finding(f"{name} and {following}", "dates", f"{following} after {last}", f"from {first}")
            )
    return Check("splits", len(seen), "targets", findings)


def check_channels(splits: Splits) -> Check:
    """No channel is constant over the train split."""
    dead = dead_channels(splits.dataset("train")) if splits.splits["train"].windows else []
    findings = [
        Finding("train split", name, "a channel that varies", "one value throughout") for name in dead
    ]
    return Check("live channels", splits.series[0].events.shape[1], "channels", findings)


def _day(date_of: date) -> date:
    """The UTC day of a session's date, which is a time where bars are shorter than a day."""
    return date_of.date() if isinstance(date_of, datetime) else date_of


def _times(times: Times) -> list[datetime]:
    moments: list[datetime] = times.astype("datetime64[us]").tolist()
    return [moment.replace(tzinfo=UTC) for moment in moments]


def _hours(times: Sequence[datetime]) -> str:
    return ", ".join(f"{moment:%m-%d %H:%M}" for moment in times)
