"""What the audit looks at, one function per check; each returns what it looked at and the rows that fail.

Here it is the samples of the dataset, as the model gets them; `tables` checks what lies behind them.
"""

from collections.abc import Sequence

import torch

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.taxonomy import CHANNELS, FIRST_LEADER, LEADERS
from kronos_service.finetune.event_conditioned.audit.findings import Check, Finding
from kronos_service.finetune.event_conditioned.audit.positions import Place
from kronos_service.finetune.event_conditioned.audit.recompute import (
    Moment,
    Value,
    leader_move,
    moment,
    rebuild_row,
    rebuild_window,
)
from kronos_service.finetune.event_conditioned.audit.rows import Bar, Records, closed_bars
from kronos_service.finetune.event_conditioned.audit.scramble import changed_inputs
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset, Sample
from kronos_service.model.factory import Bundle
from kronos_shared.columns import FEATURES

STAMPS = ("minute", "hour", "weekday", "day", "month")
LOOK_AHEAD = 3
"""So many bars too far ahead are tried, to name the one that a wrong leader value comes from."""
STALE_SHARE = 0.02
"""Token ids may differ in so many places by rounding; those of other bars differ nearly everywhere."""


Datasets = dict[str, EventConditionedDataset]


def check_rows(records: Records, datasets: Datasets, places: Sequence[Place]) -> Check:
    """All 20 channels, and the target's date, are what can be rebuilt from what was usable at as_of."""
    findings: list[Finding] = []
    for place in places:
        sample = datasets[place.split][place.number]
        now = moment(records, place.symbol, place.bar)
        where = f"{place.symbol} {now.target.day} (known at {now.as_of:%m-%d %H:%M})"
        dated = sample["target_dates"][place.position].item()
        if sample["loss_weight"][place.position] > 0 and dated != now.target.day:
            findings.append(Finding(where, "target", str(now.target.day), str(dated)))
        expected = rebuild_row(records, place.symbol, place.bar)
        given = sample["events"][place.position].tolist()
        findings += _differences(where, CHANNELS, expected, given)
    return Check("event channels", len(places), f"rows of {len(CHANNELS)}", findings)


def check_leaders(records: Records, datasets: Datasets, places: Sequence[Place]) -> Check:
    """No leader's value comes from a bar that closed after as_of, nor as_of after the target's open."""
    findings = []
    for place in places:
        given = datasets[place.split][place.number]["events"][place.position].tolist()[FIRST_LEADER:]
        now = moment(records, place.symbol, place.bar)
        assert now.as_of <= now.target.opens, "the audit's own rule is broken"
        for leader, value in zip(LEADERS, given, strict=True):
            source = _later_source(records, leader, now, value)
            if source is not None:
                findings.append(
                    Finding(
                        f"{place.symbol} {now.target.day} (opens {now.target.opens:%m-%d %H:%M})",
                        f"{leader}'s bar",
                        f"closed by {now.as_of:%Y-%m-%d %H:%M}",
                        f"the bar of {source.day}, closed {source.closes:%Y-%m-%d %H:%M}",
                    )
                )
    return Check("leaders before targets", len(places) * len(LEADERS), "values", findings)


def _later_source(records: Records, leader: str, now: Moment, value: float) -> Bar | None:
    """The bar that closed too late and gives the value; None if those closed in time do, or none does."""
    if value == 0 or leader_move(records, leader, now).agrees(value):
        return None
    bars = records.bars[leader]
    usable = len(closed_bars(bars, now.as_of))
    for shift, bar in enumerate(bars[usable : usable + LOOK_AHEAD], start=1):
        if leader_move(records, leader, now, shift).agrees(value):
            return bar
    return None


def check_windows(records: Records, datasets: Datasets, places: Sequence[Place]) -> Check:
    """Bars are normalised by those closed at the as_of of the first scored position, and stamped right."""
    findings: list[Finding] = []
    for place in places:
        window, sample = place.window, datasets[place.split][place.number]
        bars = records.bars[place.symbol][window.start : window.stop - 1]
        first_scored = int((sample["loss_weight"] > 0).nonzero()[0, 0])
        last_known = min(window.first_target - 1, window.start + first_scored)
        as_of = moment(records, place.symbol, last_known).as_of
        expected = rebuild_window(bars, closed_bars(bars, as_of))
        for bar, stamp, values, given in zip(
            bars, sample["stamps"].tolist(), expected, sample["ohlcv"].tolist(), strict=True
        ):
            where = f"{place.symbol} {bar.day} (statistics to {as_of:%Y-%m-%d})"
            findings += _differences(where, FEATURES, values, given)
            calendar_stamp = [0, 0, bar.day.weekday(), bar.day.day, bar.day.month]
            if stamp != calendar_stamp:
                what = "stamp (" + ", ".join(STAMPS) + ")"
                findings.append(Finding(where, what, str(calendar_stamp), str(stamp)))
    return Check("normalised bars", len(places), "windows", findings)


def check_tokens(bundle: Bundle, datasets: Datasets, places: Sequence[Place]) -> Check:
    """The token ids up to a position are what the tokenizer makes of the bars up to it alone."""
    findings = []
    for place in places:
        sample = datasets[place.split][place.number]
        upto = place.position + 1
        made = _encode(bundle, sample, upto)
        for name, ids in zip(("s1_ids", "s2_ids"), made, strict=True):
            differ = int((ids != sample[name][:upto]).sum())  # type: ignore[literal-required]
            if differ > max(1, STALE_SHARE * upto):
                findings.append(
                    Finding(
                        f"{place.symbol}, the {upto} bars to position {place.bar}",
                        name,
                        "the ids of these bars",
                        f"{differ} others",
                    )
                )
    return Check("tokens", len(places), "windows", findings)


def check_scramble(
    snapshot: Snapshot, records: Records, bundle: Bundle, places: Sequence[Place], seed: int
) -> Check:
    """With another future the inputs up to a position are the same, to the bit."""
    findings = []
    for number, place in enumerate(places):
        as_of = moment(records, place.symbol, place.bar).as_of
        for name in changed_inputs(snapshot, records, bundle, place, seed + number):
            day = records.bars[place.symbol][place.bar].day
            findings.append(
                Finding(
                    f"{place.symbol} up to {day} (known at {as_of:%m-%d %H:%M})",
                    name,
                    "as before",
                    "changed with the future",
                )
            )
    return Check("future scrambled", len(places), "futures", findings)


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
