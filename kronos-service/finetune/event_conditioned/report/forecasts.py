"""The sections of a report that rest on forecasts: scores, calibration, event study, and the test split."""

from collections.abc import Mapping
from typing import Any

from kronos_service.finetune.event_conditioned.report import figures, html, tables
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord
from kronos_shared.cli import flag

GROUPS = ("day", "all", "family", "asset_class", "month")


def forecasts_of(run: RunRecord, split: str) -> dict[str, Any] | None:
    """What the forecasts of a split came to, where there are any."""
    found: dict[str, Any] | None = run.evaluations.get(split, {}).get("forecasts")
    return found


def scores(run: RunRecord) -> str:
    """Scores of the validation forecasts, and what the adapter gains, by group of targets."""
    if forecasts_of(run, "val") is None:
        return html.missing(_no_forecasts(run), _evaluate(run))
    return _forecast_tables(run.evaluations["val"])


def calibration(run: RunRecord) -> str:
    """Whether outcomes fall where the forecasts say."""
    forecasts = forecasts_of(run, "val")
    if forecasts is None:
        return html.missing(_no_forecasts(run), _evaluate(run))
    caption = (
        "Left: where outcomes fell within the next bar's forecast; flat is calibrated, high ends mean too "
        "narrow, a hump too wide. Right: share of outcomes below each quantile; the line is calibrated. "
        f"{forecasts['calibration']['adapter']['targets']:,} forecasts."
    )
    return html.drawing(figures.calibration(forecasts["calibration"]), caption)


def event_study(run: RunRecord) -> str:
    """How wide forecasts are around the events of each family."""
    forecasts = forecasts_of(run, "val")
    if forecasts is None:
        return html.missing(_no_forecasts(run), _evaluate(run))
    if not forecasts["event_study"]:
        return html.missing("No forecast bar lies within three bars of a high-impact event:", _evaluate(run))
    caption = (
        "Mean deviation of one bar's forecast log return, in units of the symbol's 20-day volatility at the "
        "origin, by the bar's distance from an event's bar; dashes: what came. In brackets the number of "
        "forecast bars on the event itself."
    )
    text = html.drawing(figures.event_study(forecasts["event_study"]), caption)
    return text + html.folded("The figures", html.table(tables.event_study(forecasts["event_study"])))


def test_split(run: RunRecord) -> str:
    """Who opened the test split, and what it said."""
    text = "".join(html.paragraph(f"Opened {one.describe()}.") for one in run.openings)
    evaluation = run.evaluations.get("test")
    if evaluation is None:
        return text + html.missing(
            "Not scored here. The test split stays closed until everything is decided:",
            f"{_evaluate(run)} --split test --open-test-split",
        )
    before = evaluation["openings"]
    text += html.paragraph(
        f"Before these figures it had been opened {len(before)} times, so they are not first looks."
        if before
        else "These figures are the first look at it."
    )
    text += html.table(tables.losses(evaluation["losses"], "Test loss (nats per target)"))
    text += html.table(tables.family_losses(evaluation["family_losses"], "Test loss per event family"))
    if evaluation["forecasts"] is None:
        return text + html.missing("No forecasts were made on the test split (--origins 0).")
    return text + _forecast_tables(evaluation)


def _forecast_tables(evaluation: Mapping[str, Any]) -> str:
    forecasts = evaluation["forecasts"]
    settings = forecasts["settings"]
    text = html.paragraph(
        f"{forecasts['origins']:,} origins, drawn from {forecasts['possible_origins']:,} bars of the "
        f"{evaluation['split']} split with event and quiet days in their proportion; {settings['paths']} "
        f"sample paths each, {forecasts['horizon']} bars ahead, temperature "
        f"{settings['sampling']['temperature']:g}, top-p {settings['sampling']['top_p']:g}. Forecast is the "
        "log return of the close from the origin's close, in percent: one scale for every symbol."
    )
    text += html.paragraph(evaluation["out_of_sample"], "note")
    text += html.table(tables.forecast_scores(forecasts, steps="1"))
    if forecasts["horizon"] > 1:
        text += html.table(tables.forecast_scores(forecasts, steps="all"))
        text += html.drawing(
            figures.crps_by_step(forecasts["steps"]),
            "Mean CRPS by bars ahead, as a share of a random walk's with 20-day volatility; lower is better.",
        )
    text += html.table(tables.forecast_gains(forecasts, steps="1", by=GROUPS))
    text += html.paragraph(
        "Zeroed is the adapter with all event channels at 0. CRPS, pinball loss and spread are in percent of "
        "price, and so are gains, with 95 % intervals from a block bootstrap over origin dates. Direction: "
        "how often the median has the sign of what came. "
        f"Prices rose in {100 * _group(forecasts, 'all', '1')['up_share']:.0f} % of the cases.",
        "note",
    )
    if forecasts["horizon"] > 1:
        more = tables.forecast_gains(forecasts, steps="all", by=GROUPS)
        text += html.folded(f"The same over all {forecasts['horizon']} bars", html.table(more, title=False))
    return text


def _group(forecasts: dict[str, Any], group: str, steps: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one for one in forecasts["groups"] if (one["group"], one["steps"]) == (group, steps)
    )
    return found


def _no_forecasts(run: RunRecord) -> str:
    why = run.evaluations.get("val", {}).get("why_no_forecasts")
    return f"No forecasts were made on the validation split{f': {why}' if why else ''}. Make some with"


def _evaluate(run: RunRecord) -> str:
    """The command that makes forecasts, with the flags that this run was given."""
    config = run.config or {}
    given = [(name, config.get(name)) for name in ("snapshot", "base_model", "tokenizer")]
    flags = "".join(f" {flag(name)} {value}" for name, value in given if value)
    return f"kronos-finetune evaluate --adapter {run.directory / 'adapter'}{flags}"
