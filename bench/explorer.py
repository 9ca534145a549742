"""Measure the explorer's page: how long writing it takes, how soon its first picture shows, how fast dragging is.

`make bench-explorer` uses two runs: `vae` on Fashion-MNIST with 60,000 points, and `conv` with 512 latents on generated
64x64x3 pictures. They are trained for a few steps only, since speed does not depend on quality. Their pages are opened
from a file in Chromium without a GPU, and the browser's own input events move the pointer, as a mouse would.
Writes docs/explorer.md.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Page, async_playwright

import vaekit as vk
from vaekit.utils.files import write_text

HERE = Path(__file__).parent
RUNS = HERE / ".runs" / "explorer"
DOCS = HERE.parent / "docs"
DECODES, FRAMES = 60, 60
DRAGGING, MOVES = 4.0, 100
"""Seconds of dragging, and events of the pointer per second."""
ROUNDS = 3
SHOWN = {"size_mb": 1, "points": 0, "first_picture_s": 2, "ready_s": 2, "decodes_s": 0, "limit_s": 0, "frames_s": 0,
         "pictures_s": 0, "frame_ms": 0}  # fmt: skip
"""The numbers of a page, and the digits after the point with which they are given."""
FLAGS = ["--no-sandbox", "--disable-gpu"]
SCREEN = {"width": 1280, "height": 900}

DECODE = """async (n) => {
    const D = vaekit.meta.latent.dims, z = new Float32Array(D);
    await vaekit.decode("bench", z);
    const start = performance.now();
    for (let k = 0; k < n; k++) { z[0] = Math.sin(k); await vaekit.decode("bench", z); }
    return n / ((performance.now() - start) / 1000);
}"""
WATCH = """new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.firstPicture ??= entry.renderTime || entry.startTime;
}).observe({ type: "element", buffered: true });"""
COUNT = """() => {  // count the frames, and those that show a new picture
    window.counted = { frames: 0, pictures: 0 };
    let before = vaekit.timing.pictures;
    const tick = () => {
        const now = vaekit.timing.pictures;
        counted.frames++;
        if (now > before) counted.pictures++;
        before = now;
        requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
}"""
COUNTED = "({ ...counted, at: performance.now() })"
BARE = """async (seconds) => {
    const face = document.querySelector("canvas").getContext("2d"), image = new ImageData(28, 28);
    const start = performance.now();
    let n = 0, now = start;
    for (; now - start < 1000 * seconds; n++) {
        image.data.fill(255 - (n % 2));
        face.putImageData(image, 0, 0);
        await new Promise(requestAnimationFrame);
        now = performance.now();
    }
    return (1000 * n) / (now - start);
}"""
PAN = """async (n) => {
    const times = [];
    let last = performance.now();
    for (let k = 0; k < n; k++) {
        vaekit.plot.zoom(k % 2 ? 1.02 : 1 / 1.02);
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        times.push(now - last);
        last = now;
    }
    return times.sort((a, b) => a - b)[n >> 1];
}"""


def fashion() -> vk.Run:
    path = RUNS / "fashion"
    return vk.open(path) if path.exists() else vk.fit("fashion-mnist", "vae", out=path, steps=50, progress=False)


def colour() -> vk.Run:
    rng = np.random.default_rng(0)
    shape = rng.integers(0, 256, (400, 4, 4, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    data, path = vk.from_arrays(shape), RUNS / "colour"
    if path.exists():
        return vk.open(path, data=data)
    return vk.fit(data, "conv", out=path, steps=2, compile="off", progress=False)


def written(run: vk.Run) -> tuple[Path, dict[str, tuple[float, float]]]:
    """The page of a run, and the wall and CPU seconds of each part of writing it, from one report to the next."""
    parts: dict[str, tuple[float, float]] = {}
    now = "starting", time.perf_counter(), time.process_time()

    def report(part: str, done: int, of: int) -> None:
        nonlocal now
        before, wall, cpu = now
        now = part, time.perf_counter(), time.process_time()
        spent = parts.get(before, (0.0, 0.0))
        parts[before] = spent[0] + now[1] - wall, spent[1] + now[2] - cpu

    page = run.explore(run.path / "explorer.html", progress=report)
    report("end", 0, 0)
    return page, parts


async def dragged(tab: Page) -> tuple[float, float]:
    """Frames per second, and pictures shown per second, while the pointer drags the code over the map."""
    box = await tab.locator(".field").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await tab.mouse.move(x, y)
    await tab.mouse.down()
    await tab.mouse.move(x + 9, y, steps=9)
    await tab.evaluate(COUNT)
    mouse, sent = await tab.context.new_cdp_session(tab), []
    before, start = await tab.evaluate(COUNTED), time.perf_counter()
    for k in range(int(DRAGGING * MOVES)):  # as a mouse does, without waiting for the page
        t = k / MOVES
        at = {"x": x + 90 * math.cos(4 * t), "y": y + 90 * math.sin(5 * t), "button": "left", "buttons": 1}
        sent.append(asyncio.ensure_future(mouse.send("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})))
        await asyncio.sleep(max(0.0, start + t + 1 / MOVES - time.perf_counter()))
    after = await tab.evaluate(COUNTED)
    await asyncio.gather(*sent)
    await tab.mouse.up()
    seconds = (after["at"] - before["at"]) / 1000
    frames, pictures = ((after[name] - before[name]) / seconds for name in ("frames", "pictures"))
    return frames, pictures


async def limit(browser: Any) -> float:
    """Frames per second of a page with nothing but a small picture that changes at every frame."""
    tab = await browser.new_page(viewport=SCREEN)
    await tab.set_content('<canvas width="28" height="28" style="width: 266px"></canvas>')
    found: float = await tab.evaluate(BARE, DRAGGING)
    await tab.close()
    return found


async def measured(browser: Any, page: Path) -> dict[str, float]:
    most = await limit(browser)
    tab = await browser.new_page(viewport=SCREEN)
    await tab.set_content("<h1>Before</h1>")  # a browser that has just started draws its first frame late
    await tab.screenshot()
    await tab.add_init_script(WATCH)
    start = time.perf_counter()
    await tab.goto(f"file://{page.resolve()}", wait_until="commit")
    await tab.wait_for_selector("body[data-ready]", timeout=120_000)
    ready = time.perf_counter() - start
    await tab.wait_for_timeout(1000)  # the strips of the sliders are decoded
    frames, pictures = await dragged(tab)
    numbers = {
        "size_mb": page.stat().st_size / 1e6,
        "points": await tab.evaluate("vaekit.meta.limits.points"),
        "first_picture_s": await tab.evaluate("window.firstPicture") / 1000,
        "ready_s": ready,
        "decodes_s": await tab.evaluate(DECODE, DECODES),
        "limit_s": most,
        "frames_s": frames,
        "pictures_s": pictures,
        "frame_ms": await tab.evaluate(PAN, FRAMES),
    }
    await tab.close()
    return numbers


async def opened(page: Path) -> tuple[dict[str, list[float]], str]:
    """The numbers of a page over ROUNDS times it was opened, sorted; and the browser's version."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    async with async_playwright() as p:
        browser = await p.chromium.launch(executable_path=program, args=FLAGS)
        found = [await measured(browser, page) for _ in range(ROUNDS)]
        version = browser.version
        await browser.close()
    return {name: sorted(f[name] for f in found) for name in found[0]}, version


def middle(values: list[float], digits: int) -> str:
    """The median with the range: `61 (58-62)`."""
    low, median, high = (f"{values[i]:,.{digits}f}" for i in (0, len(values) // 2, -1))
    return median if low == high else f"{median} ({low}-{high})"


def main() -> None:
    rows, parts = [], []
    for name, run in (("`vae`, Fashion-MNIST", fashion()), ("`conv`, 64x64x3, 512 latents", colour())):
        page, spent = written(run)
        m, version = asyncio.run(opened(page))
        cells = [middle(m[n], digits) for n, digits in SHOWN.items()]
        rows.append(f"| {' | '.join([name, *cells])} |")
        whole = tuple(map(sum, zip(*spent.values(), strict=True)))
        parts += [f"| {name} | {part} | {wall:.1f} | {cpu:.1f} |" for part, (wall, cpu) in spent.items()]
        parts.append(f"| {name} | **all** | **{whole[0]:.1f}** | **{whole[1]:.1f}** |")
        print("\n".join([rows[-1], *parts[-len(spent) - 1 :]]), flush=True)
    lines = [
        "# The explorer's page: speed and size",
        "",
        f"Made by `make bench-explorer` with Chromium {version}, without a GPU (pages are drawn by the CPU), on",
        f"{os.cpu_count()} cores; the load average was {os.getloadavg()[0]:.1f} at the end. Pages were opened from a",
        f"file, {ROUNDS} times each: the median is given, with the range.",
        "",
        "| run | MB | points | first picture, s | decoder ready, s | decodes per s | frames per s, bare page "
        "| frames per s, dragging | pictures per s, dragging | ms per map frame |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "The *first picture* is stored in the page, and is drawn before the decoder is *ready*. *Decodes* are",
        "sequential. While *dragging*, the pointer moves the [code](glossary.md#code) on the map, and a picture counts",
        "if a frame shows it. Chromium draws at most about 60 frames per second, even of a *bare page* with only one",
        "small picture. *Map frame* is the time between two frames while zooming.",
        "",
        "## Writing a page",
        "",
        "Wall and CPU seconds of each part, from its first report to that of the next part.",
        "",
        "| run | part | wall, s | CPU, s |",
        "|---|---|---|---|",
        *parts,
        "",
    ]
    write_text(DOCS / "explorer.md", "\n".join(lines))


if __name__ == "__main__":
    main()
