"""Open every built page in Chromium, at desktop and phone width, light and dark: `make docs-look`, after `make docs`.

Fails if a page logs an error, requests anything from the network, has a formula that cannot be rendered, lacks an
image, or is wider than the screen. Saves a screenshot of each page in docs/_build/look.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

BUILT = Path(__file__).parent / "_build"
WIDTHS = (1200, 390)


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def faults(tab: Page) -> list[str]:
    """The faults of the open page."""
    wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    found = [f"{wide} pixels wider than the screen"] if wide > 0 else []
    broken = tab.evaluate(
        "[...document.images].filter(i => i.offsetParent && i.complete && !i.naturalWidth).map(i => i.src)"
    )
    found += [f"missing image {src}" for src in broken]
    unset = tab.locator("mjx-merror, [data-mjx-error]").count()
    return found + ([f"{unset} formulas could not be rendered"] if unset else [])


def main() -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("Chromium is not installed; try apt-get install chromium")
    pages = sorted((BUILT / "html").rglob("*.html"))
    if not pages:
        raise SystemExit("no pages are built; run make docs first")
    problems: list[str] = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for path in pages:
                    name = str(path.relative_to(BUILT / "html")).removesuffix(".html").replace("/", "-")
                    where = f"{name} at {width}, {scheme}"
                    tab = context.new_page()
                    report = lambda what, where=where: problems.append(f"{where}: {what}")  # noqa: E731
                    tab.on("console", lambda m, report=report: report(m.text) if m.type == "error" else None)
                    tab.on("pageerror", lambda e, report=report: report(e))
                    tab.on("request", lambda r, report=report: report(f"requests {r.url}") if outside(r.url) else None)
                    tab.goto(f"file://{path}")
                    tab.wait_for_load_state("networkidle")
                    for fault in faults(tab):
                        report(fault)
                    shot = BUILT / "look" / f"{name}-{width}-{scheme}.png"
                    shot.parent.mkdir(exist_ok=True)
                    tab.screenshot(path=shot, full_page=True)
                    tab.close()
                context.close()
        browser.close()
    print(*problems, f"{len(pages)} pages, {len(WIDTHS) * 2} views each: {len(problems)} faults", sep="\n")
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
