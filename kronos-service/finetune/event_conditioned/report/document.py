"""The report of a run: one HTML file, verdict first, every figure as the run's own files have it.

    kronos-finetune report runs/mine

event-lora and evaluate write it too. What a run does not have is named in the place where it would be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kronos_service.finetune.event_conditioned.config import ReportConfig
from kronos_service.finetune.event_conditioned.evaluation.summary import FEWEST_DATES
from kronos_service.finetune.event_conditioned.report import figures, forecasts, html, tables
from kronos_service.finetune.event_conditioned.report.forecasts import forecasts_of
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord, read_run
from kronos_shared.atomic import replace_file

REPORT = "report.html"


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
    return html.page(
        f"Event-conditioned Kronos: {run.directory.resolve().name}",
        _subtitle(run),
        [
            ("verdict", "Verdict", _verdict(run)),
            ("learning", "Loss curves", _learning(run)),
            ("days", "Event days against quiet days", _days(run)),
            ("families", "Event families", _families(run)),
            ("forecasts", "Forecasts", forecasts.scores(run)),
            ("calibration", "Calibration", forecasts.calibration(run)),
            ("events", "Around an event", forecasts.event_study(run)),
            ("test", "Test split", forecasts.test_split(run)),
            ("ablation", "Ablation", _ablation(run)),
            ("audit", "Audit for look-ahead", _audit(run)),
            ("made", "How it was made", _made(run)),
        ],
    )


def _subtitle(run: RunRecord) -> str:
    manifest, parts = run.manifest, []
    if manifest:
        parts.append(f"base {manifest['base']['repo']} ({manifest['base']['content_sha256'][:12]})")
        data = manifest["data"]
        vouched = "" if data["has_manifest"] else ", flagged: tables without a manifest"
        parts.append(f"snapshot {data['snapshot']} ({data['sha256'][:12]}{vouched})")
    for split, one in run.evaluations.items():
        parts.append(f"evaluated on {split}, {one['first']} to {one['last']}, {one['made_at']}")
    return " · ".join(parts)


def _verdict(run: RunRecord) -> str:
    if run.criteria is None:
        return html.missing("No criteria: this directory has no finished run of event-lora.") + _tiles(run)
    failed = [one["name"] for one in run.criteria if one["verdict"] == "fail"]
    unknown = [one["name"] for one in run.criteria if one["verdict"] == "unknown"]
    promoted = (run.finished or {}).get("promoted")
    text = f"Promoted as {promoted}." if promoted else "Not promoted."
    text += f" Failed: {', '.join(failed)}." if failed else " No criterion failed."
    text += f" Unknown: {', '.join(unknown)}." if unknown else ""
    return html.paragraph(text, "verdict") + _tiles(run) + html.table(tables.criteria(run.criteria))


def _tiles(run: RunRecord) -> str:
    found = []
    gain = (run.results or {}).get("gains", {}).get("adapter_event")
    if gain:
        limits = f"nats over the control, 95 % {tables.interval(gain['low'], gain['high'])}"
        found.append((f"{gain['nats']:+.4f}", "conditioning gain, event days", limits))
    if run.results:
        base, adapted = (run.results["val"][name] for name in ("base", "adapter"))
        for group in ("event", "quiet"):
            change = 100 * (adapted[group]["total"] / base[group]["total"] - 1)
            counted = f"{tables.count(adapted[group]['targets'])} targets"
            found.append((f"{change:+.2f} %", f"val loss against base, {group} days", counted))
    forecasts = forecasts_of(run, "val")
    if forecasts:
        for group in ("event", "quiet"):
            found += _crps_tile(forecasts, group)
    return html.tiles(found) if found else ""


def _crps_tile(forecasts: dict[str, Any], group: str) -> list[tuple[str, str, str]]:
    chosen = [one for one in forecasts["groups"] if (one["group"], one["steps"]) == (group, "1")]
    return [
        (
            f"{-one['gain']['base']['percent']:+.1f} %",
            f"CRPS against base, {group} days, next bar",
            f"{tables.count(one['targets'])} forecasts",
        )
        for one in chosen
    ]


def _learning(run: RunRecord) -> str:
    if not run.epochs:
        return html.missing("No loss curves: there is no metrics.jsonl here.")
    last = {arm: lines[-1]["epoch"] for arm, lines in run.epochs.items()}
    caption = (
        "Loss in nats per target after each epoch, in eval mode. Epoch 0 is untrained: there the adapter "
        f"equals its base. Last epochs: {', '.join(f'{arm} {epoch}' for arm, epoch in last.items())}."
    )
    return html.drawing(figures.loss_curves(run.epochs), caption)


def _days(run: RunRecord) -> str:
    if run.results is None:
        return html.missing("No validation losses: there is no results.json here.")
    text = html.table(tables.losses(run.results["val"], "Validation loss (nats per target)"))
    if not run.results["gains"]:
        return text + html.missing(
            "The conditioning gain is unknown: no control was trained. Any adapter beats its base a little "
            "by seeing recent bars; add",
            "--control",
        )
    return (
        text
        + html.table(tables.gains(run.results["gains"]))
        + html.paragraph(
            "The control is the same training with all event channels zeroed. Differences are paired by "
            "target; intervals come from a block bootstrap over dates.",
            "note",
        )
    )


def _families(run: RunRecord) -> str:
    found = (run.results or {}).get("family_gains")
    if not found:
        return html.missing("No losses per event family: there is no results.json here that has them.")
    reference = "control" if "control" in found else "base"
    rows = [
        (f"{name.replace('_', ' ')} ({one['dates']})", one["nats"], *_limits(one))
        for name, one in found[reference].items()
    ]
    caption = (
        f"How much lower the adapter's loss is than the {reference}'s on the bars of each family's "
        "high-impact events, with 95 % intervals; in brackets the number of dates. With fewer than 20 dates "
        "an interval is too narrow, and with fewer than 5 there is none."
    )
    text = html.drawing(figures.dots(rows, f"gain over the {reference}, nats per target"), caption)
    return text + "".join(
        html.table(tables.family_gains(gains, f"Gain over the {name} per event family"))
        for name, gains in found.items()
    )


def _limits(gain: dict[str, Any]) -> tuple[float | None, float | None]:
    return (gain["low"], gain["high"]) if gain["dates"] >= FEWEST_DATES else (None, None)


def _ablation(run: RunRecord) -> str:
    if run.ablation is None:
        return html.missing(
            "No ablation here. Compare ranks, taps, channels, control and placebo over several seeds:",
            "kronos-finetune ablate",
        )
    arms = [one for one in run.ablation["arms"] if one["event"]["over_control"]]
    rows = [
        (one["name"], one["event"]["over_control"]["nats"], *_limits(one["event"]["over_control"]))
        for one in arms
    ]
    text = html.table(tables.ablation(run.ablation), title=False)
    if rows:
        caption = "Event days: gain over the control per arm, with 95 % intervals over dates."
        text += html.drawing(figures.dots(rows, "gain over the control, nats per event target"), caption)
    if run.ablation["unfinished"]:
        left = ", ".join(f"{arm} (seed {seed})" for arm, seed in run.ablation["unfinished"])
        text += html.missing(f"Not trained yet: {left}.")
    return text + html.table(tables.criteria(run.ablation["criteria"]))


def _audit(run: RunRecord) -> str:
    audit = (run.manifest or {}).get("data", {}).get("audit")
    if not audit:
        return html.missing(
            "The data of this adapter was not audited:", "kronos-finetune audit --snapshot ..."
        )
    checks = ", ".join(f"{name} ({looked_at:,})" for name, looked_at in audit["checked"].items())
    return html.paragraph(
        f"{audit['verdict'].upper()}: {audit['findings']} findings in a quick audit (seed {audit['seed']}).",
        f"verdict {audit['verdict']}",
    ) + html.paragraph(f"Recomputed independently, by check: {checks}.")


def _made(run: RunRecord) -> str:
    text = ""
    if run.manifest:
        text += html.table(tables.facts(_facts(run.manifest), "Adapter"))
    if run.config:
        text += html.table(tables.facts(run.config, "Configuration"))
    else:
        text += html.missing("No configuration: this is an evaluation without its run.")
    found = run.versions or next((one["versions"] for one in run.evaluations.values()), None)
    if found:
        return text + html.table(tables.facts(found, "Versions"))
    return text + html.missing("Versions were not written down when this run was made.")


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = manifest["data"]
    return {
        "created": manifest["created_at"],
        "base": f"{manifest['base']['repo']} {manifest['base']['revision'] or ''}".strip(),
        "base content": manifest["base"]["content_sha256"],
        "tokenizer content": manifest["tokenizer"]["content_sha256"],
        "snapshot content": data["sha256"],
        **{f"{name} targets": " to ".join(span) for name, span in data["splits"].items()},
        "lora": f"rank {manifest['lora']['rank']}, alpha {manifest['lora']['alpha']}",
        "event embedding": f"taps {', '.join(manifest['event_embedding']['taps'])}",
        "context": manifest["normalization"]["context"],
    }
