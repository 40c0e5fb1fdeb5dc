"""The chart is written in the asked format, with every panel, event and later close in it."""

import re
from pathlib import Path

import numpy as np
import pytest

from kronos_service.inference.forecast.bands import Bands
from kronos_service.inference.forecast.chart import Chart, ChartError, draw_chart


def chart(fans: int, events: list[tuple[int, str]], later: int = 0) -> Chart:
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
