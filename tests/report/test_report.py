"""The report: one whole file, nothing from elsewhere, hostile text harmless, every kind of data and state."""

import base64
import copy
import io
import re
import shutil
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
from explorer_helpers import LONG
from PIL import Image

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.report import numbers, write_report
from vaekit.report.look import Look
from vaekit.report.page import distinct
from vaekit.report.registry import FIGURES
from vaekit.utils.files import read_json, write_json

HOSTILE = "<script>alert('x')</script>"
VOID = {"meta", "img", "source", "br", "link"}


@pytest.fixture(scope="module", autouse=True)
def coarse_plots():
    """Plots at few dots an inch and in the light theme: the tests are faster; `page` has both themes."""
    from vaekit.figures import figure_png
    from vaekit.report import blocks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "figure_png", lambda figure: figure_png(figure, dpi=40))
        patch.setattr(blocks, "VERSIONS", ("light",))
        yield


class Page(HTMLParser):
    """Every element of a page with its attributes; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def train(data, out, **choices):
    options = {"hidden": (16,), "compile": "off", "progress": False, "device": "cpu"} | choices
    return vk.open(vk.fit(data, "vae", out=out, **options).path, data=data)


def images(n=80, shape=(8, 8), **more):
    rng = np.random.default_rng(0)
    bumps = rng.integers(0, 255, (n, *([1] * len(shape)))) * rng.integers(0, 2, (n, *shape))
    return vk.from_arrays(bumps.astype(np.uint8), **more)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = vk.fit("digits", "vae", out=tmp_path_factory.mktemp("runs") / "digits", latent=2, hidden=(16,), steps=60,
                 compile="off", progress=False, device="cpu")  # fmt: skip
    run.evaluate(samples=4, n=40)
    return run


@pytest.fixture(scope="module")
def page(digits):
    from vaekit.report import blocks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "VERSIONS", ("light", "dark"))
        path = write_report([digits])
    assert path == digits.path / "report.html"
    return path.read_text(encoding="utf8")


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page):
    p = Page(page)
    assert not p.all("script")
    assert not p.all("link")
    assert not p.all("iframe")
    assert not re.search(r"https?://", page)
    assert not re.search(r"url\(|@import", page)
    for tag, attributes in p.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset"):
                assert value.startswith("data:image/png;base64,")
    assert all(s["media"] == "(prefers-color-scheme: dark)" for s in p.all("source"))
    assert len(p.all("source")) >= 4
    (policy,) = [m["content"] for m in p.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_every_picture_is_a_png_with_an_alternative_text_and_a_caption(page, digits):
    p = Page(page)
    for img in p.all("img"):
        assert img["alt"]
        Image.open(io.BytesIO(base64.b64decode(img["src"].split(",")[1]))).verify()
    assert len(p.all("figure")) == len(p.all("figcaption")) >= 8
    stored = {f.stem for f in (digits.path / "figures").iterdir()}
    assert stored >= {"training", "reconstructions", "samples", "nearest", "interpolations", "traversals", "manifold",
                      "latent-map", "kl", "elbo-histogram", "active-units"}  # fmt: skip
    for file in (digits.path / "figures").iterdir():
        with Image.open(file) as picture:
            picture.verify()


def test_the_page_says_what_was_measured_trained_and_how_to_open_it(page, digits):
    p = Page(page)
    elbo = next(m for m in digits.metrics if m["name"] == "elbo")
    assert numbers.number(elbo["value"], elbo["se"]).split(" ± ")[0] in p.words
    for said in ("digits · vae", "IWAE-4", "n = 40", "frozen draw", "Entropy floor", "binary draw", "60 steps",
                 "learning rate 0.002", digits.config["data"]["digest"], digits.config["versions"]["torch"],
                 "vk.open(", "vaekit report", "compiled", "2 latents"):  # fmt: skip
        assert said in p.words, said
    links = [a["href"][1:] for a in p.all("a")]
    assert set(links) <= {e["id"] for _, e in p.elements if "id" in e}


def test_samples_of_the_stored_density_stand_beside_those_of_the_prior(tmp_path):
    run = train(images(), tmp_path / "run", latent=2, steps=30)
    assert [b.name for b in FIGURES["samples"].draw(Look(run))] == ["samples", "nearest"]
    look = Look(run)
    look.stored = run.fit_latents("gmm", components=2, steps=2)
    blocks = FIGURES["samples"].draw(look)
    assert [b.name for b in blocks] == ["samples", "nearest", "samples-gmm", "nearest-gmm"]
    assert "of the prior at" in blocks[0].caption
    assert "gmm, a Gaussian mixture fitted to the codes" in blocks[2].caption
    assert blocks[0].light != blocks[2].light


def test_two_reports_of_one_run_are_the_same(digits, tmp_path):
    first, second = (write_report([digits], tmp_path / name).read_text("utf8") for name in ("a.html", "b.html"))
    assert first == second


def test_hostile_names_are_text(tmp_path):
    names = [HOSTILE, '"><img src=x onerror=alert(1)>', "$x^{"]
    data = images(name=HOSTILE, label=np.arange(80) % 3, label_names=names)
    run = train(data, tmp_path / "run", steps=2, latent=3)
    p = Page(write_report([run]).read_text(encoding="utf8"))
    assert not p.all("script")
    assert all(i["src"].startswith("data:") for i in p.all("img"))
    assert all(not n.startswith("on") for _, e in p.elements for n in e)
    assert HOSTILE in p.words


KINDS = {
    "vector": lambda rng: vk.from_arrays(rng.normal(size=(60, 6)), label=[0, 1] * 30, feature_names=list("abcde<")),
    "signal": lambda rng: vk.from_arrays(rng.normal(size=(60, 16, 2)), kind="signal"),
    "counts": lambda rng: vk.from_arrays(rng.poisson(3, (60, 40)).astype(np.int32), kind="counts"),
    "colour": lambda rng: images(60, (6, 10, 3)),
    "images with gaps": lambda rng: vk.from_arrays(holes(rng.random((60, 6, 10)), rng), missing="mask"),
    "vectors with gaps": lambda rng: vk.from_arrays(holes(rng.normal(size=(60, 6)), rng), missing="mask"),
}


def holes(x, rng):
    """With a tenth of the values missing, and in the first row of the data all but one."""
    x = x.astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x.reshape(len(x), -1)[0, 1:] = np.nan
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data(kind, tmp_path):
    latent = 2 if kind == "signal" else 1 if kind == "counts" else 20
    run = train(KINDS[kind](np.random.default_rng(0)), tmp_path / "run", steps=3, latent=latent, likelihood="gaussian")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = write_report([run], tmp_path / "page.html").read_text(encoding="utf8")
    p = Page(text)
    assert "vaekit evaluate" in p.words  # nothing measured yet
    assert "are unavailable" not in p.words
    assert (tmp_path / "run" / "figures" / "reconstructions.png").exists()
    assert (tmp_path / "run" / "figures" / "reconstruction-heat.png").exists() == (
        kind in ("vector", "counts", "vectors with gaps")
    )
    assert ("issing values" in p.words) == ("gaps" in kind)
    assert "nan" not in p.words.lower().split()
    assert (tmp_path / "run" / "figures" / "manifold.png").exists() == (latent == 2)


def test_without_the_data_the_rest_is_there_and_says_why(tmp_path):
    run = train(images(), tmp_path / "run", steps=2, latent=2)
    config = read_json(run.path / "run.json")
    cut = {"state": "interrupted", "step": 2, "plan": {"horizon": 50, "epochs": 1.0}}
    write_json(run.path / "run.json", config | cut)
    (run.path / "log.jsonl").unlink()
    p = Page(write_report([vk.open(run.path)]).read_text(encoding="utf8"))
    for said in ("are unavailable", "interrupted at step 2 of 50", "--resume", "no record of training", "manifold"):
        assert said in p.words, said
    assert (run.path / "figures" / "samples.png").exists()
    assert not (run.path / "figures" / "reconstructions.png").exists()


def test_runs_side_by_side(digits, tmp_path):
    path = write_report([digits, digits], tmp_path / "both.html")
    p = Page(path.read_text(encoding="utf8"))
    ids = [e["id"] for _, e in p.elements if "id" in e]
    assert len(ids) == len(set(ids))
    assert "2 runs compared" in p.words
    assert "Numbers in one column were measured in the same way" in p.words
    with pytest.raises(ChoiceError, match="one run"):
        write_report([])


def test_numbers_of_unlike_protocols_never_share_a_column(digits):
    mine = digits.metrics
    theirs = copy.deepcopy(mine)
    for m in theirs:
        m["protocol"] |= {"n": 7}
    same, different = numbers.comparison({"a": mine, "b": mine}), numbers.comparison({"a": mine, "b": theirs})
    (table,) = [b for b in same if b.kind == "table"]
    assert all(all(row) for row in table.rows)
    table = next(b for b in different if b.kind == "table")
    for column in range(1, len(table.head)):
        assert sum(row[column] != "–" for row in table.rows) == 1
    (warning,) = [b for b in different if b.kind == "text" and b.tone == "warning"]
    assert "ELBO: n" in warning.text
    assert "No run has been evaluated" in numbers.comparison({"a": [], "b": []})[0].text


def test_a_comparison_says_what_was_not_measured(digits):
    few = [m for m in digits.metrics if m["name"] in ("elbo", "rate")]
    blocks = numbers.comparison({"all": digits.metrics, "few": few, "none": []})
    (note,) = [b.text for b in blocks if b.kind == "text" and b.tone == "note"]
    assert "few has no Distortion, log p(x)" in note
    assert "none has no ELBO" in note
    assert "all has" not in note
    assert "vaekit evaluate" in note


def test_the_table_of_numbers_reads_on_a_phone(digits, tmp_path):
    """No cell is cut off at the width of a phone, and each says its column."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("the page's tests need chromium")
    path = write_report([digits, digits], tmp_path / "both.html")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=LONG)
        page = browser.new_context(viewport={"width": 375, "height": 800}, offline=True).new_page()
        page.goto(f"file://{path}", timeout=LONG)
        cells = page.evaluate(
            """() => [...document.querySelectorAll('.stacks td')].filter(e => e.offsetParent).map(e => [
                e.getBoundingClientRect().right, e.scrollWidth - e.clientWidth, getComputedStyle(e, '::before').content
            ])"""
        )
        browser.close()
    assert len(cells) > 10
    for right, over, head in cells:
        assert right <= 375
        assert over <= 1
        assert len(head) > 3


@pytest.mark.parametrize(
    ("value", "se", "text"),
    [(-279.741, 0.972, "−279.74 ± 0.97"), (12345.6, 31.0, "12,346 ± 31"), (39, None, "39"),
     (0.50531, 0.0066, "0.5053 ± 0.0066"), (1.0, 0.0, "1.00")],
)  # fmt: skip
def test_numbers_show_what_their_error_allows(value, se, text):
    assert numbers.number(value, se) == text


def test_names_of_runs_are_told_apart():
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
