"""Verdicts follow from the figures, and promotion from the verdicts."""

from dataclasses import asdict, replace

import pytest

from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.criteria import (
    ENGINEERING,
    MAX_TRAINABLE,
    NO_CONTROL,
    Criterion,
    RunFigures,
    fitting_rank,
    is_headline,
    judge,
    may_promote,
    rank_criterion,
)
from kronos_service.finetune.event_conditioned.evaluation.incumbent import Comparison
from kronos_shared.adapter_manifest import AuditRecord

GAIN = Gain(nats=0.2, low=0.1, high=0.3, percent=2.5, targets=100, dates=20)
AUDIT = AuditRecord(verdict="pass", checked={"event channels": 64}, findings=0, seed=0)
GOOD = RunFigures(
    fixed_losses=[3.0, 2.0, 1.0],
    base={"event": {"total": 8.0}, "quiet": {"total": 7.0}},
    adapted={"event": {"total": 7.6}, "quiet": {"total": 7.0}},
    gain=GAIN,
    tier1_gain=GAIN,
    trainable=1_032_128,
    peak_bytes=3_000_000_000,
    seconds=3600.0,
    adapter_bytes=4_200_000,
    fitting_rank=9,
    audit=AUDIT,
)


def verdicts(run: RunFigures) -> dict[str, str]:
    return {one.name: one.verdict for one in judge(run)}


def test_a_good_run_passes_all_of_its_criteria_and_has_none_about_another_run() -> None:
    assert set(verdicts(GOOD).values()) == {"pass"}
    assert not any("rank" in name for name in verdicts(GOOD))


def test_each_criterion_is_shown_with_what_is_wanted_and_what_was_found() -> None:
    run = replace(GOOD, comparison=COMPARED)
    gain = "+0.2000 nats (+2.50 %), 95 % [+0.1000, +0.3000]"
    equal = "+0.0000 nats (+2.50 %), 95 % [-0.1000, +0.1000]"
    assert [(one.name, one.wanted, one.figure, one.detail) for one in judge(run)] == [
        ("train loss falls every epoch", "0 rises", 0, "0 of 2 epochs rose"),
        ("event-day val loss", "below base", pytest.approx(-5.0), "-5.00 % against base"),
        ("quiet-day val loss", "<= base + 5 %", 0.0, "+0.00 % against base"),
        ("conditioning gain", "interval above 0", 0.2, gain),
        ("conditioning gain, tier 1", "interval above 0", 0.2, gain),
        ("trainable parameters", "< 1,100,000", 1_032_128, "1,032,128"),
        ("peak GPU memory", "< 6 GB", 3_000_000_000, "3.00 GB"),
        ("wall time", "< 4 h", 3600.0, "60.0 min"),
        ("adapter size", "< 50 MB", 4_200_000, "4.20 MB"),
        ("no leakage", "audit passes", 0, "quick audit: 0 findings in 1 checks"),
        (
            "no worse than LATEST",
            "event loss not above it, non-event loss not surely above it",
            0.0,
            f"over 000001-aaaaaaaaaaaa: event {equal}; non-event {equal}",
        ),
    ]
    assert set(ENGINEERING) == {one.name for one in judge(run)[5:9]}


def test_what_was_not_measured_is_shown_with_what_is_wanted_all_the_same() -> None:
    run = replace(
        GOOD,
        gain=None,
        tier1_gain=None,
        peak_bytes=None,
        audit=None,
        comparison=replace(COMPARED, event=None, quiet=None, why_not="made for base x"),
    )
    whole = {one.name: one for one in judge(replace(GOOD, comparison=COMPARED))}
    unknown = [one for one in judge(run) if one.verdict == "unknown"]
    assert [(one.name, one.figure, one.detail) for one in unknown] == [
        ("conditioning gain", None, NO_CONTROL),
        ("conditioning gain, tier 1", None, NO_CONTROL),
        ("peak GPU memory", None, "trained on a CPU"),
        ("no leakage", None, "not audited"),
        ("no worse than LATEST", None, "not comparable with 000001-aaaaaaaaaaaa: made for base x"),
    ]
    assert all(one.wanted == whole[one.name].wanted for one in unknown)
    assert NO_CONTROL == "no control was trained (event-lora --control)"


