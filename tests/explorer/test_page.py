"""The explorer's page in a real browser: opened from a file, offline, with class names that would like to be HTML."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil

import numpy as np
import pytest
import torch
from explorer_helpers import HOSTILE, LONG, pictures, trained
from PIL import Image

import vaekit as vk
from vaekit.explorer import write_explorer
from vaekit.utils.files import read_json, write_json

playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="the page's tests need chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=FLAGS, timeout=LONG)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of pictures with hostile class names and a stored density that is said to fit, and its page."""
    run = trained(tmp_path_factory.mktemp("page") / "run")
    run.fit_latents("gmm", components=2, steps=2)
    file = run.path / "latents" / "gmm.json"
    record = read_json(file)
    record["held_out"]["log_density"] = 0.0
    write_json(file, record)
    return run, write_explorer(run, run.path / "page.html", tsne=30)


class Opened:
    """A page that was opened, with all that it asked for and complained of."""

    def __init__(self, browser, path, hash="", width=1280, height=900, dark=False):
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            offline=True,
            accept_downloads=True,
            color_scheme="dark" if dark else "light",
        )
        self.context.set_default_timeout(LONG)
        self.page = self.context.new_page()
        self.asked, self.wrong = [], []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.goto(f"file://{path}{hash}")
        self.page.wait_for_selector("body[data-ready]")

    def _heard(self, message):
        own = "willReadFrequently" in message.text  # the tests read canvases, the page hardly does
        if message.type in ("error", "warning") and not own:
            self.wrong.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()
        if error[0] is None:
            assert self.wrong == []
            assert [u for u in self.asked if not u.startswith(("file:", "blob:", "data:"))] == []

    def js(self, code, *given):
        return self.page.evaluate(code, *given)

    def frames(self, n):
        """Wait until the page was drawn n times."""
        self.js("async (n) => { for (let i = 0; i < n; i++) await new Promise(requestAnimationFrame); }", n)

    @property
    def z(self):
        return np.array(self.js("Array.from(vaekit.state.z)"), np.float32)

    def shows(self, place, text):
        """Whether an element comes to contain a text; texts follow the code after a moment."""
        try:
            self.page.wait_for_function(
                "([place, text]) => document.querySelector(place).innerText.includes(text)", arg=[place, text]
            )
        except playwright.TimeoutError:
            return False
        return True

    def tab(self, name):
        self.page.click(f"#tab-{name}")
        self.page.wait_for_selector(f"#panel-{name}:not([hidden])")

    def saved(self, click):
        with self.page.expect_download() as waiting:
            click()
        return open(waiting.value.path(), "rb").read()


@pytest.fixture
def opened(browser, made):
    with Opened(browser, made[1]) as page:
        yield page


def test_what_it_decodes_is_what_torch_decodes(opened, made):
    run, _ = made
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = np.array(opened.js("async (z) => Array.from(await vaekit.decode('t', z, 5))", z.ravel().tolist()))
    expected = run.decode(z)
    np.testing.assert_allclose(found.reshape(expected.shape) / 255, expected / 255, atol=1e-3)
    x = pictures(4, seed=9)
    code = opened.js(
        "async (x) => Array.from((await vaekit.request('t', 'encode', {x}, 4)).z)", x.astype(float).ravel().tolist()
    )
    assert np.isfinite(code).all()
    assert len(code) == 4 * 3


def test_codes_that_are_small_images(browser, tmp_path):
    """Residual blocks, attention and codes with a grid in the browser."""
    run = trained(tmp_path / "run", "grid", latent=18)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in run.model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    z = np.random.default_rng(0).normal(size=(4, 18)).astype(np.float32)
    with Opened(browser, write_explorer(run, points=20, tsne=0)) as page:
        found = np.array(page.js("async (z) => Array.from(await vaekit.decode('t', z, 4))", z.ravel().tolist()))
    expected = run.decode(z)
    np.testing.assert_allclose(found.reshape(expected.shape) / 255, expected / 255, atol=3e-3)  # weights in float16
    assert expected.std(0).mean() > 5


