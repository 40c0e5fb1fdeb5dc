"""The page of a report, from run directories made by hand."""

import json
from pathlib import Path

import pytest

from kronos_service.finetune.event_conditioned.report.document import render
from kronos_service.finetune.event_conditioned.report.run_record import read_run

HOSTILE = "<script>alert(\"1\")</script> & 'more'"


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"adapters": "nowhere", "snapshot": HOSTILE}))
    criteria = [{"name": HOSTILE, "wanted": HOSTILE, "figure": None, "detail": "", "verdict": "fail"}]
    (tmp_path / "criteria.json").write_text(json.dumps(criteria))
    page = render(read_run(tmp_path))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


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
