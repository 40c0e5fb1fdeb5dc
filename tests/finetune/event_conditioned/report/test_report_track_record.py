"""The verdict on a track record, and that on a walk-forward."""

from typing import Any

import pytest
from made_runs import gain

from kronos_service.finetune.event_conditioned.report import scorecard, walk_forward


def coverage(share: float, steps: str = "1") -> dict[str, Any]:
    return {
        **{
            "version": "000002-abc",
            "steps": steps,
            "interval": "80",
            "share": share,
            "low": 0.75,
            "high": 0.85,
        },
        **{"targets": 1200, "dates": 60},
    }


@pytest.mark.parametrize(
    ("judged", "tone", "headline", "words"),
    [
        ([], "open", "Too few dates to judge", "The last 90 days have too few target dates"),
        (
            [coverage(0.75), coverage(0.85, "all")], "good", "The intervals hold what they promise",
            "as it says.",
        ),
        (
            [coverage(0.8), coverage(0.7, "all")], "bad", "The intervals are off",
            "70 % of outcomes lie in the 80 % interval of 000002-abc (all bars; expected 75 to 85 %).",
        ),
    ],
)  # fmt: skip
def test_a_track_record_says_whether_intervals_held(
    judged: list[dict[str, Any]], tone: str, headline: str, words: str
) -> None:
    said = scorecard.verdict({"coverage": judged, "days": 90})
    assert (said.tone, said.headline) == (tone, headline)
    assert words in said.sentence
    assert len(said.checks) == len([one for one in judged if one["steps"] == "1"]), (
        "first bars in large print"
    )


def test_the_interval_that_is_off_is_marked() -> None:
    said = scorecard.verdict({"coverage": [coverage(0.8), coverage(0.86)], "days": 90})
    assert [(check.figure, check.tone) for check in said.checks] == [("80 %", "good"), ("86 %", "bad")]


def test_where_the_first_bar_has_too_few_dates_all_bars_are_in_large_print() -> None:
    (check,) = scorecard.verdict({"coverage": [coverage(0.8, "all")], "days": 90}).checks
    assert check.name == "80 % interval, all bars"


def test_the_latest_version_comes_first_and_the_base_alone_last() -> None:
    versions = [{"version": name} for name in ("000001-a", "000002-b", "base")]
    assert [one["version"] for one in scorecard.shown({"versions": versions})] == [
        "000002-b",
        "000001-a",
        "base",
    ]


def walked(found: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    rows = [("day", "event"), ("fold", "2024-01-01, all"), ("fold", "2025-01-01, all")]
    return {
        "gains": [
            {
                "model": "adapter",
                "over": "control",
                "by": by,
                "group": group,
                "gain": found,
                "detectable": 0.1,
            }
            for by, group in rows
            if found
        ],
        "folds": [{}, {}],
        "settings": {"out": "runs/folds", "seeds": [0], "publish": False, "adapter_store": "store"},
        **{"unfinished": [], "published": None},
        **more,
    }


def test_a_walk_forward_pools_its_periods_in_one_verdict() -> None:
    said = walk_forward.verdict(walked(gain()))
    assert said.headline == "The events help, over 2 periods"
    assert said.sentence.startswith("On 25 event dates its loss is 9.0 % lower than the same training")
    third = walk_forward.verdict(walked(gain(), folds=[{}, {}, {}]))
    assert third.headline == "The events help, over 2 of 3 periods"
    assert walk_forward.verdict(walked(None)).tone == "open"


@pytest.mark.parametrize(
    ("found", "command"),
    [
        (
            walked(gain(), unfinished=[["2025", 0]]),
            "finetune walk-forward --out runs/folds --seeds 0 --snapshot mine",
        ),
        (walked(gain()), "finetune walk-forward --out runs/folds --seeds 0 --snapshot mine --publish"),
        (
            walked(gain(), published="000001-a"),
            "KRONOS_ADAPTERS=store python -m kronos_service.inference serve",
        ),
        (walked(gain(0.1, -0.1, 0.2)), "python -m kronos_service.finetune ablate --snapshot mine"),
    ],
    ids=["unfinished", "better", "published", "undecided"],
)
def test_what_comes_after_a_walk_forward(found: dict[str, Any], command: str) -> None:
    step = walk_forward.next_step(found, {"out": "runs/folds", "seeds": [0], "snapshot": "mine"})
    assert step.command.endswith(command)