def test_its_estimate_of_log_p_is_the_runs(opened, made):
    run, _ = made
    x = np.where(pictures(1, seed=3) > 127, 255, 0).astype(np.uint8)
    weights = opened.js(
        """async (x) => {
            const f = await vaekit.request('t', 'weights', {x: Array(400).fill(x).flat()}, 400, 5);
            return Array.from(f.log_px, (v, k) => v + f.log_pz[k] - f.log_qz[k]);
        }""",
        x.astype(float).ravel().tolist(),
    )
    weights = np.array(weights)
    top = weights.max()
    found = top + math.log(np.exp(weights - top).mean())
    error = np.exp(weights - top).std() / np.exp(weights - top).mean() / math.sqrt(400)
    assert found == pytest.approx(run.score(x, samples=4000)[0], abs=5 * error + 0.01)


def test_names_from_data_are_text(opened):
    shown = opened.page.locator(".legend").inner_text()
    for name in HOSTILE:
        assert name.replace("\u2028", "").split()[0] in shown
    assert opened.page.locator(".legend script, h1 b").count() == 0
    assert "<b>blobs</b>" in opened.page.locator("h1").inner_text()


def test_the_map_is_walked_on_with_mouse_keys_and_wheel(opened):
    page, field = opened.page, opened.page.locator(".field")
    box = field.bounding_box()
    before = opened.z
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 260, steps=6)
    page.mouse.up()
    walked = opened.z
    assert np.abs(walked - before).max() > 1e-3
    assert opened.js("vaekit.state.anchor") == -1
    assert "Custom code" in page.locator(".original").inner_text()
    field.focus()
    page.keyboard.press("ArrowRight")
    assert np.abs(opened.z - walked).max() > 1e-6
    page.keyboard.press("r")  # a sample of the prior
    drawn = opened.z
    page.mouse.wheel(0, -400)
    page.get_by_role("radio", name="Two latents").click()
    assert opened.js("vaekit.state.map") == "pair"
    page.get_by_label("Latent on the vertical axis").select_option(index=2)
    page.get_by_role("radio", name="t-SNE").click()
    assert "iterations from the first two principal components" in page.locator(".note").inner_text()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for colour in ("error", "none", "label"):
        page.get_by_label("Colour of the points").select_option(colour)
    page.get_by_role("button", name="Show all").click()
    page.locator(".chip").first.click()
    assert page.locator(".chip").first.get_attribute("aria-pressed") == "false"
    assert np.isfinite(drawn).all()


def test_codes_are_drawn_from_the_prior_and_from_the_stored_density(made, opened):
    run, page = made[0], opened.page
    own = {name: run.sample_latents(2000, latents=name) for name in ("prior", "gmm")}
    for click, name in ((lambda: page.get_by_role("button", name="Sample prior").click(), "prior"),
                        (lambda: page.get_by_role("button", name="Sample gmm").click(), "gmm"),
                        (lambda: page.keyboard.press("r"), "gmm")):  # fmt: skip
        click()
        near = {other: np.abs(z - opened.z).max(1).min() for other, z in own.items()}
        assert near[name] < 1 / 64
        assert near["gmm" if name == "prior" else "prior"] > near[name]


@pytest.mark.parametrize("kind", ["webgl2", "2d"])
def test_points_are_drawn_either_way(browser, made, kind):
    with Opened(browser, made[1], f"?points={kind}") as page:
        assert page.js("vaekit.plot.drawing.kind") == kind
        page.js("vaekit.change({colour: 'label'})")
        page.frames(3)
        shot = Image.open(io.BytesIO(page.page.locator(".field").screenshot())).convert("RGB")
        x = np.asarray(shot, int)
        assert ((x.max(-1) - x.min(-1)) > 80).sum() > 200  # pixels with a colour: those of points


