"""Draws docs/page.png, the README's picture of the page: `python tests/inference/page/picture.py`.

It shows the sample market on a past date, so that no clock is in it; `test_page_layout.py` draws it again and
compares.
"""

import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PICTURE: Final = Path(__file__).parents[3] / "docs" / "page.png"
SHOWN: Final = "#symbol=SPY&as_of=2025-06-06&horizon=10&if=fomc_rate_decision@2025-06-10:2"
WIDTH, HEIGHT = 1280, 920
CHROMIUM: Final = "/usr/bin/chromium"
TILE: Final = 8
"""Pixels that are looked at together, so that the smoothing of letters does not count."""
SAME: Final = 16
"""Of 255: a tile that differs by more shows something else."""


def take(browser: Browser, address: str) -> bytes:
    """A PNG of the page of a demo at this address."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", timezone_id="Europe/Berlin"
    )
    page = context.new_page()
    page.goto(f"{address}/ui{SHOWN}")
    page.locator(".range-what-if").first.wait_for(timeout=60_000)
    page.locator("#trust table").first.wait_for()
    page.wait_for_timeout(300)  # the chart draws in the next frames
    picture = page.screenshot()
    context.close()
    return picture


def difference(one: bytes, other: bytes) -> float:
    """The share of tiles that show something else; 1 where the sizes differ."""
    first, second = (_tiles(picture) for picture in (one, other))
    if first.shape != second.shape:
        return 1.0
    return float((np.abs(first - second) > SAME).mean())


def _tiles(picture: bytes) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    image = Image.open(BytesIO(picture)).convert("L")
    pixels = np.asarray(image.resize((image.width // TILE, image.height // TILE), Image.Resampling.BOX))
    return pixels.astype(np.float64)


def _main() -> None:
    command = [sys.executable, "-m", "kronos_service.inference", "serve", "--demo"]
    demo = subprocess.Popen(
        command,
        env=os.environ | {"KRONOS_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert demo.stdout is not None
    try:
        address = next(found[1] for line in demo.stdout if (found := re.match(r"open (http://\S+)/ui", line)))
        with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
            Image.open(BytesIO(take(browser, address))).convert("RGB").save(PICTURE, optimize=True)
    finally:
        demo.terminate()
        demo.wait(timeout=60)


if __name__ == "__main__":
    _main()
