"""What is said of a training where there is no terminal."""

import io

from rich.console import Console

from kronos_service.finetune.event_conditioned.training.progress import (
    PlainLines,
    duration,
    training_progress,
)


def test_a_line_now_and_then_has_epoch_rate_and_time_left() -> None:
    now = 0.0
    said: list[str] = []
    lines = PlainLines(
        name="adapter", windows=1_000, epochs=3, say=said.append, seconds=30, clock=lambda: now
    )
    lines.begin(1_200)  # an earlier start did these
    for number in range(1, 21):
        now = 4.0 * number
        lines.advance(40, 5.0 - number / 10)
    assert said == [
        "adapter epoch 2/3, 520 of 1,000 windows, loss 4.2000, 10.0/s, 2 min left",
        "adapter epoch 2/3, 840 of 1,000 windows, loss 3.4000, 10.0/s, 2 min left",
    ]


def test_a_duration_has_at_most_two_units() -> None:
    assert [duration(seconds) for seconds in (7.4, 99, 100, 3_599, 12_000)] == [
        "7 s",
        "99 s",
        "2 min",
        "1 h 0 min",
        "3 h 20 min",
    ]


def test_a_log_file_gets_lines_and_a_terminal_bars() -> None:
    figures = {"train/fixed_loss": 1.0, "val/event_total": 2.0, "val/quiet_total": 3.0}
    shown = []
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=120)
        with training_progress(console, "adapter", windows=8, epochs=2) as progress:
            progress.begin(8)
            progress.advance(4, 0.5)
            progress.epoch_end(1, figures)
            progress.note("a word")
        shown.append(file.getvalue())
    plain, bars = shown
    assert plain == "adapter epoch  1/2  train 1.0000  val event 2.0000  val quiet 3.0000\na word\n"
    assert "adapter 2/2" in bars
    assert " 8/16" in bars
    assert "a word" in bars