def test_a_datum_is_picked_by_its_point_and_seen_on_hover(opened):
    page = opened.page
    box = page.locator(".field").bounding_box()
    place = opened.js(
        """() => {
            const f = document.querySelector(".field"), r = f.getBoundingClientRect();
            for (let y = 10; y < r.height; y += 6) for (let x = 10; x < r.width; x += 6) {
                const place = {clientX: r.left + x, clientY: r.top + y, pointerId: 1};
                f.dispatchEvent(new PointerEvent("pointermove", place));
                if (!document.querySelector(".hover").hidden) return [x, y];
            }
        }"""
    )
    page.mouse.click(box["x"] + place[0], box["y"] + place[1])
    assert opened.js("vaekit.state.anchor") >= 0
    assert "example" in page.locator(".original").inner_text()
    page.get_by_role("button", name="Sample posterior").click()
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("radio", name="Sample").click()
    page.get_by_role("button", name="Resample").click()
    assert opened.js("vaekit.state.drawn && vaekit.state.seed === 2")


def test_a_frame_shows_one_picture_of_the_newest_code(opened):
    """However often the code changes between two frames."""
    pictures, shown, expected = opened.js(
        """async () => {
            const frame = () => new Promise(requestAnimationFrame), { change, decode, state, timing } = vaekit;
            await frame();
            const before = timing.pictures;
            for (const v of [-2, -1, 0, 1, 2]) change({ z: new Float32Array(3).fill(v), anchor: -1 });
            while (timing.pictures === before) await frame();
            const x = await decode("t", state.z); // the decoder answers in turn, so no picture can come later
            const face = document.querySelector(".face"), { data } = face.getContext("2d").getImageData(0, 0, 5, 6);
            return [timing.pictures - before, Array.from(data), Array.from(x)];
        }"""
    )
    assert pictures == 1
    np.testing.assert_allclose(np.reshape(shown, (30, 4))[:, 0], expected, atol=0.51)


def test_off_the_data_is_said(opened):
    opened.js("vaekit.change({z: new Float32Array(vaekit.state.z.length).fill(9), anchor: -1})")
    assert opened.shows(".where", "Far from the data")
    opened.js("vaekit.change({z: Float32Array.from(vaekit.meta.latent.centre)})")
    assert opened.shows(".where", "Typical code")


def test_sliders_move_one_latent_and_show_its_film(opened):
    page = opened.page
    slider = page.locator("#panel-sliders .track input").first
    before = opened.z
    slider.focus()
    page.keyboard.press("ArrowRight")
    moved = np.flatnonzero(opened.z != before)
    assert len(moved) == 1
    page.wait_for_selector(".strip canvas")
    chosen = []
    for k in (0, 6):  # the buttons lie above their pictures, which share a canvas
        page.locator(".strip").first.locator("button").nth(k).click(position={"x": 5, "y": 5})
        chosen.append(opened.z[moved[0]])
    middle, reach = (opened.js(f"vaekit.meta.latent.{n}")[moved[0]] for n in ("centre", "scale"))
    ends = middle + np.array([-1, 1]) * 3.2 * 6 / 7 * max(reach, 0.05)
    np.testing.assert_allclose(chosen, ends, atol=1e-5)


def keep_two(opened):
    opened.tab("between")
    for name in "AB":
        opened.page.get_by_role("button", name=f"Use a random example as {name}").click()
    opened.page.wait_for_selector("#panel-between .strip canvas")


