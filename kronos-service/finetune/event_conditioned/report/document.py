"""The report of a run: one HTML file, verdict first, every figure as the run's own files have it.

    python -m kronos_service.finetune report runs/mine

event-lora and evaluate write it too. A part that a run does not have is named at the end, with the command
that makes it. The words of the page are in page.html, its look in base.html and report.css, its verdict in
verdict.py, its tables in tables.py and its figures in figures.py.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.config import ReportConfig
from kronos_service.finetune.event_conditioned.evaluation.criteria import ENGINEERING
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.report import (
    drawing,
    figures,
    forecast_tables,
    leaderboard,
    tables,
)
from kronos_service.finetune.event_conditioned.report.next_step import (
    TEST_SPLIT,
    evaluate_command,
    next_step,
    sources,
    train_again,
)
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord, read_run
from kronos_service.finetune.event_conditioned.report.verdict import verdict
from kronos_shared.atomic import replace_file
from kronos_shared.cli import command_line

REPORT: Final = "report.html"
GROUPS: Final = ("day", "all", "family", "asset_class", "month")
SECTIONS: Final[Mapping[str, str]] = {
    "day": "One event day",
    "leaderboard": "Leaderboard",
    "families": "Event families",
    "days": "Event days against non-event days",
    "learning": "Loss curves",
    "forecasts": "Forecasts",
    "calibration": "Calibration",
    "events": "Around an event",
    "test": "Test split",
    "ablation": "Ablation",
    "criteria": "Success criteria",
    "audit": "Audit for look-ahead",
    "missing": "Not in this report",
    "made": "How it was made",
}
TONES: Final = {"good": ("✓", "good:"), "bad": ("✗", "bad:"), "open": ("○", "undecided:")}


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What a run does not have, and how to get it."""

    what: str
    why: str
    command: str = ""


def report(config: ReportConfig) -> Path:
    """Write `report.html` into the run directory and return its path.

    Raises:
        ReportError: there is no run or evaluation, or a file of it is damaged.
    """
    return write_report(config.run, ablation=config.ablation)


def write_report(directory: Path, *, ablation: Path | None = None) -> Path:
    """As `report`."""
    path = directory / REPORT
    replace_file(path, render(read_run(directory, ablation=ablation)).encode())
    return path


def render(run: RunRecord) -> str:
    """The whole page."""
    evaluated = [one["versions"] for one in run.evaluations.values() if "versions" in one]
    criteria = run.criteria or []
    name, gaps = run.directory.resolve().name, list(_gaps(run))
    return fill(
        "page.html",
        title=f"Event-conditioned Kronos: {name}",
        synthetic=_is_synthetic(run),
        sections={
            key: text for key, text in SECTIONS.items() if key in _present(run) or (key == "missing" and gaps)
        },
        name=name,
        run=run,
        subtitle=" · ".join(_subtitle(run)),
        verdict=verdict(run),
        step=next_step(run),
        failed=[one["name"] for one in criteria if one["verdict"] == "fail"],
        open=[
            one["name"] for one in criteria if one["verdict"] == "unknown" and one["name"] not in ENGINEERING
        ],
        findings=[one for one in criteria if one["name"] not in ENGINEERING],
        limits=[one for one in criteria if one["name"] in ENGINEERING],
        limits_failed=sum(one["verdict"] == "fail" for one in criteria if one["name"] in ENGINEERING),
        gaps=gaps,
        forecasts=_forecasts(run),
        curves=[(one, one) for one in (*run.epochs, "base")],
        questions={one["name"]: one["question"] for one in (run.ablation or {"arms": []})["arms"]},
        audit=(run.manifest or {}).get("data", {}).get("audit"),
        adapter=_adapter(run.manifest) if run.manifest else None,
        versions=run.versions or (evaluated[0] if evaluated else None),
        groups=GROUPS,
        fewest_dates=FEWEST_DATES,
    )


