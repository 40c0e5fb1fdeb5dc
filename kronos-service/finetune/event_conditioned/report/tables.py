"""Tables of text: the one place that decides how a number looks on a terminal, in a report and on a card.

The numbers are those of results.json, criteria.json, evaluation-<split>.json and ablation.json. `-` stands
where there is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.training.validation import LOSSES

Figures = Mapping[str, Any]

GAIN: Final = ("gain (nats)", "95 % interval", "gain (%)", "count", "dates")
GROUPS: Final = ("event", "quiet", "all")
YARDSTICK: Final = "har_events"
"""What an adapter has to beat: it knows the days of tier-1 events, and prices."""
WORDS: Final = {
    "quiet": "non-event",
    "unknown": "not measured",
    "tier1": "tier 1",
    "other_event": "other event",
    YARDSTICK: YARDSTICK,
}
"""Keys of the JSON files that terminal and report show in other words."""
NOTHING: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of text; the first `labels` columns are names, the others numbers.

    terminal.py and parts.html show it, with `WORDS` in the place of its keys; a model card has its Markdown.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int = 1
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Row and column of a cell that is the `best` of its column, or rests on too `few` dates."""

    notes: Sequence[str] = ()
    """A remark for each row, if any; only a page has room for it, under the row's name."""

    @property
    def grouped(self) -> bool:
        """Whether neighbouring rows share a name in the first column."""
        return any(row[0] == before[0] for before, row in pairwise(self.rows))

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        lines: Iterable[Sequence[str]] = (self.columns, ["---"] * len(self.columns), *self.rows)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def losses(summaries: Mapping[str, Figures], title: str) -> Table:
    """Mean token losses per group of targets and model, as `validation.summarize` gives them."""
    rows = [
        (group, model, *(number(means[name]) for name in LOSSES), count(means["targets"]))
        for group in GROUPS
        for model, summary in summaries.items()
        for means in (summary[group],)
    ]
    return Table(title=title, columns=("targets", "model", *LOSSES, "count"), rows=rows, labels=2)


def family_losses(families: Mapping[str, Figures], title: str) -> Table:
    """Total loss on the targets of each event family, adapter against base."""
    rows = []
    for name, base in families["base"].items():
        adapted = families["adapter"][name]["total"]
        change = f"{100 * (adapted / base['total'] - 1):+.2f} %"
        rows.append((name, number(base["total"]), number(adapted), change, count(base["targets"])))
    return Table(title=title, columns=("family", "base", "adapter", "change", "count"), rows=rows)


def gains(found: Mapping[str, Figures]) -> Table:
    """Gains over the control, keyed `<model>_<group>`, with their intervals."""
    rows = [(*name.rsplit("_", 1), *_gain(gain)) for name, gain in found.items()]
    return Table(title="Gain over the control", columns=("model", "targets", *GAIN), rows=rows, labels=2)


def family_gains(found: Mapping[str, Figures], title: str) -> Table:
    """Gains per event family with their intervals."""
    rows = [(name, *_gain(gain)) for name, gain in found.items()]
    return Table(title=title, columns=("family", *GAIN), rows=rows)


def merge_alike(found: Mapping[str, Figures]) -> dict[str, Figures]:
    """The same gains with one row for all families that fall on the same targets, under all their names."""
    merged: dict[str, Figures] = {}
    for name, gain in found.items():
        alike = next((names for names, other in merged.items() if other == gain), None)
        if alike is None:
            merged[shown(name)] = gain
        else:  # in its place
            merged = {f"{key}, {shown(name)}" if key == alike else key: one for key, one in merged.items()}
    return merged


def criteria(judged: Sequence[Figures]) -> Table:
    """Each success criterion with its figure and verdict."""
    columns = ("criterion", "wanted", "figure", "verdict")
    rows = [(one["name"], one["wanted"], one["detail"], one["verdict"]) for one in judged]
    return Table(title="Success criteria", columns=columns, rows=rows, labels=4)


def ablation(found: Figures, group: str) -> Table:
    """Every variant of an ablation on event or non-event targets; `found` is what ablation.json holds."""
    rows = [
        (
            one["name"],
            number(one[group]["loss"]),
            *(_with_interval(one[group][other]) for other in ("over_control", "over_adapter")),
            ", ".join(_seed(seed, one[group]["by_seed"]) for seed in one["seeds"]) or NOTHING,
            count(one["trainable"]),
            f"{one['seconds'] / 60:.1f}",
        )
        for one in found["arms"]
    ]
    sizes = [gain for one in found["arms"] for gain in (one[group]["over_control"],) if gain]
    size = f"{count(sizes[0]['targets'])} targets on {count(sizes[0]['dates'])} dates, " if sizes else ""
    return Table(
        title=f"Ablation, {shown(group)} targets ({size}nats per target, 95 % intervals over dates)",
        columns=("variant", "loss", "gain over control", "gain over adapter", "seeds", "trainable", "min"),
        rows=rows,
    )


def pooled_gains(gains: Sequence[Figures], by: str) -> Table:
    """The pooled gains of a walk-forward, by day, family, asset class, year or fold."""
    rows = [
        (
            one["group"],
            f"{shown(one['model'])} over {shown(one['over'])}",
            *_gain(one["gain"]),
            f"{one['detectable']:.4f}",
        )
        for one in gains
        if one["by"] == by
    ]
    return Table(
        title=f"Pooled gains by {shown(by)} (nats per target, 95 % intervals over dates)",
        columns=("targets", "gain of", *GAIN, "detectable"),
        rows=rows,
        labels=2,
    )


def key_value(found: Mapping[str, Any], title: str) -> Table:
    """Names and what they are."""
    rows = [(name, "none" if value is None else str(value)) for name, value in found.items()]
    return Table(title=title, columns=("name", "value"), rows=rows, labels=2)


def shown(name: str) -> str:
    """A key of the JSON files as people read it."""
    return WORDS.get(name, name.replace("_", " "))


def number(value: float | None) -> str:
    """A loss in nats."""
    return NOTHING if value is None else f"{value:.4f}"


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def percent(value: float | None, digits: int) -> str:
    """A share or a log return, times 100."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """`[+0.0100, +0.0200]`, or a dash where there is none."""
    return NOTHING if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def limits(gain: Figures) -> tuple[float | None, float | None]:
    """A gain's interval; (None, None) on so few dates that it would be far too narrow."""
    return (gain["low"], gain["high"]) if gain["dates"] >= FEWEST_DATES else (None, None)


def _gain(gain: Figures) -> tuple[str, ...]:
    """The cells of the columns in `GAIN`."""
    sizes = (count(gain["targets"]), count(gain["dates"]))
    return (f"{gain['nats']:+.4f}", interval(*limits(gain)), f"{gain['percent']:+.2f}", *sizes)


def _with_interval(gain: Figures | None) -> str:
    return f"{gain['nats']:+.4f} {interval(*limits(gain))}" if gain else NOTHING


def _seed(seed: int, by_seed: Figures) -> str:
    """`0: +0.012`, the seed and its gain over the control, or the seed alone where there is no such gain."""
    gain = by_seed.get(str(seed), {}).get("over_control")
    return str(seed) if gain is None else f"{seed}: {gain:+.3f}"
