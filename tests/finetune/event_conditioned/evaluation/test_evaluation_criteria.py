"""Verdicts follow from the figures, and promotion from the verdicts."""

from dataclasses import replace

import pytest

from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.criteria import (
    MAX_TRAINABLE,
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


@pytest.mark.parametrize(
    ("lora", "event_emb", "rank", "fits"),
    [
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
        ("conditioning gain, tier 1", replace(GOOD, tier1_gain=replace(GAIN, low=-0.01))),
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
        (replace(COMPARED, quiet=replace(EQUAL, nats=-0.05, high=0.01)), "pass"),
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
    assert rank_criterion(replace(GAIN, percent=percent)).verdict == verdict
    assert rank_criterion(None).verdict == "unknown"
