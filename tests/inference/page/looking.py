"""What a reader of the page sees, read off it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Page, expect

FIRST_SECONDS: Final = 30
"""How long a forecast may take on a machine that has other things to do."""
PAST: Final = "#symbol=SPY&as_of=2025-06-06&horizon=10"
"""In the sample market: a rate decision on 10 June, CPI on 20 June, and bars that came after."""
CPI_DAY: Final = "2025-06-20"
CPI_SLIDER: Final = f"input[id='if|cpi|{CPI_DAY}']"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One bar of the table of numbers."""

    bar: str
    releases: str
    forecasts: Mapping[str, Sequence[str]]
    """Base, Adapter, What if -> median, 50 %, 90 %, range."""
    came: str | None

    def median(self, name: str) -> float:
        return float(self.forecasts[name][0].replace(",", ""))


def wait_for_forecast(page: Page) -> None:
    """Until the chart shows what was asked last."""
    page.locator("#forecast[aria-busy='false']:not(.is-empty)").wait_for(timeout=1000 * FIRST_SECONDS)


def wait_for_what_if(page: Page) -> None:
    """Until the line about the scenario speaks of its figures."""
    expect(page.locator("#what-if-line")).to_contain_text("median close", timeout=1000 * FIRST_SECONDS)


def table(page: Page) -> list[Row]:
    """The table of numbers, unfolded."""
    if page.locator(".table-details[open]").count() == 0:
        page.get_by_text("The numbers as a table").click()
    names = page.locator("#numbers th[scope=colgroup]").all_inner_texts()
    rows = []
    for row in page.locator("#numbers tbody tr").all():
        bar, releases, *cells = row.locator("th, td").all_inner_texts()
        forecasts = {name: cells[4 * at : 4 * at + 4] for at, name in enumerate(names)}
        came = cells[4 * len(names) :]
        rows.append(Row(bar=bar, releases=releases, forecasts=forecasts, came=came[0] if came else None))
    return rows


def choose_symbol(page: Page, text: str) -> None:
    """Type into the search, and take its first match."""
    field = page.get_by_role("combobox", name="Symbol")
    field.click()
    field.fill(text)
    page.locator("#symbol-list li[aria-selected=true]", has_text=text).wait_for()
    field.press("Enter")


def slide(page: Page, slider: str, z: float) -> None:
    """Move a slider to a value with the arrow keys, in its steps of a quarter."""
    field = page.locator(slider)
    now = float(field.input_value())
    for _ in range(round(4 * abs(z - now))):
        field.press("ArrowRight" if z > now else "ArrowLeft")


def coloured(page: Page, colour: tuple[int, int, int], *, near: int = 40) -> int:
    """How many pixels of the chart are about of a colour."""
    image = Image.open(BytesIO(page.locator("#chart").screenshot())).convert("RGB")
    pixels: Any = image.get_flattened_data()
    return sum(
        all(abs(is_ - wanted) <= near for is_, wanted in zip(one, colour, strict=True)) for one in pixels
    )
