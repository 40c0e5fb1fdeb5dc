"""The page of a track record: one HTML file, the verdict on its coverage first."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune.event_conditioned.evaluation.track_record import BASE
from kronos_service.finetune.event_conditioned.report import figures, tables
from kronos_service.finetune.event_conditioned.report.document import fill
from kronos_service.finetune.event_conditioned.report.verdict import Check, Verdict
from kronos_shared.quantiles import INTERVALS

SECTIONS: Final = {
    "coverage": "Coverage",
    "pit": "Calibration",
    "versions": "Versions",
    "made": "How it was made",
}
BARS: Final = {"1": "first bar", "all": "all bars"}


def page(found: Mapping[str, Any]) -> str:
    """The whole page; `found` is what scorecard.json holds."""
    data = found["snapshot"]
    return fill(
        "scorecard.html",
        title="Event-conditioned Kronos: track record",
        synthetic=is_synthetic(data["sha256"], marked=data.get("synthetic", False)),
        sections={name: text for name, text in SECTIONS.items() if name != "coverage" or found["coverage"]},
        verdict=verdict(found),
        found=found,
        coverage=coverage_table(found["coverage"]),
        scores=[
            (one, scores_table(one, ("all", "day")), scores_table(one, ("month",))) for one in shown(found)
        ],
        drawings=figures.pits({one["version"]: one["pit"] for one in shown(found)}),
        pit=pit_table(found),
    )


def verdict(found: Mapping[str, Any]) -> Verdict:
    """Whether intervals held what they promise over the last days, per version."""
    judged, days = found["coverage"], found["days"]
    if not judged:
        sentence = f"The last {days} days have too few target dates to judge the coverage."
        return Verdict(tone="open", headline="Too few dates to judge", sentence=sentence, checks=[])
    outside = [one for one in judged if not is_inside(one)]
    steps = min(one["steps"] for one in judged)  # the first bar alone, where there are enough dates
    checks = [
        Check(
            name=f"{one['interval']} % interval, {BARS[one['steps']]}",
            figure=f"{tables.percent(one['share'], 0)} %",
            words=f"of {one['targets']:,} outcomes inside, expected {_band(one)}; {one['version']}",
            tone="good" if is_inside(one) else "bad",
        )
        for one in judged
        if one["steps"] == steps
    ]
    if not outside:
        sentence = f"Over the last {days} days as many outcomes fell into each interval as it says."
        return Verdict(
            tone="good", headline="The intervals hold what they promise", sentence=sentence, checks=checks
        )
    parts = [
        f"{tables.percent(one['share'], 0)} % of outcomes lie in the {one['interval']} % interval of "
        f"{one['version']} ({BARS[one['steps']]}; expected {_band(one)})"
        for one in outside
    ]
    return Verdict(
        tone="bad",
        headline="The intervals are off",
        sentence=f"Over the last {days} days {'; '.join(parts)}.",
        checks=checks,
    )


def is_inside(coverage: Mapping[str, Any]) -> bool:
    """Whether the share of outcomes inside an interval lies in its band."""
    return bool(coverage["low"] <= coverage["share"] <= coverage["high"])


def _band(coverage: Mapping[str, Any]) -> str:
    return f"{tables.percent(coverage['low'], 0)} to {tables.percent(coverage['high'], 0)} %"


def shown(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The versions, latest first, and the base alone after them."""
    latest_first = found["versions"][::-1]
    return sorted(latest_first, key=lambda one: one["version"] == BASE)


def coverage_table(coverage: Sequence[Mapping[str, Any]]) -> tables.Table:
    """Each interval over the last days, and the band in which it may lie."""
    rows = [
        (
            str(one["version"]),
            BARS[one["steps"]],
            f"{one['interval']} %",
            tables.percent(one["share"], 1),
            f"{tables.percent(one['low'], 1)} to {tables.percent(one['high'], 1)}",
            tables.count(one["targets"]),
            tables.count(one["dates"]),
            "pass" if is_inside(one) else "fail",
        )
        for one in coverage
    ]
    columns = ("version", "bars", "interval", "coverage %", "band %", "targets", "dates", "verdict")
    return tables.Table(title="Coverage of the last days", columns=columns, rows=rows, labels=3)


def scores_table(version: Mapping[str, Any], by: Sequence[str]) -> tables.Table:
    """What a version scored, in percent of price; intervals are 95 %."""
    rows = [
        (
            one["group"],
            BARS[one["steps"]],
            tables.count(one["targets"]),
            _percent(one["crps"]),
            _percent(one["over_walk"]),
            _percent(one["over_base"]),
            *(_percent(one[f"inside_{name}"], digits=1) for name in INTERVALS),
            _percent(one["width"]),
            tables.percent(one["rw_width"], 2),
        )
        for one in version["groups"]
        if one["by"] in by
    ]
    columns = (
        *("days" if "day" in by else "month", "bars", "targets", "CRPS"),
        *("below a random walk's", "below the base's"),
        *(f"inside {name} %" for name in INTERVALS),
        *("width", "a random walk's width"),
    )
    return tables.Table(title="By month" if "month" in by else "Scores", columns=columns, rows=rows, labels=2)


def pit_table(found: Mapping[str, Any]) -> tables.Table:
    """Where the outcomes of the first bar fell in the forecasts, by tenths: 10 % in each if right."""
    rows = [
        (one["version"], *(tables.percent(count / max(sum(one["pit"]), 1), 0) for count in one["pit"]))
        for one in shown(found)
    ]
    tenths = tuple(f"{10 * number}-{10 * number + 10}" for number in range(10))
    return tables.Table(title="PIT, % of outcomes", columns=("version", *tenths), rows=rows)


def _percent(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    if found is None:
        return tables.NOTHING
    value = tables.percent(found["mean"], digits)
    if found["low"] is None:
        return value
    return f"{value} ({tables.percent(found['low'], digits)} to {tables.percent(found['high'], digits)})"
