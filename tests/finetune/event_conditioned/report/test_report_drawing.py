"""What every drawing of a page has: strips where its data is, and lines told apart without colour."""

import re
from itertools import combinations, pairwise

import matplotlib
import pytest

from kronos_service.finetune.event_conditioned.report.drawing import (
    LOOKS,
    STYLE,
    VARIABLES,
    Hit,
    columns,
    draw,
    key,
    line,
    panel,
)

RECT = re.compile(
    r'<rect class="hit" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"><title>(.*?)<'
)


def strips(hits: list[Hit], *, downwards: bool = False) -> tuple[list[tuple[float, ...]], list[str], str]:
    with matplotlib.rc_context(STYLE):
        axes = panel()
        axes.set(xlim=(0, 4), ylim=(10, 0) if downwards else (0, 10))
        svg = draw(axes, "a title", hits).svg
    found = RECT.findall(svg)
    return [tuple(map(float, one[:4])) for one in found], [one[4] for one in found], svg


def test_strips_lie_side_by_side_over_the_whole_panel() -> None:
    places, texts, svg = strips(columns([0.5, 1.5, 2.5, 3.5], ["a", "b", "c", "d <"]))
    assert texts == ["a", "b", "c", "d &lt;"]
    box = [float(one) for one in re.findall(r'viewBox="([^"]+)"', svg)[0].split()]
    for (x, y, width, height), (following, *_) in pairwise(places):
        assert x + width == pytest.approx(following, abs=0.11)
        assert 0 <= y < y + height <= box[3]
    assert places[-1][0] + places[-1][2] <= box[2]


@pytest.mark.parametrize("downwards", [False, True])
def test_a_row_lies_where_its_place_is_drawn_whichever_way_the_axis_runs(downwards: bool) -> None:
    ((_, upper, _, _), (_, lower, _, height)), _, _ = strips(
        [Hit(y=(8, 10), text="up"), Hit(y=(0, 2), text="down")], downwards=downwards
    )
    assert (upper < lower) != downwards
    assert height > 0


def test_a_strip_ends_where_the_panel_does() -> None:
    (left, inside), _, _ = strips([Hit(x=(-9, 9), text=""), Hit(x=(0, 4), text="")])
    assert left == inside


def test_lines_differ_without_their_colours() -> None:
    for one, other in combinations(LOOKS.values(), 2):
        assert (one.dashes, one.marker) != (other.dashes, other.marker)


def test_no_stand_in_colour_id_or_date_is_left_in_a_drawing() -> None:
    with matplotlib.rc_context(STYLE):
        axes = panel()
        for name in LOOKS:
            line(axes, [0, 1], [0, 1], name)
        svg = draw(axes).svg
    assert "#0000" not in svg
    assert set(re.findall(r"var\((--[\w-]+)\)", svg)) <= set(VARIABLES.values())
    assert "var(--adapter)" in key("adapter")
    assert "<metadata" not in svg