def test_paths_are_scrubbed_played_and_saved(opened):
    page = opened.page
    opened.js("Math.random = () => 0.5")  # the same example for both ends, whose codes must differ nevertheless
    keep_two(opened)
    a, b = (np.array(opened.js(f"Array.from(vaekit.state.{n})"), np.float32) for n in "ab")
    assert (a != b).any()
    page.get_by_role("radio", name="Straight").click()
    page.get_by_label("Position between A and B").fill("0.25")
    np.testing.assert_allclose(opened.z, 0.75 * a + 0.25 * b, atol=1e-5)
    at = opened.z.tolist()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("(at) => vaekit.state.z.some((v, i) => v !== at[i])", arg=at)
    page.keyboard.press("Escape")
    still = opened.z
    opened.frames(5)
    np.testing.assert_array_equal(opened.z, still)
    opened.js("[-4, 4].forEach((v, i) => vaekit.change({['ab'[i]]: new Float32Array(3).fill(v)}))")
    film = Image.open(io.BytesIO(opened.saved(lambda: page.get_by_role("button", name="Save GIF").click())))
    assert film.n_frames == 46
    first = np.asarray(film.convert("L"), float)
    film.seek(23)
    assert np.abs(np.asarray(film.convert("L"), float) - first).max() > 0
    strip = Image.open(io.BytesIO(opened.saved(lambda: page.get_by_role("button", name="Save strip").click())))
    assert strip.width > 10 * strip.height / 2
    page.get_by_role("button", name="New corners").click()
    page.wait_for_selector(".grid button")
    page.locator(".grid button").nth(24).click()
    assert page.locator(".grid button").count() == 49


def test_a_gif_holds_the_pixels_it_was_given(opened):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 40, 50, 1)).repeat(3, -1)  # grey: 256 colours are enough for exactness
    raw = opened.js(
        """async (frames) => {
            const { gif } = await import(vaekitModules["gif.js"]);
            const images = frames.map((f) => {
                const image = new ImageData(50, 40);
                f.forEach((v, i) => image.data.set([v, v, v, 255], 4 * i));
                return image;
            });
            return Array.from(new Uint8Array(await gif(images).arrayBuffer()));
        }""",
        frames[..., 0].reshape(3, -1).tolist(),
    )
    film = Image.open(io.BytesIO(bytes(raw)))
    for k in range(3):
        film.seek(k)
        np.testing.assert_array_equal(np.asarray(film.convert("RGB")), frames[k])


def test_edits_by_class_by_brush_and_by_arithmetic(opened):
    page = opened.page
    keep_two(opened)
    opened.tab("edit")
    page.get_by_label("To class").select_option(index=1)
    page.locator("#panel-edit").get_by_role("button", name="Use", exact=True).click()
    before = opened.z
    page.get_by_label("Strength of the edit").fill("1")
    z = np.array(opened.js("Array.from(vaekit.state.z)"))
    assert np.abs(z - before).max() > 1e-4
    box = page.locator(".field").bounding_box()
    for group, left in (("Select A", 0.05), ("Select B", 0.5)):
        page.get_by_role("radio", name=group).click()
        page.mouse.move(box["x"] + left * box["width"], box["y"] + 5)
        page.mouse.down()
        for x, y in ((left + 0.45, 0.02), (left + 0.45, 0.97), (left, 0.97)):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        page.mouse.up()
    page.get_by_role("button", name="Use A → B").click()
    assert "Group A → group B" in page.locator("#panel-edit").inner_text()
    page.get_by_role("button", name="Use A − B").click()
    start = opened.z
    page.get_by_label("Strength of the edit").fill("1")
    a, b = (np.array(opened.js(f"Array.from(vaekit.state.{n})"), np.float32) for n in "ab")
    np.testing.assert_allclose(opened.z, start + a - b, atol=1e-4)


