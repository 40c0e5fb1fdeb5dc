"""The verdict on a run's adapter, in sentences that need no glossary.

Every word follows from the run's own files. A figure from fewer than 30 targets or 20 dates is not said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kronos_service.finetune.event_conditioned.evaluation.criteria import (
    FEWEST_DATES,
    FEWEST_TARGETS,
    MAX_QUIET_RISE,
    is_headline,
)
from kronos_service.finetune.event_conditioned.evaluation.incumbent import INCUMBENT
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord

LITTLE: Final = 1.0
"""A sure gain of less than this, in percent of the loss, is called little."""
Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, in large print."""

    name: str
    figure: str
    words: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a reader should take away."""

    tone: Tone
    headline: str
    sentence: str
    checks: list[Check]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A clause of the sentence and its check; nothing is said of what was not looked at."""

    clause: str
    check: Check


def verdict(run: RunRecord) -> Verdict:
    """On the adapter of a run, or of an evaluation without its run."""
    gain, audit = gain_of(run), _audit_of(run)
    event, quiet = (against_base(run, group) for group in ("event", "quiet"))
    parts = [_events(gain, event, earlier=run.results is None), _quiet(quiet), _look_ahead(audit), _live(run)]
    clauses = [part.clause for part in parts if part]
    sentence = "; ".join(clauses)
    tone, headline = _headline(gain, quiet, audit)
    checks = [part.check for part in parts if part] + list(_forecasts(run))
    return Verdict(
        tone=tone,
        headline=headline,
        sentence=f"{sentence[0].upper()}{sentence[1:]}.",
        checks=checks,
    )


def judge_gain(gain: Mapping[str, Any] | None) -> Literal["unknown", "few", "better", "worse", "undecided"]:
    """What a gain over the control says, by its interval."""
    if gain is None:
        return "unknown"
    if not is_headline(gain["targets"], gain["dates"]):
        return "few"
    if gain["low"] > 0:
        return "better"
    return "worse" if gain["high"] < 0 else "undecided"


GAIN_HEADLINES: Final[Mapping[str, tuple[Tone, str]]] = {
    "unknown": ("open", "Whether the events help was not measured"),
    "few": ("open", "Too few event dates to say whether the events help"),
    "undecided": ("open", "No help from the events is shown"),
    "better": ("good", "The events help"),
    "worse": ("bad", "The events make it worse"),
}


def headline_of(gain: Mapping[str, Any] | None) -> tuple[Tone, str]:
    """A gain over the control in a few words."""
    tone, headline = GAIN_HEADLINES[judge_gain(gain)]
    little = tone == "good" and gain is not None and gain["percent"] < LITTLE
    return tone, f"{headline}, a little" if little else headline


def describe_gain(gain: Mapping[str, Any] | None, days: str = "event") -> str:
    """A gain over the control as a clause."""
    found = judge_gain(gain)
    if gain is None:
        return "no gain over a control is on file, so nobody knows whether the events help"
    if found == "few":
        return (
            f"{gain['targets']:,} targets on {gain['dates']} {days} dates are too few for a figure (it takes "
            f"{FEWEST_TARGETS} on {FEWEST_DATES})"
        )
    chance = ", which may be chance" if found == "undecided" else ""
    return (
        f"on {gain['dates']} {days} dates its loss is {_apart(-gain['percent'])} the same training without "
        f"events{chance} (95 % interval: {_span(gain)})"
    )


def gain_of(run: RunRecord) -> Mapping[str, Any] | None:
    """The gain over the control on event days: the run's own, or what the adapter's manifest has of it."""
    found: Mapping[str, Any] | str | None
    if run.results is not None:
        found = (run.results.get("gains") or {}).get("adapter_event")
    else:
        found = next((one.get("conditioning_gain") for one in run.evaluations.values()), None)
    return None if isinstance(found, str) else found