@pytest.mark.parametrize(
    ("lora", "event_emb", "rank", "fits"),
    [
        (8, 1_099_998, 8, 1),  # one number fewer than the limit
        (319_488, 712_640, 8, 9),  # Kronos-base, q_proj and v_proj
        (1_541_632, 712_640, 8, 2),  # Kronos-base, all-linear
        (1_541_632, 1_200_000, 8, 0),
        (0, 712_640, 8, 8),
    ],
)
def test_too_many_trained_numbers_are_said_with_the_rank_that_would_fit(
    lora: int, event_emb: int, rank: int, fits: int
) -> None:
    assert fitting_rank(lora=lora, event_emb=event_emb, rank=rank) == fits
    assert not lora or not fits or lora // rank * fits + event_emb < MAX_TRAINABLE
    assert lora // rank * (fits + 1) + event_emb >= MAX_TRAINABLE or not lora
    run = replace(GOOD, trainable=2_254_272, fitting_rank=fits)
    (found,) = [one for one in judge(run) if one.name == "trainable parameters"]
    assert found.verdict == "fail"
    assert found.detail == f"2,254,272; {f'rank {fits}' if fits else 'no rank'} would fit"


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("train loss falls every epoch", replace(GOOD, fixed_losses=[3.0, 2.0, 2.0])),
        ("event-day val loss", replace(GOOD, adapted={"event": {"total": 8.0}, "quiet": {"total": 7.0}})),
        ("quiet-day val loss", replace(GOOD, adapted={"event": {"total": 7.6}, "quiet": {"total": 7.36}})),
        ("conditioning gain", replace(GOOD, gain=replace(GAIN, low=-0.01))),
        ("conditioning gain, tier 1", replace(GOOD, tier1_gain=replace(GAIN, low=0.0))),
        ("trainable parameters", replace(GOOD, trainable=1_100_000)),
        ("peak GPU memory", replace(GOOD, peak_bytes=6_000_000_000)),
        ("wall time", replace(GOOD, seconds=4 * 3600.0)),
        ("adapter size", replace(GOOD, adapter_bytes=50_000_000)),
        (
            "no leakage",
            replace(GOOD, audit=AUDIT.model_copy(update={"verdict": "fail", "findings": 1})),
        ),
    ],
)
def test_each_criterion_fails_on_its_own(name: str, run: RunFigures) -> None:
    before, after = verdicts(GOOD), verdicts(run)
    assert before[name] == "pass"
    assert {key for key in after if after[key] != before[key]} == {name}
    assert after[name] == "fail"


def test_what_was_not_measured_is_unknown_and_says_why() -> None:
    run = replace(GOOD, gain=None, tier1_gain=None, peak_bytes=None, audit=None)
    details = {one.name: one.detail for one in judge(run) if one.verdict == "unknown"}
    assert "--control" in details["conditioning gain"]
    assert "--control" in details["conditioning gain, tier 1"]
    assert "CPU" in details["peak GPU memory"]
    assert "not audited" in details["no leakage"]


def test_a_validation_without_a_release_of_the_first_tier_says_so() -> None:
    (tier1,) = (one for one in judge(replace(GOOD, tier1_gain=None)) if one.name.endswith("tier 1"))
    assert (tier1.verdict, tier1.figure) == ("unknown", None)
    assert "fomc_rate, cpi, nfp" in tier1.detail


@pytest.mark.parametrize(
    ("targets", "dates", "large"), [(30, 20, True), (29, 29, False), (1000, 19, False), (5, 4, False)]
)
def test_a_headline_rests_on_thirty_targets_and_twenty_dates(targets: int, dates: int, large: bool) -> None:
    assert is_headline(targets, dates) == large


def promotable(run: RunFigures, *, require_gain: bool = False) -> bool:
    criteria: list[Criterion] = judge(run)
    return may_promote(criteria, require_gain=require_gain)


def test_promotion_needs_event_and_quiet_and_the_gain_only_where_required() -> None:
    no_gain = replace(GOOD, gain=replace(GAIN, low=-0.01))
    assert promotable(GOOD, require_gain=True)
    assert promotable(no_gain)
    assert not promotable(no_gain, require_gain=True)
    assert not promotable(replace(GOOD, gain=None), require_gain=True)
    assert not promotable(replace(GOOD, adapted={"event": {"total": 8.1}, "quiet": {"total": 7.0}}))
    assert not promotable(replace(GOOD, adapted={"event": {"total": 7.1}, "quiet": {"total": 7.4}}))


EQUAL = replace(GAIN, nats=0.0, low=-0.1, high=0.1)
COMPARED = Comparison(
    version="000001-aaaaaaaaaaaa", manifest_sha256="a" * 64, event=EQUAL, quiet=EQUAL, why_not=None
)


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (COMPARED, "pass"),
        (replace(COMPARED, event=replace(EQUAL, nats=-0.001)), "fail"),
        (replace(COMPARED, quiet=replace(EQUAL, nats=-0.05, high=0.0)), "pass"),
        (replace(COMPARED, quiet=replace(EQUAL, nats=-0.05, high=-0.01)), "fail"),
        (replace(COMPARED, event=None, quiet=None, why_not="made for base x"), "unknown"),
    ],
)
def test_promotion_needs_an_adapter_that_is_no_worse_than_latest(
    comparison: Comparison, verdict: str
) -> None:
    run = replace(GOOD, comparison=comparison)
    assert verdicts(run)["no worse than LATEST"] == verdict
    assert promotable(run) == (verdict == "pass")
    (found,) = (one for one in judge(run) if one.name == "no worse than LATEST")
    assert "000001-aaaaaaaaaaaa" in found.detail
    assert comparison.why_not is None or comparison.why_not in found.detail


@pytest.mark.parametrize(("percent", "verdict"), [(0.99, "fail"), (1.0, "pass")])
def test_rank_8_must_beat_rank_4_by_one_percent(percent: float, verdict: str) -> None:
    about = {"name": "rank 8 beats rank 4", "wanted": ">= 1 % on event days"}
    detail = f"+0.2000 nats (+{percent:.2f} %), 95 % [+0.1000, +0.3000]"
    assert asdict(rank_criterion(replace(GAIN, percent=percent))) == {
        **about,
        "figure": percent,
        "detail": detail,
        "verdict": verdict,
    }
    unknown = {"figure": None, "detail": "needs both ranks (ablate)", "verdict": "unknown"}
    assert asdict(rank_criterion(None)) == about | unknown
