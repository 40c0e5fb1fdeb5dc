"""The verdict in words, case by case: what a stranger reads first must follow from the figures."""

from dataclasses import replace
from typing import Any

import pytest
from made_runs import AUDIT, a_run, evaluation, gain

from kronos_service.finetune.event_conditioned.report.verdict import Verdict, verdict


def figures(found: Verdict) -> dict[str, tuple[str, str]]:
    return {check.name: (check.figure, check.tone) for check in found.checks}


def test_the_sentence_says_it_all_in_the_order_of_what_matters() -> None:
    assert verdict(a_run(gain())) == replace(
        verdict(a_run(gain())),
        tone="good",
        headline="The events help",
        sentence="On 25 event dates its loss is 9.0 % lower than the same training without events (95 % "
        "interval: 8.0 to 10.0 % lower); non-event days 5.0 % better than the base; no look-ahead found; "
        "against the live version: first.",
    )


@pytest.mark.parametrize(
    ("found", "tone", "headline", "clause", "figure"),
    [
        (gain(), "good", "The events help", "its loss is 9.0 % lower than", "9.0 % lower"),
        (
            gain(0.05, 0.02, 0.08), "good", "The events help, a little",
            "0.50 % lower than the same training without events (95 % interval: 0.20 to 0.80 % lower)",
            "0.50 % lower",
        ),
        (
            gain(0.05, -0.08, 0.14), "open", "No help from the events is shown",
            "0.50 % lower than the same training without events, which may be chance (95 % interval: 1.4 % "
            "lower to 0.80 % higher)",
            "0.50 % lower",
        ),
        (
            gain(-0.2, -0.3, -0.1), "bad", "The events make it worse",
            "2.0 % higher than the same training without events (95 % interval: 1.0 to 3.0 % higher)",
            "2.0 % higher",
        ),
        (
            gain(dates=19), "open", "Too few event dates to say whether the events help",
            "600 targets on 19 event dates are too few for a figure (it takes 30 on 20)", "too few",
        ),
        (
            gain(targets=29), "open", "Too few event dates to say whether the events help",
            "29 targets on 25 event dates are too few for a figure (it takes 30 on 20)", "too few",
        ),
        (
            None, "open", "Whether the events help was not measured",
            "no gain over a control is on file, so nobody knows whether the events help; on event days its "
            "loss is 10.0 % lower than the base's, some of which any adapter gains by seeing recent bars",
            "not measured",
        ),
        (gain(0, 0, 0), "open", "No help from the events is shown", "0.00 % lower than", "0.00 % lower"),
    ],
    ids=["better", "little", "undecided", "worse", "few dates", "few targets", "no control", "no difference"],
)  # fmt: skip
def test_what_the_events_are_worth(
    found: dict[str, Any] | None, tone: str, headline: str, clause: str, figure: str
) -> None:
    said = verdict(a_run(found))
    assert (said.tone, said.headline) == (tone, headline)
    assert clause[1:] in said.sentence
    assert figures(said)["Event days, against no events"] == (figure, tone)


@pytest.mark.parametrize(
    ("quiet", "dates", "clause", "check", "headline"),
    [
        (3.8, 97, "non-event days 5.0 % better than the base", ("5.0 % better", "good"), "The events help"),
        (4.1, 97, "non-event days 2.5 % worse than the base", ("2.5 % worse", "open"), "The events help"),
        (
            4.3, 97, "non-event days 7.5 % worse than the base", ("7.5 % worse", "bad"),
            "The events help, but days without events suffer",
        ),
        (
            4.3, 19, "2,328 targets on 19 dates without events are too few for a figure", ("too few", "open"),
            "The events help",
        ),
    ],
)  # fmt: skip
def test_what_days_without_events_cost(
    quiet: float, dates: int, clause: str, check: tuple[str, str], headline: str
) -> None:
    said = verdict(a_run(gain(), quiet=quiet, quiet_dates=dates))
    assert clause in said.sentence
    assert figures(said)["Other days, against the base"] == check
    assert said.headline == headline


@pytest.mark.parametrize(
    ("audit", "clause", "check"),
    [
        (AUDIT, "; no look-ahead found;", ("none found", "good")),
        (None, "; not audited for look-ahead;", ("not audited", "open")),
        (
            AUDIT | {"verdict": "fail", "findings": 3},
            "; its data may know the future (3 findings of the audit);",
            ("3 findings", "bad"),
        ),
    ],
)
def test_whether_it_may_know_the_future(
    audit: dict[str, Any] | None, clause: str, check: tuple[str, str]
) -> None:
    said = verdict(a_run(gain(), audit=audit))
    assert clause in said.sentence
    assert figures(said)["Knowing the future"] == check
    is_found = audit is not None and audit["findings"] > 0
    assert (said.headline == "Its data may know the future: trust no figure") == is_found
    assert (said.tone == "bad") == is_found


