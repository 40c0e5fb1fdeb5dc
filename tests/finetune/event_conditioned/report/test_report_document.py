"""The page of a report, from run directories made by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kronos_service.finetune.event_conditioned.report.document import _tiles, render
from kronos_service.finetune.event_conditioned.report.run_record import read_run

HOSTILE = "<script>alert(\"1\")</script> & 'more'"


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"adapters": "nowhere", "snapshot": HOSTILE}))
    criteria = [{"name": HOSTILE, "wanted": HOSTILE, "figure": None, "detail": "", "verdict": "fail"}]
    (tmp_path / "criteria.json").write_text(json.dumps(criteria))
    page = render(read_run(tmp_path))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


@pytest.mark.parametrize(("forecasts", "dates", "large"), [(30, 20, True), (29, 25, False), (500, 19, False)])
def test_a_figure_from_few_forecasts_or_dates_is_no_headline(
    tmp_path: Path, forecasts: int, dates: int, large: bool
) -> None:
    gain = {"nats": 0.25, "low": 0.1, "high": 0.4, "percent": 3.0, "targets": forecasts, "dates": dates}
    losses = {"s1": 2.0, "s2": 2.0, "total": 4.0, "targets": forecasts}
    base, adapter = ({"event": losses | {"total": total}, "quiet": losses} for total in (4.0, 3.5))
    group = {
        **{"by": "day", "steps": "1", "group": "event", "targets": forecasts, "dates": dates},
        "gain": {"base": {"percent": 32.4}},
    }
    (tmp_path / "config.json").write_text('{"adapter_store": "nowhere"}')
    run = replace(
        read_run(tmp_path),
        results={
            "val": {"base": base, "adapter": adapter},
            "val_dates": {"event": dates, "quiet": dates},
            "gains": {"adapter_event": gain},
        },
        evaluations={"val": {"forecasts": {"groups": [group]}}},
    )
    found = {what: (number, more) for number, what, more in _tiles(run)}
    for what, number in {
        "conditioning gain, event days": "+0.2500",
        "val loss against base, event days": "-12.50 %",
        "CRPS against base, event days, next bar": "-32.4 %",
    }.items():
        assert found[what][0] == (number if large else "-")
        assert large or found[what][1] == f"too few for a figure here: {forecasts} on {dates} dates"


@pytest.mark.parametrize(
    ("verdict", "words"), [("unknown", "Not measured: size."), ("fail", "Failed: size.")]
)
def test_the_first_line_names_what_failed_and_what_was_not_measured(
    tmp_path: Path, verdict: str, words: str
) -> None:
    (tmp_path / "config.json").write_text('{"adapters": "nowhere"}')
    criteria = [{"name": "size", "wanted": "< 1", "figure": None, "detail": "?", "verdict": verdict}]
    (tmp_path / "criteria.json").write_text(json.dumps(criteria))
    page = render(read_run(tmp_path))
    assert words in page
    assert "Not promoted." in page
    assert ("No criterion failed." in page) == (verdict == "unknown")
    assert f'class="badge {"not-measured" if verdict == "unknown" else verdict}"' in page
