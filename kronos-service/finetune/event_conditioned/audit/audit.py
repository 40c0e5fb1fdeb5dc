"""The audit: was anything known to the model before it was known to the world?

A slow and obvious second computation (`sessions`, `rows`, `recompute`) of what the dataset gives the model is
compared bit for bit at a seeded draw of `positions`; `scramble` changes the future of the user's own data and
expects the same inputs. No code is shared with the encoder, so an error in either shows as a difference.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from kronos_service.data.plausibility import Departure, bar_departures, calendar_departures
from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.manifest import is_sample
from kronos_service.data.snapshot.read import Snapshot, load_snapshot
from kronos_service.events.sessions import DAILY
from kronos_service.finetune.event_conditioned.audit import terminal
from kronos_service.finetune.event_conditioned.audit.alignment import check_days
from kronos_service.finetune.event_conditioned.audit.checks import (
    check_leaders,
    check_rows,
    check_scramble,
    check_tokens,
    check_windows,
)
from kronos_service.finetune.event_conditioned.audit.findings import Audit
from kronos_service.finetune.event_conditioned.audit.positions import (
    context_positions,
    draw_positions,
    draw_symbols,
    scored_positions,
)
from kronos_service.finetune.event_conditioned.audit.rows import read_rows
from kronos_service.finetune.event_conditioned.audit.scramble import only
from kronos_service.finetune.event_conditioned.audit.tables import (
    check_bars,
    check_channels,
    check_sessions,
    check_splits,
)
from kronos_service.finetune.event_conditioned.config import LONGEST_CONTEXT, AuditConfig, EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.splits import SplitError, Splits, build_splits
from kronos_service.model.factory import Bundle, load_bundle
from kronos_shared.adapter_manifest import AuditRecord
from kronos_shared.errors import KronosError
from kronos_shared.progress import working


class LeakageError(KronosError):
    """The quick audit before training found inputs that know the future."""


@dataclass(frozen=True, kw_only=True)
class AuditSize:
    """How much an audit draws."""

    symbols: int
    """Symbols that everything else is drawn from."""
    rows: int
    """Scored positions whose channels are recomputed, and as many earlier ones of their windows."""
    windows: int
    """Windows whose bars are normalised, and tokenised, again."""
    futures: int
    """Positions after which the future is scrambled."""


QUICK = AuditSize(symbols=4, rows=64, windows=6, futures=4)
FULL = AuditSize(symbols=16, rows=1_000, windows=100, futures=60)


def audit(snapshot: Snapshot, splits: Splits, bundle: Bundle, *, quick: bool, seed: int = 0) -> Audit:
    """Audit the datasets of the splits, which must come from this snapshot and this bundle's tokenizer.

    Raises:
        SplitError: there are no targets to look at.
    """
    return run_checks(snapshot, splits, bundle, size=QUICK if quick else FULL, quick=quick, seed=seed)


def run_checks(
    snapshot: Snapshot, splits: Splits, bundle: Bundle, *, size: AuditSize, quick: bool, seed: int
) -> Audit:
    """As `audit`, with a size of the caller's choice."""
    rng = Random(seed)
    names = [one.symbol for one in splits.series]
    symbols = draw_symbols(names, [one.asset_class for one in splits.series], size.symbols, rng)
    rows = read_rows(snapshot, symbols)
    positions = scored_positions(splits, symbols)
    if not positions:
        raise SplitError(
            "expected targets to audit, got none: export more history or move the split dates "
            "(--train-start, --val-start, --test-start, --test-end)"
        )
    datasets = {name: splits.dataset(name) for name, split in splits.splits.items() if split.windows}
    drawn, windows, futures = (
        draw_positions(positions, splits, rows, count, rng)
        for count in (size.rows, size.windows, size.futures)
    )
    drawn += context_positions(drawn, rng)
    stamps = snapshot.bars["ts"]
    checks = [
        check_sessions(rows, stamps.min().date(), stamps.max().date(), snapshot.interval),
        check_bars(snapshot, rows),
        check_splits(splits),
        check_rows(rows, datasets, drawn),
        check_leaders(rows, datasets, drawn),
        check_windows(rows, datasets, windows),
        check_tokens(bundle, datasets, windows),
        check_scramble(snapshot, rows, bundle, futures, seed),
        *([check_days(snapshot)] if snapshot.interval == DAILY else []),
        check_channels(splits),
    ]
    return Audit(checks=checks, quick=quick, seed=seed)


def require_no_leak(snapshot: Snapshot, splits: Splits, bundle: Bundle, *, seed: int) -> AuditRecord:
    """The record of a quick audit that found no look-ahead; the caller reports dead channels.

    Raises:
        LeakageError: it found some; the rows are printed.
    """
    audited = audit(snapshot, splits, bundle, quick=True, seed=seed)
    if audited.leaks:
        terminal.show_findings(audited)
        check, first = audited.leaks[0]
        raise LeakageError(
            f"the quick audit found {len(audited.leaks):,} rows that may know the future (the first, "
            f"{check}: {first.where}, {first.what}), so nothing was trained: fix the data, or report a bug; "
            "the command audit shows all checks"
        )
    return audited.record()


def find_departures(snapshot: Snapshot) -> tuple[Departure, ...] | None:
    """What differs from what is public; None where nothing is, in a sample market."""
    manifest = snapshot.manifest or {}
    if is_sample(str(manifest.get("source", ""))):
        return None
    read_at = manifest.get("calendar_read_at")
    now = datetime.fromisoformat(read_at) if read_at else datetime.now(UTC)
    days = snapshot.bars["ts"]
    reach = (days.min().date(), days.max().date())
    found = calendar_departures(snapshot.calendar, now=now, bars=reach, taxonomy=snapshot.taxonomy)
    return (*found, *bar_departures(snapshot.bars, snapshot.symbols, snapshot.interval))


def accepted(snapshot: Snapshot, config: AuditConfig) -> tuple[str, ...]:
    """The departures that were accepted when the snapshot was made, or are now."""
    before = (snapshot.manifest or {}).get("accepted", [])
    return (*map(str, before), *config.accept)


def audit_snapshot(config: AuditConfig) -> Audit:
    """Audit a snapshot with the split dates of the settings, event-lora's by default, and print it.

    Raises:
        KronosError: the snapshot or the base cannot be used at all.
    """
    settings, size = EventLoraConfig(), QUICK if config.quick else FULL
    dates = config.split_dates()
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    bundle = load_bundle(
        config.base_model,
        revision=config.revision,
        tokenizer=config.tokenizer,
        tokenizer_revision=config.tokenizer_revision,
        taxonomy=snapshot.taxonomy,
    )
    tradable = snapshot.symbols[snapshot.symbols["tradable"]]
    symbols = draw_symbols(
        tradable["symbol"].tolist(), tradable["asset_class"].tolist(), size.symbols, Random(config.seed)
    )
    with working("recomputing what was known when"), TemporaryDirectory() as cache:
        splits = build_splits(
            only(snapshot, symbols),
            bundle,
            dates=dates,
            context=min(bundle.context, LONGEST_CONTEXT),
            scored=settings.targets_per_window,
            cache=Path(cache),
        )
        audited = audit(snapshot, splits, bundle, quick=config.quick, seed=config.seed)
    audited = replace(audited, departures=find_departures(snapshot), accepted=accepted(snapshot, config))
    terminal.show(audited, snapshot)
    return audited
