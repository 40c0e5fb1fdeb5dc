"""The report goes on after a step that fails, hangs or leaves a process behind, and keeps what it knew."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_report import STEPS, TOTAL_SECONDS, Step, report
from gpu_steps.figures import DRY, Figures

PLANTED = {
    "planted_good": 'def run(lab):\n    lab.add("good", 1.23456, "s", "a | b")\n',
    "planted_raises": 'def run(lab):\n    lab.add("before", 1)\n    raise RuntimeError("planted")\n',
    "planted_hangs": (
        "import subprocess, sys, time\n\n\n"
        "def run(lab):\n"
        '    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])\n'
        '    lab.add("child", child.pid)\n'
        "    time.sleep(600)\n"
    ),
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in PLANTED.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "out"


@pytest.mark.soak
def test_a_step_that_fails_or_hangs_stops_no_other_and_its_figures_stay(planted: Path) -> None:
    steps = [
        Step(module="planted_raises", title="raises", seconds=60),
        Step(module="planted_hangs", title="hangs", seconds=5),
        Step(module="planted_good", title="good", seconds=60),
    ]
    begun = time.monotonic()
    assert report(steps, planted, dry_run=True) == ["raises", "hangs"]
    assert time.monotonic() - begun < 60
    content = Figures(planted).read()
    known = {one["name"]: one["value"] for one in content["figures"]}
    assert known.keys() == {"before", "child", "good"}
    failures = {one["step"]: one["failure"] for one in content["steps"]}
    assert failures == {
        "raises": "exit 1: RuntimeError: planted",
        "hangs": "cut off after 10 s",
        "good": None,
    }
    with pytest.raises(ProcessLookupError):  # what a step has started ends with it
        os.kill(known["child"], 0)
    table = (planted / Figures.TABLE).read_text()
    assert DRY in table
    assert "| good | good | 1.235 | s | a / b |" in table
    assert "| raises | **FAILED** |" in table


def test_what_no_time_is_left_for_is_said(planted: Path) -> None:
    steps = [Step(module="planted_good", title=title, seconds=60) for title in ("first", "second")]
    assert report(steps, planted, dry_run=True, seconds=0.001) == ["first", "second"]
    failures = [one["failure"] for one in Figures(planted).read()["steps"]]
    assert failures[1] == "not begun: the 0 s of the report are over"


def test_the_steps_fit_the_time_of_the_report() -> None:
    assert sum(step.seconds for step in STEPS) <= TOTAL_SECONDS <= 480


def test_without_a_gpu_the_report_says_how_to_try_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("gpu_report.py")
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no CUDA device here: add --dry-run to see that the steps run\n"
    assert list(tmp_path.iterdir()) == []


def test_both_files_are_whole_after_each_figure(tmp_path: Path) -> None:
    figures = Figures.begin(tmp_path, dry_run=False)
    for number in range(3):
        figures.add("step", f"figure {number}", number)
        assert len(json.loads((tmp_path / Figures.JSON).read_text())["figures"]) == number + 1
        assert (tmp_path / Figures.TABLE).read_text().count("\n| step | figure ") == number + 1 + 1
    assert DRY not in (tmp_path / Figures.TABLE).read_text()