def test_a_picture_of_ones_own(opened, tmp_path):
    page = opened.page
    opened.tab("own")
    file = tmp_path / "mine.png"
    Image.fromarray(pictures(1, seed=5)[0]).resize((50, 60)).save(file)
    page.set_input_files("#panel-own input[type=file]", str(file))
    page.wait_for_function("() => document.querySelector('.own-results').innerText.includes('log p(x) ≥')")
    assert page.locator(".neighbours button").count() == 6
    pad = page.locator(".pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 90, steps=5)
    before = opened.z.tolist()
    page.mouse.up()
    page.wait_for_function("(before) => vaekit.state.z.some((v, i) => v !== before[i])", arg=before)
    (tmp_path / "not.png").write_text("no image")
    page.set_input_files("#panel-own input[type=file]", str(tmp_path / "not.png"))
    page.wait_for_function("() => document.getElementById('message').textContent.includes('cannot be read')")


def test_the_first_picture_is_there_before_anything_runs(browser, made):
    run, path = made
    context = browser.new_context(java_script_enabled=False, offline=True)
    context.set_default_timeout(LONG)
    page = context.new_page()
    page.goto(f"file://{path}")
    picture = page.locator("#view img")
    assert picture.bounding_box()["width"] > 100
    stored = Image.open(io.BytesIO(base64.b64decode(picture.get_attribute("src").split(",")[1])))
    context.close()
    expected = run.decode(run.encode("test", n=1))[0, 0]
    np.testing.assert_allclose(np.asarray(stored.convert("L"), float), expected, atol=4)  # codes in it are rounded


def test_a_foreign_picture_is_not_called_one_of_the_data(opened, tmp_path):
    """Noise has a code among those of the data, as anything has, and a log p(x) far below theirs."""
    page = opened.page
    opened.tab("own")
    noise = np.random.default_rng(3).integers(0, 256, (6, 5), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page.set_input_files("#panel-own input[type=file]", str(tmp_path / "noise.png"))
    page.wait_for_function("() => vaekit.state.own && vaekit.state.own.share !== null")
    assert opened.shows(".where", "Unlike the data")
    assert "Your example" in page.locator(".original").inner_text()
    opened.js("vaekit.change({z: Float32Array.from(vaekit.meta.latent.centre)})")
    assert opened.js("vaekit.state.own") is None
    assert opened.shows(".where", "Typical code")


def test_a_link_brings_back_what_was_seen(browser, made, opened):
    keep_two(opened)
    opened.page.get_by_role("radio", name="Two latents").click()
    opened.js("vaekit.change({z: Float32Array.from([0.25, -1.5, 0.75]), anchor: -1, colour: 'none'})")
    hash = opened.js("'#' + vaekit.hash()")
    with Opened(browser, made[1], hash) as again:
        np.testing.assert_array_equal(again.z, np.float32([0.25, -1.5, 0.75]))
        assert again.js("[vaekit.state.map, vaekit.state.colour, vaekit.state.tab]") == ["pair", "none", "between"]
        assert again.js("'#' + vaekit.hash()") == hash
    for damaged in ("#z=%%%&at=1e9&pair=9.9&tab=%3Cb%3E", "#z=AAAA", "#nothing"):
        with Opened(browser, made[1], damaged) as other:
            assert np.isfinite(other.z).all()
            assert other.js("vaekit.state.tab") == "sliders"


def test_the_python_lines_make_the_same_picture(opened, made):
    run, _ = made
    page = opened.page
    page.get_by_role("button", name="Share").click()
    lines = page.locator("pre.python").inner_text().replace(opened.js("vaekit.meta.python"), "")
    scope = {"run": run, "vk": vk}
    exec(compile(lines, "the page", "exec"), scope)
    shown = np.array(opened.js("async () => Array.from(await vaekit.decode('t', vaekit.state.z))"))
    np.testing.assert_allclose(scope["x"].ravel() / 255, shown / 255, atol=1e-3)
    given = json.loads(opened.saved(lambda: page.get_by_role("button", name="Save z").click()))
    np.testing.assert_allclose(given["z"], opened.z, rtol=1e-6)
    png = Image.open(io.BytesIO(opened.saved(lambda: page.get_by_role("button", name="Save picture").click())))
    assert png.width >= 300


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_follows_the_readers_theme(browser, made, width, dark):
    with Opened(browser, made[1], width=width, height=844, dark=dark) as page:
        for tab in ("sliders", "between", "edit", "own", "numbers"):
            page.tab(tab)
            assert page.js("document.documentElement.scrollWidth <= innerWidth"), tab
        light = page.js("getComputedStyle(document.body).backgroundColor")
        page.page.get_by_role("button", name="Light" if dark else "Dark", exact=True).click()
        assert page.js("getComputedStyle(document.body).backgroundColor") != light
        assert "undefined" not in page.page.locator("body").inner_text()
        assert "[object" not in page.page.locator("body").inner_text()
        unnamed = page.js(
            """Array.from(document.querySelectorAll("button, input, select, textarea")).filter((e) =>
                !(e.innerText || e.ariaLabel || e.labels?.length || e.title)).map((e) => e.outerHTML)"""
        )
        assert unnamed == []


@pytest.mark.parametrize("kind", ["conditional", "ae", "vector", "two"])
def test_other_runs_have_pages_too(browser, tmp_path, kind):
    if kind == "vector":
        x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        run = vk.fit(vk.from_arrays(x), "vae", out=tmp_path / "r", steps=5, latent=3, hidden=(8,), progress=False)
    elif kind == "two":
        run = trained(tmp_path / "r", latent=2)
    else:
        run = trained(tmp_path / "r", kind)
    with Opened(browser, write_explorer(run, tmp_path / "page.html", tsne=0)) as page:
        for tab in ("between", "edit", "own", "numbers", "sliders"):
            page.tab(tab)
        page.frames(3)
        if kind == "conditional":
            before = page.z
            page.page.get_by_label("Condition").select_option(index=2)
            assert (page.z != before).any()
        if kind == "vector":
            assert page.page.locator("table.values tr").count() == 4
            page.tab("own")
            page.page.get_by_label("Values of one example").fill("1, 2, 3, 4")
            page.page.get_by_role("button", name="Encode").click()
            page.page.wait_for_function("() => document.querySelector('.own-results').innerText.includes('nats')")
        if kind == "two":
            page.page.get_by_role("radio", name="Two latents").click()
            page.page.wait_for_function(
                """() => { const c = document.querySelector("canvas.back");
                return c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"""
            )
        if kind == "ae":
            assert page.js("!vaekit.meta.graphs.weights.inputs && vaekit.meta.graphs.weights.why.length > 20")


def test_the_pages_mathematics(opened):
    """Against numpy."""
    found = opened.js(
        """async () => {
            const m = await import(vaekitModules["maths.js"]), n = m.normals(7), u = m.uniforms(7);
            return {
                slerp: Array.from(m.slerp([1, 0, 0], [0, 2, 0], 0.5)),
                lerp: Array.from(m.lerp([1, 0], [0, 2], 0.25)),
                mean: m.logMeanExp([-1000, -1001, -1002]),
                ess: m.effective([0, 0, -Infinity, 0]),
                share: m.shareBelow(Array.from({length: 101}, (_, i) => i), 25.5),
                half: Array.from(m.fromHalf(new Uint16Array([0x3c00, 0xc000, 0x0001, 0x7bff, 0x0000]))),
                normals: Array.from({length: 20000}, n), uniforms: Array.from({length: 20000}, u),
                near: m.nearest(new Float32Array([0, 0, 1, 0, 5, 5]), 2, [0.9, 0], [1, 1], 2),
            };
        }"""
    )
    np.testing.assert_allclose(found["slerp"], [1.5 / math.sqrt(2), 1.5 / math.sqrt(2), 0], atol=1e-6)
    np.testing.assert_allclose(found["lerp"], [0.75, 0.5])
    assert found["mean"] == pytest.approx(-1000 + math.log((1 + math.exp(-1) + math.exp(-2)) / 3))
    assert found["ess"] == pytest.approx(3)
    assert found["share"] == pytest.approx(0.255)
    np.testing.assert_array_equal(found["half"], np.array([0x3C00, 0xC000, 1, 0x7BFF, 0], np.uint16).view(np.float16))
    x, u = np.array(found["normals"]), np.array(found["uniforms"])
    assert abs(x.mean()) < 4 / math.sqrt(20000)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / 20000)
    assert 0 < u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 20000)
    assert [n["index"] for n in found["near"]] == [1, 0]
