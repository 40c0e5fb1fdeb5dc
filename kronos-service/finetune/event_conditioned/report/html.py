"""The one HTML page of a report: self-contained, light and dark, readable without scripts."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from kronos_service.finetune.event_conditioned.report.tables import Table

BADGES: Final = ("pass", "fail", "unknown")

CSS: Final = """
:root { color-scheme: light dark; --ink: #1b1b19; --muted: #6a6963; --rule: #e3e2dc; --page: #f7f6f2;
  --card: #ffffff; --adapter: #2a78d6; --base: #8a8880; --zeroed: #1baf7a; --control: #e0662e;
  --placebo: #6a5bd0; --random-walk: #c98a00; --pass: #0b7a3b; --fail: #c4302b; --unknown: #8a6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebe5; --muted: #a09e95; --rule: #36352f;
  --page: #161613; --card: #1f1f1b; --adapter: #5a9df0; --base: #918f86; --zeroed: #2fc48d;
  --control: #ee7f4a; --placebo: #9b8ff0; --random-walk: #d9a324; --pass: #4cc27e; --fail: #f2756d;
  --unknown: #d9b13c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 80px; }
header h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; text-wrap: balance; }
header p { color: var(--muted); margin: 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 18px 0 8px; font-size: 14px; }
nav a { color: var(--adapter); text-decoration: none; }
nav a:hover, nav a:focus-visible { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 18px 22px 22px; margin-top: 18px; }
h2 { font-size: 18px; margin: 0 0 8px; }
h3 { font-size: 14px; margin: 22px 0 6px; }
p { margin: 8px 0; max-width: 76ch; }
.verdict { font-size: 17px; font-weight: 600; }
.note { color: var(--muted); font-size: 14px; }
.missing { border-left: 3px solid var(--unknown); padding: 2px 0 2px 12px; color: var(--muted); }
.missing code { color: var(--ink); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
  margin: 14px 0 2px; }
.tile { border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 24px; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--muted); }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.figure, th.figure { text-align: right; white-space: nowrap; }
tr.first td { border-top: 2px solid var(--rule); }
.badge { font-weight: 600; }
.pass { color: var(--pass); } .fail { color: var(--fail); } .unknown { color: var(--unknown); }
figure { margin: 14px 0 4px; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: 13.5px; max-width: 84ch; margin-top: 4px; }
code { font: 0.92em ui-monospace, monospace; overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--adapter); margin-top: 12px; }
"""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole document; each section is (id, heading, html)."""
    links = "".join(f'<a href="#{key}">{escape(heading)}</a>' for key, heading, _ in sections)
    body = "\n".join(
        f'<section id="{key}"><h2>{escape(heading)}</h2>\n{html}</section>' for key, heading, html in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        f"<nav>{links}</nav>\n{body}\n</main></body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>\n' if kind else f"<p>{escape(text)}</p>\n"


def missing(text: str, command: str = "") -> str:
    """What is not in this report, why, and the command that would put it there."""
    how = f" <code>{escape(command)}</code>" if command else ""
    return f'<p class="missing">{escape(text)}{how}</p>\n'


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """Big figures: (figure, what it is, how sure it is)."""
    cells = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(figure)}</b>'
        f"<span>{escape(more)}</span></div>"
        for figure, name, more in figures
    )
    return f'<div class="tiles">{cells}</div>\n'


def table(grid: Table, *, title: bool = True) -> str:
    """A table of figures; rows that begin another group are set apart."""
    figure = [' class="figure"' if number >= grid.labels else "" for number in range(len(grid.columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(figure, grid.columns, strict=True))
    rows, before = [], ""
    in_groups = len({row[0] for row in grid.rows}) < len(grid.rows)
    for row in grid.rows:
        begins = in_groups and before not in ("", row[0])
        before = row[0]
        cells = "".join(f"<td{kind}>{_cell(cell)}</td>" for kind, cell in zip(figure, row, strict=True))
        rows.append(f'<tr class="first">{cells}</tr>' if begins else f"<tr>{cells}</tr>")
    heading = f"<h3>{escape(grid.title)}</h3>\n" if title else ""
    return (
        f'{heading}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def folded(summary: str, content: str) -> str:
    """HTML that shows when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>\n"


def drawing(svg: str, caption: str) -> str:
    """An inline SVG with its caption."""
    labelled = svg.replace('role="img"', f'role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{labelled}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _cell(text: str) -> str:
    return f'<span class="badge {text}">{text}</span>' if text in BADGES else escape(text)
