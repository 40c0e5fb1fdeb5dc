"""The report of a run: one HTML file, verdict first, every figure as the run's own files have it.

    python -m kronos_service.finetune report runs/mine

event-lora and evaluate write it too. What a run does not have is named in the place where it would be. The
words of the page are in page.html, its tables in tables.py, its figures in figures.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.config import ReportConfig
from kronos_service.finetune.event_conditioned.evaluation.criteria import is_headline
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.report import figures, tables
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord, read_run
from kronos_shared.atomic import replace_file
from kronos_shared.cli import command_line

REPORT = "report.html"
GROUPS = ("day", "all", "family", "asset_class", "month")


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
    evaluated = [one["versions"] for one in run.evaluations.values()]
    return (
        environment()
        .get_template("page.html")
        .render(
            run=run,
            title=f"Event-conditioned Kronos: {run.directory.resolve().name}",
            subtitle=" · ".join(_subtitle(run)),
            tiles=list(_tiles(run)),
            forecasts=_forecasts(run),
            evaluate=_evaluate_command(run),
            questions={one["name"]: one["question"] for one in (run.ablation or {"arms": []})["arms"]},
            audit=(run.manifest or {}).get("data", {}).get("audit"),
            adapter=_adapter(run.manifest) if run.manifest else None,
            versions=run.versions or (evaluated[0] if evaluated else None),
            groups=GROUPS,
            fewest_dates=FEWEST_DATES,
            figures=figures,
        )
    )


def environment() -> Environment:
    """Where the templates are and how they are filled."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["labelled"] = _labelled
    templates.globals["tables"] = tables
    return templates


def _labelled(svg: str, caption: str) -> Markup:
    """The drawing with its caption as the text that a screen reader speaks."""
    return Markup(
        svg.replace('role="img"', f'role="img" aria-label="{escape(Markup(caption).unescape())}"', 1)
    )


def _forecasts(run: RunRecord) -> Mapping[str, Any] | None:
    """What the forecasts of the validation split came to, where there are any."""
    found: Mapping[str, Any] | None = run.evaluations.get("val", {}).get("forecasts")
    return found


def _subtitle(run: RunRecord) -> Iterator[str]:
    if run.manifest:
        base, data = run.manifest["base"], run.manifest["data"]
        yield f"base {base['repo']} ({base['content_sha256'][:12]})"
        vouched = "" if data["has_manifest"] else ", flagged: tables without a manifest"
        yield f"snapshot {data['snapshot']} ({data['sha256'][:12]}{vouched})"
    for split, one in run.evaluations.items():
        yield f"evaluated on {split}, {one['first']} to {one['last']}, {one['made_at']}"


def _tiles(run: RunRecord) -> Iterator[tuple[str, str, str]]:
    """The numbers that matter most: each with what it is and how sure it is, and none from too few dates."""
    results = run.results or {}
    gains = results.get("gains", {})
    for name, days in (("adapter_event", "event days"), ("adapter_tier1", "tier 1")):
        if name in gains:
            gain = gains[name]
            limits = f"nats over the control, 95 % {tables.interval(*tables.limits(gain))}"
            yield _tile(f"{gain['nats']:+.4f}", f"conditioning gain, {days}", gain, limits)
    if results:
        base, adapted = (results["val"][name] for name in ("base", "adapter"))
        for group in ("event", "quiet"):
            change = 100 * (adapted[group]["total"] / base[group]["total"] - 1)
            dates = results.get("val_dates", {}).get(group, gains.get(f"adapter_{group}", {}).get("dates", 0))
            sizes = {"targets": adapted[group]["targets"], "dates": dates}
            what = f"val loss against base, {tables.shown(group)} days"
            yield _tile(f"{change:+.2f} %", what, sizes, f"{tables.count(sizes['targets'])} targets")
    for one in tables.forecast_groups(_forecasts(run) or {"groups": []}, "1", ("day",)):
        what = f"CRPS against base, {tables.shown(one['group'])} days, next bar"
        counted = f"{tables.count(one['targets'])} forecasts"
        yield _tile(f"{-one['gain']['base']['percent']:+.1f} %", what, one, counted)


def _tile(number: str, what: str, sizes: Mapping[str, Any], more: str) -> tuple[str, str, str]:
    """A tile with its number, or without it where it rests on too few targets or dates."""
    targets, dates = sizes["targets"], sizes["dates"]
    if is_headline(targets, dates):
        return number, what, more
    return tables.NOTHING, what, f"too few for a figure here: {tables.count(targets)} on {dates} dates"


def _evaluate_command(run: RunRecord) -> str:
    """The command that makes forecasts, with the flags that this run was given."""
    config = run.config or {}
    names = ("snapshot", "base_model", "revision", "tokenizer", "tokenizer_revision")
    given = {name: config.get(name) for name in names}
    return command_line(PROGRAM, "evaluate", {"adapter": run.directory / "adapter", **given})


def _adapter(manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = manifest["data"]
    return {
        "created": manifest["created_at"],
        "base": f"{manifest['base']['repo']} {manifest['base']['revision'] or ''}".strip(),
        "base content": manifest["base"]["content_sha256"],
        "tokenizer content": manifest["tokenizer"]["content_sha256"],
        "snapshot content": data["sha256"],
        **{f"{name} targets": " to ".join(span) for name, span in data["splits"].items()},
        "lora": f"rank {manifest['lora']['rank']}, alpha {manifest['lora']['alpha']}",
        "event embedding": f"injection points {', '.join(manifest['event_embedding']['taps'])}",
        "context": manifest["normalization"]["context"],
    }
