"""The audit of a market of own events: own families and symbol events are recomputed, and leaks named."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import own_events
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.events import encoder, schedule
from kronos_service.events.calendar import EVERYBODY, CalendarRows
from kronos_service.events.encoder import EventEncoder
from kronos_service.events.sessions import Sessions
from kronos_service.events.surprises import Surprises
from kronos_service.finetune.event_conditioned.audit.audit import AuditSize, run_checks
from kronos_service.finetune.event_conditioned.audit.findings import Audit
from kronos_service.finetune.event_conditioned.samples.splits import Span, build_splits
from kronos_service.model.factory import Bundle

SPANS: dict[str, Span] = {
    "train": (np.datetime64("2022-03-01"), np.datetime64("2022-09-30")),
    "val": (np.datetime64("2022-10-01"), np.datetime64("2022-12-15")),
}
SIZE = AuditSize(symbols=4, rows=120, windows=2, futures=2)


@pytest.fixture(scope="module")
def own_market(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Four equities; some of the earnings are announced late, and some move once."""
    directory = tmp_path_factory.mktemp("own") / "snapshot"
    write_sample(directory, symbols=4, start=date(2020, 6, 1), end=date(2022, 12, 30), world=own_events())
    snapshot = load_snapshot(directory)
    calendar = snapshot.calendar
    own = calendar[calendar["symbol"].notna() & (calendar["release_at"] > "2022-03-01")]
    late = own.index[::3]
    announced = calendar["first_seen_at"].copy()
    announced[late] = calendar["release_at"][late] - pd.Timedelta("40h")
    moved = own.iloc[1::3].assign(
        release_at=lambda rows: rows["release_at"] + pd.Timedelta("7D"),
        first_seen_at=lambda rows: rows["release_at"] - pd.Timedelta("9D"),
    )
    revised = pd.concat([calendar.assign(first_seen_at=announced), moved], ignore_index=True)
    return replace(snapshot, calendar=revised)


def audited(snapshot: Snapshot, bundle: Bundle, cache: Path) -> Audit:
    own = replace(bundle, event_encoder=EventEncoder(snapshot.taxonomy))
    built = build_splits(snapshot, own, dates=SPANS, context=72, scored=8, cache=cache)
    return run_checks(snapshot, built, own, size=SIZE, quick=False, seed=3)


def test_honest_own_events_pass(own_market: Snapshot, bundle: Bundle, tmp_path: Path) -> None:
    result = audited(own_market, bundle, tmp_path)
    assert result.leaks == []
    assert result.dead_channels == []
    looked_at = {check.name: check.looked_at for check in result.checks}
    assert looked_at["live channels"] == 7
    assert looked_at["leaders before targets"] == 2 * looked_at["event channels"]


Seam = Callable[..., Any]


def on_the_bar_that_has_closed(real: Seam) -> Seam:
    """After-close earnings, half an hour after the close, on the session that had closed."""

    def target_index(table: Sessions, release_at: Any) -> Any:
        return real(table, release_at - np.timedelta64(45, "m"))

    return target_index


def on_every_symbols_bars(real: Seam) -> Seam:  # noqa: ARG001
    return lambda rows, symbol: np.ones(len(rows.symbol), dtype=np.bool_)


def scaled_by_every_symbol(real: Seam) -> Seam:
    def find_surprises(rows: CalendarRows) -> Surprises:
        found: Surprises = real(replace(rows, symbol=np.full(len(rows.symbol), EVERYBODY)))
        return found

    return find_surprises


def in_any_currency(real: Seam) -> Seam:
    """Rows of another currency count too: here, the ECB's among the dollars."""
    return lambda calendar, taxonomy: real(calendar.assign(currency="USD"), taxonomy)


LEAKS: dict[str, tuple[Any, str, Callable[[Seam], Seam], str]] = {
    "after-close earnings on the closed bar": (
        schedule,
        "target_index",
        on_the_bar_that_has_closed,
        "earnings",
    ),
    "every symbol's earnings": (CalendarRows, "falls_on", on_every_symbols_bars, "earnings"),
    "a scale of all symbols": (encoder, "find_surprises", scaled_by_every_symbol, "surprise_z"),
    "the wrong currency": (encoder, "read_calendar", in_any_currency, "ecb_rate"),
}


@pytest.mark.parametrize(
    ("module", "name", "plant", "channel"),
    [
        pytest.param(*leak, id=name, marks=() if number == 0 else pytest.mark.slow)
        for number, (name, leak) in enumerate(LEAKS.items())
    ],
)
def test_a_planted_fault_of_own_events_is_named(
    own_market: Snapshot,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    plant: Callable[[Seam], Seam],
    channel: str,
) -> None:
    monkeypatch.setattr(module, name, plant(getattr(module, name)))
    result = audited(own_market, bundle, tmp_path)
    found = {check.name: check.findings for check in result.checks}
    assert not result.passed
    assert channel in {finding.what for finding in found["event channels"]}
