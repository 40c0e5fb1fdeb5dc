"""The success criteria of a run: each with its figure and a verdict, none hidden."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.evaluation.incumbent import Comparison
from kronos_shared.adapter_manifest import AuditRecord

MAX_TRAINABLE = 1_100_000
MAX_HOURS = 4
MAX_ADAPTER_BYTES = 50_000_000
MAX_PEAK_BYTES = 6_000_000_000
MAX_QUIET_RISE = 5.0
MIN_RANK_GAIN = 1.0

FEWEST_TARGETS: Final = 30
FEWEST_DATES: Final = 20
"""From fewer targets or dates a figure is no headline: below 20 dates a 95 % interval covers less than 90
times in 100.
"""

ENGINEERING: Final = ("trainable parameters", "peak GPU memory", "wall time", "adapter size")
"""Criteria on what a run takes, not on what it found."""

GAIN: Final = "conditioning gain"
LATEST: Final = "no worse than LATEST"

NO_CONTROL: Final = "no control was trained (event-lora --control)"

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One line of the verdict; a figure that was not measured is None, and `detail` says why."""

    name: str
    wanted: str
    figure: float | None
    detail: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The figures of a run that the criteria need."""

    fixed_losses: Sequence[float]
    """Loss on the fixed train subset: untrained, then after each epoch."""
    base: Mapping[str, Mapping[str, Any]]
    adapted: Mapping[str, Mapping[str, Any]]
    """Validation summaries as `validation.summarize` gives them."""
    gain: Gain | None
    """Over the control, on all event days."""
    trainable: int
    fitting_rank: int
    """The largest LoRA rank on the same layers with which the trained numbers would be few enough."""
    peak_bytes: int | None
    seconds: float
    adapter_bytes: int
    audit: AuditRecord | None
    tier1: Sequence[str] = DEFAULT_TAXONOMY.tier1
    """The families of the first tier."""
    tier1_gain: Gain | None = None
    """Over the control, on the days of the first tier's releases."""
    comparison: Comparison | None = None
    """With the adapter that it would replace; None where nothing has been published."""


def no_tier1(families: Sequence[str]) -> str:
    """Why there is no gain on tier-1 days."""
    return f"no release of tier 1 ({', '.join(families) or 'empty'}) falls on a validation target"


def judge(run: RunFigures) -> list[Criterion]:
    """Every success criterion of the design, in its order."""
    rises = sum(
        later >= earlier for earlier, later in zip(run.fixed_losses, run.fixed_losses[1:], strict=False)
    )
    event, quiet = (_change(run, group) for group in ("event", "quiet"))
    return [
        _measured(
            "train loss falls every epoch",
            "0 rises",
            rises,
            f"{rises} of {len(run.fixed_losses) - 1} epochs rose",
            rises == 0,
        ),
        _measured("event-day val loss", "below base", event, f"{event:+.2f} % against base", event < 0),
        _measured(
            "quiet-day val loss",
            f"<= base + {MAX_QUIET_RISE:g} %",
            quiet,
            f"{quiet:+.2f} % against base",
            quiet <= MAX_QUIET_RISE,
        ),
        _gain(GAIN, run.gain, NO_CONTROL),
        _gain(f"{GAIN}, tier 1", run.tier1_gain, NO_CONTROL if run.gain is None else no_tier1(run.tier1)),
        _measured(
            "trainable parameters",
            f"< {MAX_TRAINABLE:,}",
            run.trainable,
            _trainable(run),
            run.trainable < MAX_TRAINABLE,
        ),
        _peak(run.peak_bytes),
        _measured(
            "wall time",
            f"< {MAX_HOURS} h",
            run.seconds,
            f"{run.seconds / 60:.1f} min",
            run.seconds < MAX_HOURS * 3600,
        ),
        _measured(
            "adapter size",
            f"< {MAX_ADAPTER_BYTES // 10**6} MB",
            run.adapter_bytes,
            f"{run.adapter_bytes / 1e6:.2f} MB",
            run.adapter_bytes < MAX_ADAPTER_BYTES,
        ),
        _leakage(run.audit),
        *([_no_worse(run.comparison)] if run.comparison else []),
    ]


