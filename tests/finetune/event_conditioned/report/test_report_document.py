"""The page of a report, from run directories made by hand."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kronos_service.data.sample import sample_sha256
from kronos_service.finetune.event_conditioned.report.document import render
from kronos_service.finetune.event_conditioned.report.run_record import RunRecord, read_run

HOSTILE = "<script>alert(\"1\")</script> & 'more'"
CRITERION = {"name": "size", "wanted": "< 1", "figure": None, "detail": "?", "verdict": "pass"}


@pytest.fixture
def begun(tmp_path: Path) -> RunRecord:
    """A run that has written its settings only."""
    (tmp_path / "config.json").write_text(json.dumps({"adapters": "nowhere", "snapshot": HOSTILE}))
    return read_run(tmp_path)


def test_what_files_say_is_text_and_never_markup(begun: RunRecord) -> None:
    criteria = [CRITERION | {"name": HOSTILE, "wanted": HOSTILE, "verdict": "fail"}]
    page = render(replace(begun, criteria=criteria))
    assert page.count("<script") == 1, "the page's own"
    assert page.count("&lt;script&gt;") >= 4


def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(begun: RunRecord) -> None:
    page = render(begun)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ["default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"]
    assert policy.split("; ") == rules


@pytest.mark.parametrize(
    ("verdict", "words"), [("unknown", "Not measured: size."), ("fail", "Failed: size.")]
)
def test_the_first_screen_names_what_failed_and_what_was_not_measured(
    begun: RunRecord, verdict: str, words: str
) -> None:
    page = render(replace(begun, criteria=[CRITERION | {"verdict": verdict}]))
    assert words in page
    assert "Not promoted." in page
    assert ("No criterion failed." in page) == (verdict == "unknown")
    assert f'class="badge {"not-measured" if verdict == "unknown" else verdict}"' in page


@pytest.mark.parametrize(("verdict", "words"), [("pass", "time and size<"), ("fail", "(1 failed)")])
def test_what_a_run_takes_is_folded_away_and_a_failure_still_shows(
    begun: RunRecord, verdict: str, words: str
) -> None:
    criteria = [CRITERION, CRITERION | {"name": "peak GPU memory", "verdict": verdict}]
    page = render(replace(begun, criteria=criteria))
    section = page[page.index('<section id="criteria"') :]
    shown, folded = section.split("<details>", 1)
    assert "size" in shown
    assert "peak GPU memory" not in shown
    assert "peak GPU memory" in folded
    assert words in folded


def data(**fields: Any) -> dict[str, Any]:
    return {"snapshot": "s", "sha256": "0" * 64, "has_manifest": True, "splits": {}, **fields}


@pytest.mark.parametrize(
    ("manifest", "evaluation", "is_synthetic"),
    [
        (data(), {}, False),
        (data(sha256=sample_sha256()), {}, True),
        (data(synthetic=True), {}, True),
        (None, {"snapshot_sha256": "0" * 64, "synthetic": False}, False),
        (None, {"snapshot_sha256": "0" * 64, "synthetic": True}, True),
        (None, {"snapshot_sha256": sample_sha256()}, True),
    ],
    ids=["real", "sample", "other sample", "evaluated", "evaluated on a sample", "evaluated before marks"],
)
def test_everything_made_from_a_sample_says_so(
    begun: RunRecord, manifest: dict[str, Any] | None, evaluation: dict[str, Any], is_synthetic: bool
) -> None:
    source = {"repo": "base", "revision": None, "content_sha256": "0" * 64}
    whole = manifest and {
        **{"created_at": "2026-01-01", "base": source, "tokenizer": source, "data": manifest},
        **{"lora": {"rank": 1, "alpha": 2}, "event_embedding": {"taps": ["input"]}},
        **{"normalization": {"context": 64}, "metrics": {}},
    }
    run = replace(begun, manifest=whole, evaluations={"val": evaluation} if evaluation else {})
    assert ('<span class="chip synthetic">SYNTHETIC</span>' in render(run)) == is_synthetic


def test_colours_are_named_in_the_tokens_alone_and_each_has_a_dark_one() -> None:
    room = Path(render.__code__.co_filename).parent
    style = (room / "report.css").read_text(encoding="utf-8")
    light, dark, rules = re.split(r"\n@media screen and \(prefers-color-scheme: dark\) \{|\n\}\n\n\*", style)
    colours = {name for name, value in re.findall(r"--([\w-]+): ([^;]+);", light) if "#" in value}
    assert colours == {name for name, value in re.findall(r"--([\w-]+): ([^;]+);", dark) if "#" in value}
    before_print = rules.split("@media print")[0]
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb\(", before_print)
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) <= set(re.findall(r"--([\w-]+):", light))
