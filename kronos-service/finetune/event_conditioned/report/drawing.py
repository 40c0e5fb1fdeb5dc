"""How a figure of a report is drawn: inline SVG in the page's colours, with numbers on hover.

matplotlib takes no CSS variables: it draws in colours that stand for them, which `draw` replaces, so that a
figure follows the theme of its page. Every panel is a drawing of its own: on a narrow screen panels stand
below each other instead of shrinking.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK: Final = "#000001"
MUTED: Final = "#000002"
RULE: Final = "#000003"
EVENT: Final = "#000004"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What tells a model's line from the others: its colour, and without colours its dashes and markers."""

    color: str
    marker: str
    dashes: tuple[float, ...] = ()
    """Lengths of strokes and gaps in points; none is a solid line."""

    @property
    def linestyle(self) -> Any:
        """As matplotlib takes it."""
        return (0, self.dashes) if self.dashes else "-"


LOOKS: Final[Mapping[str, Look]] = {
    "adapter": Look(color="#000005", marker="o"),
    "base": Look(color="#000006", marker="s", dashes=(1.5, 2)),
    "zeroed": Look(color="#000007", marker="D", dashes=(6, 2)),
    "control": Look(color="#000008", marker="^", dashes=(4, 2)),
    "placebo": Look(color="#000009", marker="v", dashes=(6, 2, 1.5, 2)),
    "random_walk": Look(color=MUTED, marker="x", dashes=(8, 4)),
    "came": Look(color=INK, marker="X"),
}
VARIABLES: Final[Mapping[str, str]] = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--line",
    EVENT: "--event",
    **{look.color: f"--{name}" for name, look in LOOKS.items() if look.color not in (INK, MUTED)},
}
STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 72,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.scale_dashes": False,
    "lines.markersize": 4.5,
}
WIDTH: Final = 4.4
"""Inches of a panel: about what a phone is wide, so that its letters stay as large as those around it."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One panel."""

    title: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A strip of a panel, in units of its data, that shows a text when it is pointed at."""

    text: str
    x: tuple[float, float] | None = None
    """Left and right; None is the whole width."""
    y: tuple[float, float] | None = None
    """Lower and upper end; None is the whole height."""


def panel(*, height: float = 2.5, width: float = WIDTH) -> Axes:
    """An empty panel, `width` by `height` inches; call it within `rc_context(STYLE)`."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def line(axes: Axes, x: Sequence[float], y: Any, name: str) -> None:
    """A model's line; `name` is a key of `LOOKS`."""
    look = LOOKS[name]
    axes.plot(x, y, color=look.color, linestyle=look.linestyle, marker=look.marker)


def columns(x: Iterable[float], texts: Iterable[str]) -> list[Hit]:
    """Strips around the places `x`, which are one apart."""
    return [Hit(x=(at - 0.5, at + 0.5), text=text) for at, text in zip(x, texts, strict=True)]


def draw(axes: Axes, title: str = "", hits: Sequence[Hit] = ()) -> Drawing:
    """The panel as an `<svg>` element without ids, metadata or fixed size, and over it the strips."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    out = StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg)
    svg = re.sub(r' id="[A-Za-z]+[A-Za-z0-9.]*_\d+"', "", svg)
    svg = svg.replace("'DejaVu Sans'", "inherit")
    svg = re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found.group()]})", svg)
    strips = "".join(_strip(axes, hit) for hit in hits)
    return Drawing(title=title, svg=svg.replace("</svg>", f"{strips}</svg>"))


def _strip(axes: Axes, hit: Hit) -> str:
    """An invisible rectangle; SVG counts its rows from the top."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    wide, tall = hit.x or (left, right), hit.y or (low, high)
    corners = [(min(max(x, left), right), min(max(y, low), high)) for x, y in zip(wide, tall, strict=True)]
    (x0, y0), (x1, y1) = sorted(axes.transData.transform(corners).tolist())
    top = axes.figure.bbox.height - max(y0, y1)
    return (
        f'<rect class="hit" x="{x0:.1f}" y="{top:.1f}" width="{x1 - x0:.1f}" height="{abs(y1 - y0):.1f}">'
        f"<title>{escape(hit.text)}</title></rect>"
    )


def key(name: str) -> str:
    """A short piece of a model's line, for the legend above its panels."""
    with matplotlib.rc_context(STYLE):
        axes = panel(width=0.4, height=0.17)
        look = LOOKS[name]
        style = "none" if name == "came" else look.linestyle
        axes.plot([0, 1, 2], [0, 0, 0], color=look.color, linestyle=style, marker=look.marker, markevery=[1])
        axes.set_axis_off()
        return draw(axes).svg.replace('role="img"', 'aria-hidden="true"')
