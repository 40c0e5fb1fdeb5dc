"""The chart is written in the asked format, with every panel, event and later close in it."""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from kronos_service.events.scenario import Scenario
from kronos_service.inference.forecast.bands import Bands
from kronos_service.inference.forecast.chart import Chart, ChartError, draw, draw_chart
from kronos_service.inference.forecast.series import moved_bars


def chart(
    fans: int, events: list[tuple[int, str]], later: int = 0, moved: Sequence[tuple[int, str]] = ()
) -> Chart:
    days = np.arange("2026-03-01", "2026-03-20", dtype="datetime64[D]")
    closes = 100 + np.random.default_rng(0).normal(size=(40, 5)).cumsum(axis=1)
    return Chart(
        title="a title",
        past_dates=days[:8],
        past_closes=np.linspace(95, 100, 8),
        dates=days[8:13],
        bands=[
            Bands(label=f"fan {number}", last_close=100.0, closes=closes + number) for number in range(fans)
        ],
        events=events,
        later=np.linspace(100, 101, later),
        moved=moved,
    )


def svg(path: Path, content: Chart) -> str:
    draw_chart(content, path)
    return path.read_text(encoding="utf-8")


def words(drawing: str) -> list[str]:
    """matplotlib names each text in a comment before the glyphs it is drawn with."""
    return [line.strip() for line in re.findall(r"<!-- (.*?) -->", drawing, re.S)]


def test_a_chart_names_its_panels_events_units_and_dates(tmp_path: Path) -> None:
    shown = words(svg(tmp_path / "c.svg", chart(3, [(1, "cpi"), (4, "nfp\nunemployment_rate")], later=3)))
    for text in ("a title", "fan 0", "fan 1", "fan 2", "cpi", "nfp", "unemployment_rate", "9 Mar", "13 Mar"):
        assert any(text in one for one in shown), text
    assert "close (quote currency)" in shown
    assert "session date (2026)" in shown
    assert {"90 % of the paths", "50 % of the paths", "median", "high-impact event", "what came"} <= set(
        shown
    )


def test_nothing_is_drawn_that_there_is_not(tmp_path: Path) -> None:
    shown = words(svg(tmp_path / "c.svg", chart(1, [])))
    assert not {"high-impact event", "what came"} & set(shown)


def test_a_png_is_an_image_small_enough_for_a_readme(tmp_path: Path) -> None:
    draw_chart(chart(3, [(1, "cpi")], later=5), tmp_path / "new" / "c.png")
    content = (tmp_path / "new" / "c.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000


@pytest.mark.parametrize("name", ["c.chart", "file/c.png"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ChartError, match=r"name a \.png, \.svg or \.pdf"):
        draw_chart(chart(1, []), tmp_path / name)


def test_a_what_if_is_marked_on_the_bar_it_moves_in_its_own_panel() -> None:
    moved = [(1, "SPY -1.5 σ on 9 Mar"), (1, "surprise +2 σ on 9 Mar"), (4, "surprise -1 σ on 12 Mar")]
    figure = draw(chart(3, [(0, "cpi")], moved=moved))
    *others, supposed = figure.subfigs[0].axes
    marks = [mark for mark in supposed.lines if mark.get_marker() == "^"]
    assert [float(np.asarray(mark.get_xdata())[0]) for mark in marks] == [2.0, 5.0], "the origin is 0"
    assert [text.get_text() for text in supposed.texts] == [
        "SPY -1.5 σ on 9 Mar\nsurprise +2 σ on 9 Mar\nmoves this bar first",
        "surprise -1 σ on 12 Mar\nmoves this bar first",
    ]
    assert not any(axes.texts or [one for one in axes.lines if one.get_marker() == "^"] for axes in others)


def test_what_is_supposed_moves_the_bar_after_it() -> None:
    scenario = Scenario(
        surprises={date(2026, 3, 10): -1.0, date(2026, 3, 9): 2.0}, leaders={"SPY": {date(2026, 3, 9): -1.5}}
    )
    assert moved_bars(scenario, np.arange("2026-03-09", "2026-03-13", dtype="datetime64[D]")) == (
        (1, "SPY -1.5 σ on 9 Mar"),
        (1, "surprise +2 σ on 9 Mar"),
        (2, "surprise -1 σ on 10 Mar"),
    )