def fill(template: str, **given: Any) -> str:
    """A page in the frame that all share; `given` has at least title, synthetic (bool) and sections."""
    room = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(room),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"labelled": _labelled, "shown": tables.shown}
    script = (room / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "tables": tables,
        "forecasting": forecast_tables,
        "leaderboard": leaderboard,
        "figures": figures,
        "merge": tables.merge_alike,
        "key": lambda name: Markup(drawing.key(name)),
        "tones": TONES,
        "style": Markup((room / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
    }
    return environment.get_template(template).render(**given)


def _labelled(drawn: drawing.Drawing, caption: str) -> Markup:
    """The drawing with its title and caption as the text that a screen reader speaks."""
    said = escape(" ".join(f"{drawn.title} {Markup(caption).unescape()}".split()))
    return Markup(drawn.svg.replace('role="img"', f'role="img" aria-label="{said}"', 1))


def _forecasts(run: RunRecord) -> Mapping[str, Any] | None:
    """What the forecasts of the validation split came to, where there are any."""
    found: Mapping[str, Any] | None = run.evaluations.get("val", {}).get("forecasts")
    return found


def _is_synthetic(run: RunRecord) -> bool:
    """Whether the adapter has learned from a sample market, or was evaluated on one."""
    data = [run.manifest["data"]] if run.manifest else []
    seen = [(one["sha256"], one.get("synthetic", False)) for one in data]
    seen += [
        (one.get("snapshot_sha256", ""), one.get("synthetic", False)) for one in run.evaluations.values()
    ]
    return any(is_synthetic(sha256, marked=marked) for sha256, marked in seen)


def _present(run: RunRecord) -> set[str]:
    """The sections that there is something to show in."""
    results, forecasts = run.results or {}, _forecasts(run) or {}
    there = {
        "day": forecasts.get("event_day"),
        "leaderboard": results or forecasts.get("next_bar"),
        "families": results.get("family_gains"),
        "days": results or any("losses" in one for one in run.evaluations.values()),
        "learning": run.epochs,
        "forecasts": forecasts,
        "calibration": forecasts,
        "events": forecasts.get("event_study"),
        "test": run.openings or run.evaluations.get("test"),
        "ablation": run.ablation,
        "criteria": run.criteria,
        "audit": (run.manifest or {}).get("data", {}).get("audit"),
        "made": True,
    }
    return {name for name, found in there.items() if found}


def _gaps(run: RunRecord) -> Iterator[Gap]:
    """What the page would show if the run had it."""
    evaluate, given = evaluate_command(run), sources(run)
    forecasts, results = _forecasts(run), run.results or {}
    why = run.evaluations.get("val", {}).get("why_no_forecasts")
    if forecasts is None:
        text = "No forecasts were made on the validation split" + (f": {why}." if why else ".")
        yield Gap(what="Forecasts", why=text, command=evaluate)
    elif not forecasts.get("event_study"):
        text = "No forecast bar lies within three bars of a high-impact event; more forecasts may."
        yield Gap(what=SECTIONS["events"], why=text, command=evaluate)
    if forecasts is not None and not forecasts.get("event_day"):
        is_old = "event_day" not in forecasts
        text = "These forecasts were made before one was kept." if is_old else "No event is on any next bar."
        yield Gap(what=SECTIONS["day"], why=text, command=evaluate)
    if run.config is not None:
        if run.criteria is None:
            yield Gap(
                what="Success criteria", why="The run has not finished: there is no criteria.json here."
            )
        if not run.epochs:
            yield Gap(what="Loss curves", why="There is no metrics.jsonl here.")
        if run.results is None:
            yield Gap(what="Validation losses", why="There is no results.json here.")
        elif not results.get("gains"):
            text = "No control was trained. Any adapter beats its base a little by seeing recent bars."
            yield Gap(what="Conditioning gain", why=text, command=train_again(run.config))
        if results and not results.get("family_gains"):
            yield Gap(what="Event families", why="There is no results.json here that has them.")
        if run.manifest is not None and not run.manifest["data"].get("audit"):
            audit = command_line(PROGRAM, "audit", {"snapshot": given.get("snapshot")})
            yield Gap(what=SECTIONS["audit"], why="The data of this adapter was not audited.", command=audit)
        if run.ablation is None:
            text = (
                "Ranks, injection points, channels, control and placebo were not compared over several seeds."
            )
            yield Gap(what="Ablation", why=text, command=command_line(PROGRAM, "ablate", given))
    test = run.evaluations.get("test")
    if test is None:
        text = "Not scored here. It stays closed until everything is decided."
        yield Gap(what="Test split", why=text, command=evaluate_command(run, **TEST_SPLIT))
    elif not test.get("forecasts"):
        yield Gap(what="Forecasts of the test split", why="None were made (evaluate --origins 0).")


def _subtitle(run: RunRecord) -> Iterator[str]:
    if run.manifest:
        base, data = run.manifest["base"], run.manifest["data"]
        yield f"base {base['repo']} ({base['content_sha256'][:12]})"
        vouched = "" if data["has_manifest"] else ", flagged: tables without a manifest"
        yield f"snapshot {data['snapshot']} ({data['sha256'][:12]}{vouched})"
    elif run.evaluations:
        one = next(iter(run.evaluations.values()))
        yield f"adapter {one.get('adapter')} on base {one.get('base')}, snapshot {one.get('snapshot')}"
    for split, one in run.evaluations.items():
        if "made_at" in one:
            made = one["made_at"][:16].replace("T", " ")
            yield f"evaluated on {split} ({one['first']} to {one['last']}) at {made} UTC"


def _lora(lora: Mapping[str, Any]) -> str:
    """Layers and scaling are in the manifest where they are not the default."""
    where = f", on {', '.join(lora['target_modules'])}" if "target_modules" in lora else ""
    kinds = "".join(f", {kind}" for kind in ("rslora", "dora") if lora.get(f"use_{kind}"))
    return f"rank {lora['rank']}, alpha {lora['alpha']}{where}{kinds}"


def _adapter(manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = manifest["data"]
    return {
        "created": manifest["created_at"],
        "base": f"{manifest['base']['repo']} {manifest['base']['revision'] or ''}".strip(),
        "base content": manifest["base"]["content_sha256"],
        "tokenizer content": manifest["tokenizer"]["content_sha256"],
        "snapshot content": data["sha256"],
        **{f"{name} targets": " to ".join(span) for name, span in data["splits"].items()},
        "lora": _lora(manifest["lora"]),
        "event embedding": f"injection points {', '.join(manifest['event_embedding']['taps'])}",
        "context": manifest["normalization"]["context"],
    }
