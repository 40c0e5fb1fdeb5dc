"""The `scorecard` command: past forecasts against what came, and an alarm where their coverage is off."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune.event_conditioned.evaluation.scorecard import (
    Coverage,
    recent_coverage,
    scorecard,
)
from kronos_service.finetune.event_conditioned.evaluation.track_record import (
    find_files,
    read_track_record,
)
from kronos_service.finetune.event_conditioned.report.scorecard import BARS, coverage_table, page
from kronos_service.finetune.event_conditioned.report.terminal import show
from kronos_service.finetune.event_conditioned.scorecard.config import ScorecardConfig
from kronos_shared.atomic import replace_file
from kronos_shared.errors import KronosError
from kronos_shared.progress import say


class NothingScoredError(KronosError):
    """No forecast's bar has come."""


def score_forecasts_made(config: ScorecardConfig) -> tuple[dict[str, Any], Sequence[Coverage]]:
    """Write scorecard.json and scorecard.html; returns the figures and the coverage of the last days.

    Raises:
        KronosError: no forecasts, a damaged file, or none whose bar the snapshot has.
    """
    files = find_files(config.forecasts)
    snapshot = load_snapshot(config.snapshot or sample_snapshot_path())
    snapshot.require_daily("the scorecard, whose forecasts are of days,")
    record = read_track_record(files, snapshot)
    if record.scores.empty:
        raise NothingScoredError(
            f"none of {record.pending + record.unknown} forecasts has its bar in snapshot {snapshot.name}: "
            "export newer bars"
        )
    coverage = recent_coverage(record, days=config.alert_days)
    found = scorecard(record) | {
        "snapshot": snapshot.record(),
        "days": config.alert_days,
        "coverage": [asdict(one) for one in coverage],
    }
    config.out.mkdir(parents=True, exist_ok=True)
    replace_file(config.out / "scorecard.json", json.dumps(found, indent=1).encode() + b"\n")
    replace_file(config.out / "scorecard.html", page(found).encode())
    if coverage:
        show(coverage_table(found["coverage"]))
    else:
        say(f"the last {config.alert_days} days have too few target dates to judge the coverage")
    say(f"{found['targets']:,} forecasts scored, {record.pending:,} wait for their bar")
    say(f"page {config.out / 'scorecard.html'}")
    return found, coverage


def exit_code(config: ScorecardConfig, coverage: Sequence[Coverage]) -> int:
    """1 where an alarm was asked for and the coverage of the last days has left its band."""
    outside = [one for one in coverage if not one.is_inside]
    for one in outside:
        say(
            f"alert: {one.version}: {100 * one.share:.1f} % of {one.targets:,} outcomes of the last "
            f"{config.alert_days} days ({BARS[one.steps]}) lie in its {one.interval} % interval, expected "
            f"{100 * one.low:.1f} to {100 * one.high:.1f} %"
        )
    return 1 if config.alert and outside else 0
