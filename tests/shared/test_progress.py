"""What is said of work on a terminal, and where there is none."""

import ast
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from kronos_shared.progress import PlainLines, Progress, console, duration, follow, say, working

ROOT = Path(__file__).parents[2]


def log_file() -> tuple[io.StringIO, Console]:
    file = io.StringIO()
    return file, Console(file=file, width=40)


def test_a_line_every_30_seconds_has_epoch_rate_and_time_left() -> None:
    now = 0.0
    file, console = log_file()
    lines = PlainLines("adapter", unit="windows", total=1_000, epochs=3, on=console, clock=lambda: now)
    lines.begin(1_200)  # an earlier start did these
    for number in range(1, 21):
        now = 4.0 * number
        lines.advance(40, f"loss {5.0 - number / 10:.4f}")
    assert file.getvalue().splitlines() == [
        "adapter epoch 2/3, 520 of 1,000 windows, loss 4.2000, 10.0/s, 2 min left",
        "adapter epoch 2/3, 840 of 1,000 windows, loss 3.4000, 10.0/s, 2 min left",
    ]


def test_work_in_one_pass_whose_total_becomes_known_on_the_way() -> None:
    now = 0.0
    file, console = log_file()
    lines = PlainLines("forecasting", unit="origins", total=0, epochs=None, on=console, clock=lambda: now)
    for done in (8, 16, 24):
        now += 20.0
        lines.reach(done, 72)
    assert file.getvalue() == "forecasting, 16 of 72 origins, 0.4/s, 2 min left\n"


def test_a_duration_has_at_most_two_units() -> None:
    assert [duration(seconds) for seconds in (7.4, 99, 100, 3_599, 12_000)] == [
        "7 s",
        "99 s",
        "2 min",
        "1 h 0 min",
        "3 h 20 min",
    ]


def test_a_log_file_gets_lines_and_a_terminal_bars() -> None:
    shown = []
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=120)
        with follow("adapter", unit="windows", total=8, epochs=2, on=console) as progress:
            progress.begin(8)
            progress.advance(4, "loss 0.5000")
            progress.say("a word")
        shown.append(file.getvalue())
    plain, bars = shown
    assert plain == "a word\n"
    assert "adapter 2/2" in bars
    assert " 8/16" in bars
    assert "a word" in bars


def test_work_that_nobody_counts_is_spoken_of_until_it_ends() -> None:
    file, console = log_file()
    with working("auditing", on=console, seconds=0.01):
        while "auditing, 0 s so far\n" not in file.getvalue():
            time.sleep(0.01)
    ended = file.getvalue()
    time.sleep(0.05)
    assert file.getvalue() == ended


def test_unwatched_work_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.begin(1)
    progress.advance(2, "loss")
    progress.reach(3, 4)
    progress.say("a word")
    assert capfd.readouterr() == ("", "")


BRACKETS = "pip install 'kronos-events[yardsticks]' for data/[old]/x, [/] and [red]"


def test_what_others_wrote_keeps_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    say(BRACKETS)
    say(BRACKETS, style="yellow", label="garch not measured")
    console.print(BRACKETS, soft_wrap=True)
    assert capsys.readouterr().out.splitlines() == [BRACKETS, f"garch not measured: {BRACKETS}", BRACKETS]


def test_no_console_of_the_package_takes_brackets_for_markup() -> None:
    sources = [file for name in ("kronos-service", "shared") for file in (ROOT / name).rglob("*.py")]
    made = [
        ast.unparse(node)
        for file in sources
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Console"
    ]
    assert len(made) >= 2
    assert [one for one in made if "markup=False" not in one] == []


def test_a_label_alone_has_the_colour() -> None:
    file = io.StringIO()
    screen = Console(file=file, force_terminal=True, color_system="standard", markup=False)
    say("1 leak", style="red", label="FAIL", on=screen)
    say("all of it", style="red", on=screen)
    assert file.getvalue().splitlines() == ["\x1b[31mFAIL\x1b[0m: 1 leak", "\x1b[31mall of it\x1b[0m"]