def obstacles(criteria: Sequence[Criterion], *, require_gain: bool) -> list[Criterion]:
    """What speaks against promotion: of the criteria on event and on non-event days, on the adapter that it
    would replace, and on the gain where that is required, those that do not hold or were not measured.
    """
    needed = {"event-day val loss", "quiet-day val loss", LATEST} | ({GAIN} if require_gain else set())
    return [one for one in criteria if one.name in needed and one.verdict != "pass"]


def may_promote(criteria: Sequence[Criterion], *, require_gain: bool) -> bool:
    """Whether nothing speaks against promotion."""
    return not obstacles(criteria, require_gain=require_gain)


def is_headline(targets: int, dates: int) -> bool:
    """Whether a figure rests on enough targets and dates to stand alone in large print."""
    return targets >= FEWEST_TARGETS and dates >= FEWEST_DATES


def rank_criterion(gain: Gain | None) -> Criterion:
    """The verdict on rank 8's gain over rank 4 on event days; None if it was not measured."""
    name, wanted = "rank 8 beats rank 4", f">= {MIN_RANK_GAIN:g} % on event days"
    if gain is None:
        return Criterion(
            name=name, wanted=wanted, figure=None, detail="needs both ranks (ablate)", verdict="unknown"
        )
    return _measured(name, wanted, gain.percent, _interval(gain), gain.percent >= MIN_RANK_GAIN)


def _interval(gain: Gain) -> str:
    return f"{gain.nats:+.4f} nats ({gain.percent:+.2f} %), 95 % [{gain.low:+.4f}, {gain.high:+.4f}]"


def _measured(name: str, wanted: str, figure: float, detail: str, holds: bool) -> Criterion:
    return Criterion(
        name=name, wanted=wanted, figure=figure, detail=detail, verdict="pass" if holds else "fail"
    )


def fitting_rank(*, lora: int, event_emb: int, rank: int) -> int:
    """The largest rank that keeps all trained numbers under the criterion; 0 where none does.

    Args:
        lora, event_emb: how many numbers of each are trained.
        rank: LoRA's, to which its numbers are proportional.
    """
    return max(MAX_TRAINABLE - 1 - event_emb, 0) * rank // lora if lora else rank


def _trainable(run: RunFigures) -> str:
    detail = f"{run.trainable:,}"
    if run.trainable < MAX_TRAINABLE:
        return detail
    return detail + (f"; rank {run.fitting_rank} would fit" if run.fitting_rank else "; no rank would fit")


def _change(run: RunFigures, group: str) -> float:
    """Adapted against base total loss, in percent."""
    adapted, base = float(run.adapted[group]["total"]), float(run.base[group]["total"])
    return 100 * (adapted / base - 1)


def _gain(name: str, gain: Gain | None, why_none: str) -> Criterion:
    wanted = "interval above 0"
    if gain is None:
        return Criterion(name=name, wanted=wanted, figure=None, detail=why_none, verdict="unknown")
    return _measured(name, wanted, gain.nats, _interval(gain), gain.low > 0)


def _no_worse(found: Comparison) -> Criterion:
    """On event days by the mean; on the others, where less is at stake, beyond what chance explains."""
    wanted = "event loss not above it, non-event loss not surely above it"
    if found.event is None or found.quiet is None:
        detail = f"not comparable with {found.version}: {found.why_not}"
        return Criterion(name=LATEST, wanted=wanted, figure=None, detail=detail, verdict="unknown")
    detail = f"over {found.version}: event {_interval(found.event)}; non-event {_interval(found.quiet)}"
    holds = found.event.nats >= 0 and found.quiet.high >= 0
    return _measured(LATEST, wanted, found.event.nats, detail, holds)


def _leakage(audit: AuditRecord | None) -> Criterion:
    name, wanted = "no leakage", "audit passes"
    if audit is None:
        return Criterion(name=name, wanted=wanted, figure=None, detail="not audited", verdict="unknown")
    detail = f"quick audit: {audit.findings} findings in {len(audit.checked)} checks"
    return _measured(name, wanted, audit.findings, detail, audit.verdict == "pass")


def _peak(peak: int | None) -> Criterion:
    name, wanted = "peak GPU memory", f"< {MAX_PEAK_BYTES / 1e9:g} GB"
    if peak is None:
        return Criterion(name=name, wanted=wanted, figure=None, detail="trained on a CPU", verdict="unknown")
    return _measured(name, wanted, peak, f"{peak / 1e9:.2f} GB", peak < MAX_PEAK_BYTES)
