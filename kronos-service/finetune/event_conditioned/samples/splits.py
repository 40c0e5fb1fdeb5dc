"""The train, validation and test splits of a snapshot, by the target's date."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.calendar import CalendarError, calendar_reach
from kronos_service.events.encoder import REACH_DAYS
from kronos_service.finetune.event_conditioned.samples.dataset import EventConditionedDataset
from kronos_service.finetune.event_conditioned.samples.series import (
    Conditioning,
    Series,
    build_series,
    calendar_covers,
    condition,
)
from kronos_service.finetune.event_conditioned.samples.tokens import Tokens, tokenize
from kronos_service.finetune.event_conditioned.samples.windows import LeftOut, Window, plan_windows
from kronos_service.model.factory import Bundle
from kronos_shared.errors import KronosError
from kronos_shared.normalization import MIN_HISTORY

Span = tuple[np.datetime64, np.datetime64]
"""First and last target date, both inclusive."""

ONE_DAY = np.timedelta64(1, "D")


class SplitError(KronosError):
    """A split has no targets or no event days, or no bar to forecast from."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """What is scored in one span of target dates (both inclusive)."""

    name: str
    first: np.datetime64
    last: np.datetime64
    windows: list[Window]
    left_out: LeftOut
    tokens: Tokens


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The series of a snapshot and the splits over them."""

    series: list[Series]
    splits: Mapping[str, Split]

    def conditioned(self, conditioning: Conditioning, seed: int) -> "Splits":
        """The same splits under the real events, none (the control), or permuted ones (the placebo)."""
        boundaries = [edge for one in self.splits.values() for edge in (one.first, one.last + ONE_DAY)]
        return replace(self, series=condition(self.series, conditioning, boundaries, seed))

    def dataset(
        self,
        name: str,
        *,
        oversample: float = 1.0,
        blank: float = 0.0,
        seed: int = 0,
        at_most: int | None = None,
    ) -> EventConditionedDataset:
        """The dataset of a split; `at_most` takes that many of its windows, drawn by the seed."""
        split = self.splits[name]
        chosen = np.random.default_rng(seed).permutation(len(split.windows))[:at_most]
        chosen.sort()
        return EventConditionedDataset(
            self.series,
            [split.windows[number] for number in chosen],
            {key: ids[chosen] for key, ids in split.tokens.items()},
            event_weight=oversample,
            blank_probability=blank,
            seed=seed,
        )


def build_splits(
    snapshot: Snapshot,
    bundle: Bundle,
    *,
    dates: Mapping[str, Span],
    context: int,
    scored: int,
    cache: Path,
) -> Splits:
    """Encode the events, plan the windows of each named span of target dates, and tokenise them (cached
    under `cache`).

    Raises:
        CalendarError: the calendar ends more than ten days before a split's last bar. Targets within ten
        days of its end are left out and counted.
    """
    series, planned = plan_splits(snapshot, dates=dates, context=context, scored=scored)
    splits = {}
    for name, (windows, left_out) in planned.items():
        tokens = (
            tokenize(bundle, series, windows, snapshot_sha256=snapshot.sha256, cache=cache) if windows else {}
        )
        first, last = dates[name]
        splits[name] = Split(
            name=name, first=first, last=last, windows=windows, left_out=left_out, tokens=tokens
        )
    return Splits(series=series, splits=splits)


def plan_splits(
    snapshot: Snapshot, *, dates: Mapping[str, Span], context: int, scored: int
) -> tuple[list[Series], dict[str, tuple[list[Window], LeftOut]]]:
    """The series, and the windows of each named span of target dates.

    Raises:
        CalendarError: as `build_splits` does.
    """
    _check_reach(snapshot, dates)
    series = build_series(snapshot)
    covers = calendar_covers(snapshot)
    return series, {
        name: plan_windows(
            series, first=first, last=last, calendar_covers=covers, context=context, scored=scored
        )
        for name, (first, last) in dates.items()
    }


def dead_channels(dataset: EventConditionedDataset) -> list[str]:
    """Channels that are constant over every scored position of the split: nothing can be learnt from them."""
    rows = np.concatenate(
        [dataset.series[w.series].events[w.first_target - 1 : w.stop - 1] for w in dataset.windows], axis=0
    )
    return [
        name
        for name, low, high in zip(
            dataset.series[0].taxonomy.channels, rows.min(axis=0), rows.max(axis=0), strict=True
        )
        if low == high
    ]


def _check_reach(snapshot: Snapshot, dates: Mapping[str, Span]) -> None:
    bars = snapshot.bars["ts"].dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    reach = calendar_reach(snapshot.calendar, snapshot.taxonomy)
    for name, (first, last) in dates.items():
        inside = bars[(bars >= first) & (bars <= last)]
        longest = reach + np.timedelta64(REACH_DAYS, "D")
        if len(inside) and longest < inside.max():
            raise CalendarError(
                f"the calendar ends on {reach} but the {name} split has bars to {inside.max()}: a schedule "
                "that ends early looks like days without events; export a later calendar, or end the split "
                f"by {longest} (--val-start, --test-start and --test-end of event-lora, ablate and audit)"
            )


def require_events(splits: Splits, name: str) -> None:
    """Raise `SplitError` if a split has no targets, or none on an event day."""
    split = splits.splits[name]
    span = f"{split.first} to {split.last}"
    if not split.windows:
        why = split.left_out.describe() or "no bars there"
        raise SplitError(
            f"the {name} split ({span}) has no targets ({why}); a target needs {MIN_HISTORY} earlier bars: "
            "export more history or move the split dates"
        )
    if splits.dataset(name).n_event_targets == 0:
        raise SplitError(
            f"the {name} split ({span}) has no event days (no high-impact release falls on its targets); "
            "check the calendar's impact column or move the split dates"
        )