def _audit_of(run: RunRecord) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None
    if run.manifest is not None:
        found = run.manifest["data"].get("audit")
    else:
        found = next((one.get("audit") for one in run.evaluations.values()), None)
    return found


def against_base(run: RunRecord, group: str) -> dict[str, Any] | None:
    """Change of the loss against the base in percent, with its targets and dates where they are known."""
    results = run.results or {}
    losses = results.get("val")
    if losses is None:
        losses = next((one["losses"] for one in run.evaluations.values() if "losses" in one), None)
    if losses is None:
        return None
    base, adapter = (losses[name][group] for name in ("base", "adapter"))
    if not adapter["targets"]:
        return None
    dates = results.get("val_dates", {}).get(group)
    if dates is None:
        dates = results.get("gains", {}).get(f"adapter_{group}", {}).get("dates")
    change = 100 * (adapter["total"] / base["total"] - 1)
    return {"percent": change, "targets": adapter["targets"], "dates": dates}


def suffers(quiet: Mapping[str, Any] | None) -> bool:
    """Whether the loss on non-event days has risen further above the base's than it may."""
    return quiet is not None and _speaks(quiet) and quiet["percent"] > MAX_QUIET_RISE


def _speaks(found: Mapping[str, Any]) -> bool:
    """An evaluation does not count the dates of its losses: there the targets alone must do."""
    dates = FEWEST_DATES if found["dates"] is None else found["dates"]
    return is_headline(found["targets"], dates)


def _headline(
    gain: Mapping[str, Any] | None, quiet: Mapping[str, Any] | None, audit: Mapping[str, Any] | None
) -> tuple[Tone, str]:
    if audit is not None and audit["verdict"] != "pass":
        return "bad", "Its data may know the future: trust no figure"
    tone, headline = headline_of(gain)
    if tone == "good" and suffers(quiet):
        return "open", f"{headline}, but days without events suffer"
    return tone, headline


def _events(gain: Mapping[str, Any] | None, base: Mapping[str, Any] | None, *, earlier: bool) -> _Part:
    """`earlier`: the gain is of the adapter's training, not of the targets of this page."""
    clause = describe_gain(gain)
    if gain is not None and earlier:
        clause = f"when it was trained, {clause}"
    if gain is None and base is not None and _speaks(base):
        clause += (
            f"; on event days its loss is {_apart(base['percent'])} the base's, some of which any adapter "
            "gains by seeing recent bars"
        )
    return _Part(clause=clause, check=gain_check("Event days, against no events", gain))


def gain_check(name: str, gain: Mapping[str, Any] | None) -> Check:
    """A gain over the control in large print, where it rests on enough."""
    found = judge_gain(gain)
    tone, _ = GAIN_HEADLINES[found]
    if gain is None:
        return _check(name, "not measured", "no control is on file", tone)
    if found == "few":
        return _check(name, "too few", _size(gain), tone)
    words = f"loss; 95 % interval: {_span(gain)}; {_size(gain)}"
    return _check(name, _apart(-gain["percent"]), words, tone)


def _quiet(found: Mapping[str, Any] | None) -> _Part | None:
    if found is None:
        return None
    name = "Other days, against the base"
    if not _speaks(found):
        size = _size(found)
        return _Part(
            clause=f"{size} without events are too few for a figure",
            check=_check(name, "too few", size, "open"),
        )
    change = found["percent"]
    tone: Tone = "good" if change <= 0 else "bad" if change > MAX_QUIET_RISE else "open"
    better = "better" if change <= 0 else "worse"
    return _Part(
        clause=f"non-event days {_size_of(change)} % {better} than the base",
        check=_check(name, f"{_size_of(change)} % {better}", f"loss; {_size(found)}", tone),
    )


