"""The explorer in the frame that a notebook's cell has: it decodes there, and cannot reach the notebook."""

import shutil

import pytest
from explorer_helpers import LONG, trained

playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="the page's tests need chromium")
def test_it_decodes_in_a_cell(tmp_path):
    run = trained(tmp_path / "run", names=["a", "b", "c"])
    shown = run.explore(tmp_path / "page.html", points=20, tsne=0)
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>notebook</title>{shown._repr_html_()}", encoding="utf8")
    wrong = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=LONG)
        page = browser.new_context(offline=True).new_page()
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.goto(f"file://{notebook}")
        page.frame_locator("iframe").locator("body[data-ready]").wait_for()
        frame = page.frames[1]
        before = frame.evaluate("vaekit.hash()")
        frame.evaluate("vaekit.change({ z: vaekit.state.z.map((v) => v + 1), anchor: -1 })")
        x = frame.evaluate("vaekit.decode('test', vaekit.state.z).then((x) => x.length)")
        assert x == 30
        assert frame.evaluate("vaekit.hash()") != before
        frame.wait_for_timeout(400)  # until the address would have been changed
        assert (
            frame.evaluate("(() => { try { return parent.document.title } catch (e) { return e.name } })()")
            == "SecurityError"
        )
        assert frame.locator("button", has_text="Copy link").count() == 0
        browser.close()
    assert wrong == []