def against(
    event: dict[str, Any] | None, quiet: dict[str, Any] | None, why: str | None = None
) -> dict[str, Any]:
    return {"version": "000001-abc", "manifest_sha256": "0", "event": event, "quiet": quiet, "why_not": why}


@pytest.mark.parametrize(
    ("incumbent", "clause", "check"),
    [
        (None, "against the live version: first.", ("first", "good")),
        (
            against(gain(0.05), gain(-0.02, -0.1, 0.1)),
            "against the live version 000001-abc: event days 0.50 % lower, non-event days 0.20 % higher.",
            ("0.50 % lower", "good"),
        ),
        (
            against(gain(-0.05), gain(0.1)),
            "against the live version 000001-abc: event days 0.50 % higher, non-event days 1.0 % lower.",
            ("0.50 % higher", "bad"),
        ),
        (
            against(gain(0.05), gain(-0.2, -0.3, -0.1)),
            "event days 0.50 % lower, non-event days 2.0 % higher.",
            ("0.50 % lower", "bad"),
        ),
        (
            against(None, None, "other base"),
            "not comparable with the live version 000001-abc (other base).",
            ("not compared", "open"),
        ),
        (
            against(gain(dates=19), gain()),
            "too few event dates to compare it with the live version 000001-abc.",
            ("too few", "open"),
        ),
    ],
    ids=["first", "better", "worse", "worse on other days", "another base", "few dates"],
)
def test_against_the_version_that_serves(
    incumbent: dict[str, Any] | None, clause: str, check: tuple[str, str]
) -> None:
    said = verdict(a_run(gain(), incumbent=incumbent))
    assert said.sentence.endswith(clause)
    assert figures(said)["Against the live version"] == check


def test_a_run_that_compared_with_no_live_version_says_nothing_of_it() -> None:
    run = replace(a_run(gain()), manifest={"data": {"audit": AUDIT}, "metrics": {}})
    assert "live version" not in verdict(run).sentence


@pytest.mark.parametrize(
    ("recorded", "start"),
    [
        (gain(), "When it was trained, on 25 event dates its loss is 9.0 % lower than"),
        ("unknown", "No gain over a control is on file, so nobody knows"),
        (None, "No gain over a control is on file, so nobody knows"),
    ],
)
def test_an_evaluation_says_what_the_adapter_itself_knows(recorded: Any, start: str) -> None:
    said = verdict(evaluation(recorded))
    assert said.sentence.startswith(start)
    assert "non-event days 5.0 % better than the base; no look-ahead found." in said.sentence
    assert "live version" not in said.sentence


@pytest.mark.parametrize(
    ("forecasts", "dates", "found", "check"),
    [
        (30, 20, {"percent": 32.4, "crps": 0.1, "low": 0.05, "high": 0.2}, ("32.4 % lower", "good")),
        (30, 20, {"percent": -3.0, "crps": -0.1, "low": -0.2, "high": -0.05}, ("3.0 % higher", "bad")),
        (30, 20, {"percent": 3.0, "crps": 0.1, "low": -0.1, "high": 0.2}, ("3.0 % lower", "open")),
        (29, 25, {"percent": 32.4, "crps": 0.1, "low": 0.05, "high": 0.2}, ("too few", "open")),
        (500, 19, {"percent": 32.4, "crps": 0.1, "low": 0.05, "high": 0.2}, ("too few", "open")),
    ],
)
def test_a_figure_from_few_forecasts_or_dates_is_no_headline(
    forecasts: int, dates: int, found: dict[str, Any], check: tuple[str, str]
) -> None:
    group = {"by": "day", "steps": "1", "group": "event", "targets": forecasts, "dates": dates}
    run = evaluation(gain(), forecasts={"groups": [group | {"gain": {"base": found}}]})
    assert figures(verdict(run))["Forecasts of event days, against the base"] == check


def test_a_run_that_has_just_begun_has_a_verdict_too() -> None:
    said = verdict(replace(a_run(None), results=None, manifest=None))
    assert said.tone == "open"
    assert said.sentence.endswith("nobody knows whether the events help; not audited for look-ahead.")
