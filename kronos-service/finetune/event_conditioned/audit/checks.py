"""Checks of the dataset's samples, one function each; a `Check` holds what it looked at and what failed.

`tables` checks the session times, bars and splits that the samples are made from.
"""

from collections.abc import Sequence
from datetime import datetime

import torch

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.audit.findings import Check, Finding
from kronos_service.finetune.event_conditioned.audit.positions import Position
from kronos_service.finetune.event_conditioned.audit.recompute import (
    Moment,
    Value,
    leader_move,
    moment,
    recompute_row,
    recompute_window,
)
from kronos_service.finetune.event_conditioned.audit.rows import Bar, PlainRows, closed_bars
from kronos_service.finetune.event_conditioned.audit.scramble import changed_inputs
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset, Sample
from kronos_service.model.factory import Bundle
from kronos_shared.columns import FEATURES

STAMPS = ("minute", "hour", "weekday", "day", "month")
LOOK_AHEAD = 3
"""Bars too far ahead to try, to name the one that a wrong leader value comes from."""
STALE_SHARE = 0.02
"""Share of token ids that rounding may change; the ids of other bars differ nearly everywhere."""


Datasets = dict[str, EventConditionedDataset]


def check_rows(rows: PlainRows, datasets: Datasets, positions: Sequence[Position]) -> Check:
    """Every channel, and the target's date, equals what is recomputed from the rows usable at as_of."""
    findings: list[Finding] = []
    for position in positions:
        sample = datasets[position.split][position.number]
        now = moment(rows, position.symbol, position.bar)
        where = f"{position.symbol} {now.target.day} (known at {now.as_of:%m-%d %H:%M})"
        dated = sample["target_dates"][position.offset].item()
        if sample["loss_weight"][position.offset] > 0 and dated != now.target.day:
            findings.append(Finding(where, "target", str(now.target.day), str(dated)))
        expected = recompute_row(rows, position.symbol, position.bar)
        given = sample["events"][position.offset].tolist()
        findings += _differences(where, rows.taxonomy.channels, expected, given)
    return Check("event channels", len(positions), f"rows of {len(rows.taxonomy.channels)}", findings)


def check_leaders(rows: PlainRows, datasets: Datasets, positions: Sequence[Position]) -> Check:
    """No leader's value comes from a bar that closed after as_of, nor as_of after the target's open."""
    findings, leaders = [], rows.taxonomy.leaders
    for position in positions:
        row = datasets[position.split][position.number]["events"][position.offset].tolist()
        given = row[len(row) - len(leaders) :]
        now = moment(rows, position.symbol, position.bar)
        assert now.as_of <= now.target.opens, "the audit's own rule is broken"
        for leader, value in zip(leaders, given, strict=True):
            source = _later_source(rows, leader, now, value)
            if source is not None:
                findings.append(
                    Finding(
                        f"{position.symbol} {now.target.day} (opens {now.target.opens:%m-%d %H:%M})",
                        f"{leader}'s bar",
                        f"closed by {now.as_of:%Y-%m-%d %H:%M}",
                        f"the bar of {source.day}, closed {source.closes:%Y-%m-%d %H:%M}",
                    )
                )
    return Check("leaders before targets", len(positions) * len(leaders), "values", findings)


def _later_source(rows: PlainRows, leader: str, now: Moment, value: float) -> Bar | None:
    """The bar that closed too late and gives the value; None if the usable bars give it, or none does."""
    if value == 0 or leader_move(rows, leader, now).agrees(value):
        return None
    bars = rows.leaders[leader]
    usable = len(closed_bars(bars, now.as_of))
    for shift, bar in enumerate(bars[usable : usable + LOOK_AHEAD], start=1):
        if leader_move(rows, leader, now, shift).agrees(value):
            return bar
    return None


def check_windows(rows: PlainRows, datasets: Datasets, positions: Sequence[Position]) -> Check:
    """Bars are normalised by those closed at the first scored as_of, and their time features are right."""
    findings: list[Finding] = []
    for position in positions:
        window, sample = position.window, datasets[position.split][position.number]
        bars = rows.bars[position.symbol][window.start : window.stop - 1]
        first_scored = int((sample["loss_weight"] > 0).nonzero()[0, 0])
        last_known = min(window.first_target - 1, window.start + first_scored)
        as_of = moment(rows, position.symbol, last_known).as_of
        expected = recompute_window(bars, closed_bars(bars, as_of))
        for bar, stamp, values, given in zip(
            bars, sample["stamps"].tolist(), expected, sample["ohlcv"].tolist(), strict=True
        ):
            where = f"{position.symbol} {bar.day} (statistics to {as_of:%Y-%m-%d})"
            findings += _differences(where, FEATURES, values, given)
            clock = [bar.day.minute, bar.day.hour] if isinstance(bar.day, datetime) else [0, 0]
            calendar_stamp = [*clock, bar.day.weekday(), bar.day.day, bar.day.month]
            if stamp != calendar_stamp:
                what = "stamp (" + ", ".join(STAMPS) + ")"
                findings.append(Finding(where, what, str(calendar_stamp), str(stamp)))
    return Check("normalised bars", len(positions), "windows", findings)


def check_tokens(bundle: Bundle, datasets: Datasets, positions: Sequence[Position]) -> Check:
    """The token ids up to a position are what the tokenizer makes of the bars up to it alone."""
    findings = []
    for position in positions:
        sample = datasets[position.split][position.number]
        upto = position.offset + 1
        made = _encode(bundle, sample, upto)
        for name, ids in zip(("s1_ids", "s2_ids"), made, strict=True):
            differ = int((ids != sample[name][:upto]).sum())  # type: ignore[literal-required]
            if differ > max(1, STALE_SHARE * upto):
                findings.append(
                    Finding(
                        f"{position.symbol}, the {upto} bars to position {position.bar}",
                        name,
                        "the ids of these bars",
                        f"{differ} others",
                    )
                )
    return Check("tokens", len(positions), "windows", findings)


def check_scramble(
    snapshot: Snapshot, rows: PlainRows, bundle: Bundle, positions: Sequence[Position], seed: int
) -> Check:
    """With another future the inputs up to a position stay the same, to the bit."""
    findings = []
    for number, position in enumerate(positions):
        as_of = moment(rows, position.symbol, position.bar).as_of
        for name in changed_inputs(snapshot, rows, bundle, position, seed + number):
            day = rows.bars[position.symbol][position.bar].day
            findings.append(
                Finding(
                    f"{position.symbol} up to {day} (known at {as_of:%m-%d %H:%M})",
                    name,
                    "as before",
                    "changed with the future",
                )
            )
    return Check("future scrambled", len(positions), "futures", findings)


@torch.inference_mode()
def _encode(bundle: Bundle, sample: Sample, upto: int) -> tuple[torch.Tensor, ...]:
    device = next(bundle.tokenizer.parameters()).device
    ids = bundle.tokenizer.encode(sample["ohlcv"][None, :upto].to(device))
    return tuple(one[0].cpu() for one in ids)


def _differences(
    where: str, names: Sequence[str], expected: Sequence[Value], given: Sequence[float]
) -> list[Finding]:
    return [
        Finding(where, name, f"{value.value:.6g}", f"{got:.6g}")
        for name, value, got in zip(names, expected, given, strict=True)
        if not value.agrees(got)
    ]
