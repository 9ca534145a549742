"""Make the README's picture of the explorer, a screenshot of the packaged example's page. Needs Chromium.

python docs/screenshot.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import vaekit as vk

PICTURE = Path(__file__).parent / "images" / "explorer.png"


def main() -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        page = vk.open("example").explore(Path(folder) / "example.html")
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(f"file://{page}")
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        tab.wait_for_selector(".strip canvas")
        tab.wait_for_timeout(3000)  # the film strips, one after another
        tab.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