def _look_ahead(audit: Mapping[str, Any] | None) -> _Part:
    name = "Knowing the future"
    if audit is None:
        return _Part(
            clause="not audited for look-ahead", check=_check(name, "not audited", "run the audit", "open")
        )
    checks = f"{len(audit['checked'])} checks in a quick audit"
    if audit["verdict"] == "pass":
        return _Part(clause="no look-ahead found", check=_check(name, "none found", checks, "good"))
    findings = f"{audit['findings']} findings"
    return _Part(
        clause=f"its data may know the future ({findings} of the audit)",
        check=_check(name, findings, checks, "bad"),
    )


def _live(run: RunRecord) -> _Part | None:
    """Against the version that LATEST named when the run ended; an evaluation compares with none."""
    metrics = (run.manifest or {}).get("metrics", {})
    if INCUMBENT not in metrics:
        return None
    name, found = "Against the live version", metrics[INCUMBENT]
    if found is None:
        first = _check(name, "first", "nothing was published before", "good")
        return _Part(clause="against the live version: first", check=first)
    event, quiet = found["event"], found["quiet"]
    if event is None or quiet is None:
        return _Part(
            clause=f"not comparable with the live version {found['version']} ({found['why_not']})",
            check=_check(name, "not compared", str(found["why_not"]), "open"),
        )
    if not is_headline(event["targets"], event["dates"]):
        return _Part(
            clause=f"too few event dates to compare it with the live version {found['version']}",
            check=_check(name, "too few", _size(event), "open"),
        )
    change = _apart(-event["percent"]).removesuffix(" than")
    others = f"non-event days {_apart(-quiet['percent']).removesuffix(' than')}"
    worse = event["nats"] < 0 or quiet["high"] < 0
    return _Part(
        clause=f"against the live version {found['version']}: event days {change}, {others}",
        check=_check(name, change, f"loss on event days; {others}", "bad" if worse else "good"),
    )


def _forecasts(run: RunRecord) -> Iterator[Check]:
    """CRPS of the next bar on event days against the base; from 30 forecasts on 20 dates."""
    forecasts = run.evaluations.get("val", {}).get("forecasts") or {"groups": []}
    for one in forecasts["groups"]:
        if (one["by"], one["group"], one["steps"]) != ("day", "event", "1") or "gain" not in one:
            continue
        name, size = "Forecasts of event days, against the base", _size(one, "forecasts")
        if not is_headline(one["targets"], one["dates"]):
            yield _check(name, "too few", size, "open")
            continue
        gain = one["gain"]["base"]
        sure = gain["low"] is not None and (gain["low"] > 0 or gain["high"] < 0)
        tone: Tone = "open" if not sure else "good" if gain["crps"] > 0 else "bad"
        yield _check(name, _apart(-gain["percent"]), f"error (CRPS) of the next bar; {size}", tone)


def _check(name: str, figure: str, words: str, tone: Tone) -> Check:
    return Check(name=name, figure=figure.removesuffix(" than"), words=words, tone=tone)


def _apart(percent: float) -> str:
    """`14.6 % lower than`."""
    return f"{_size_of(percent)} % {'lower' if percent <= 0 else 'higher'} than"


def _size_of(percent: float) -> str:
    """One digit after the point, and two below 1 %."""
    return f"{abs(percent):.{1 if abs(percent) >= 1 else 2}f}"


def _span(gain: Mapping[str, Any]) -> str:
    """The interval of the change of the loss: `7.1 to 9.5 % lower`."""
    scale = gain["percent"] / gain["nats"] if gain["nats"] else 0.0
    low, high = sorted(-gain[end] * scale for end in ("low", "high"))
    if low < 0 < high:
        return f"{_size_of(low)} % lower to {_size_of(high)} % higher"
    ends = sorted((abs(low), abs(high)))
    return f"{_size_of(ends[0])} to {_size_of(ends[1])} % {'lower' if low < 0 else 'higher'}"


def _size(found: Mapping[str, Any], what: str = "targets") -> str:
    count = f"{found['targets']:,} {what}"
    return count if found["dates"] is None else f"{count} on {found['dates']} dates"
