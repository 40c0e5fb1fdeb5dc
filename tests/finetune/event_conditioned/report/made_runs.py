"""Runs as a report reads them, with the figures that a test chooses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kronos_service.finetune.event_conditioned.report.run_record import RunRecord

AUDIT = {"verdict": "pass", "findings": 0, "checked": {"sessions": 7, "splits": 9}, "seed": 0}


def gain(nats: float = 0.9, low: float = 0.8, high: float = 1.0, **sizes: int) -> dict[str, Any]:
    """Of a control with a loss of 10 nats: percents are ten times the nats."""
    size = {"targets": 600, "dates": 25} | sizes
    return {"nats": nats, "low": low, "high": high, "percent": 10 * nats, **size}


def losses(adapter_quiet: float, targets: int = 2328) -> dict[str, Any]:
    def means(event: float, quiet: float) -> dict[str, Any]:
        return {"event": {"total": event, "targets": 600}, "quiet": {"total": quiet, "targets": targets}}

    return {"base": means(10.0, 4.0), "adapter": means(9.0, adapter_quiet)}


def a_run(
    found: dict[str, Any] | None,
    *,
    quiet: float = 3.8,
    quiet_dates: int = 97,
    audit: dict[str, Any] | None = AUDIT,
    incumbent: dict[str, Any] | None = None,
) -> RunRecord:
    return RunRecord(
        directory=Path("runs/mine"),
        config={},
        results={
            "val": losses(quiet),
            "val_dates": {"event": 25, "quiet": quiet_dates},
            "gains": {} if found is None else {"adapter_event": found},
        },
        criteria=None,
        finished=None,
        versions=None,
        manifest={"data": {"audit": audit}, "metrics": {"incumbent": incumbent}},
        ablation=None,
        epochs={},
        evaluations={},
        openings=[],
    )


def evaluation(recorded: Any, **more: Any) -> RunRecord:
    found = {"losses": losses(3.8), "audit": AUDIT, "conditioning_gain": recorded, **more}
    run = a_run(None)
    return replace(run, config=None, results=None, manifest=None, evaluations={"val": found})
