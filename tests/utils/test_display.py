"""The HTML of tables, pictures, lines and framed pages: escaped, small, and valid."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaekit.utils import display
from vaekit.utils.display import Page, cells, facts, framed, spark, thumbnails

HOSTILE = "<script>alert('x')</script> & \"quoted\""


class Tags(HTMLParser):
    """The elements of HTML, with their attributes, and all of its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def pixels(text):
    """The picture in an img element, uint8 (H, W, 3)."""
    (source,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def test_texts_are_escaped():
    seen = Tags(facts(HOSTILE, {HOSTILE: HOSTILE}, cells([[HOSTILE]], [HOSTILE])))
    assert {tag for tag, _ in seen.tags} == {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert seen.text == 5 * HOSTILE
    assert "<script" not in spark([1, 2, 3], HOSTILE) + thumbnails(np.zeros((1, 2, 2)), (0, 1), HOSTILE)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4)])
def test_pictures_have_the_values_of_the_images(shape):
    x = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    row = pixels(thumbnails(x, (0, 255), "three"))
    assert row.shape == (5, 15, 3)  # a white column stands after each image
    wide = x.reshape(3, 5, 4, -1)
    for i in range(3):
        seen = row[:, 5 * i : 5 * i + 4]
        for colour in range(3):
            channels = wide.shape[-1]
            expected = wide[i, ..., 0 if channels == 1 else colour] if colour < channels or channels == 1 else 0
            np.testing.assert_array_equal(seen[..., colour], expected)
    assert (row[:, 4::5] == 255).all()


def test_pictures_are_small_whatever_they_show():
    """Noise cannot be compressed: it is the largest picture that there is."""
    noise = np.random.default_rng(0).uniform(size=(40, 300, 200, 3))
    assert len(thumbnails(noise, (0, 1), "noise")) < 200_000
    nan = np.full((1, 3, 3), np.nan)
    assert (pixels(thumbnails(nan, (0, 1), "missing"))[:, :3] == 0).all()


def test_a_line_goes_through_its_values():
    drawn = ElementTree.fromstring(spark([1.0, np.nan, 3.0, 2.0], "four"))
    points = [tuple(map(float, p.split(","))) for p in drawn[0].attrib["points"].split()]
    across, down = np.array(points).T
    np.testing.assert_allclose(across, [1, 1 + 118 * 2 / 3, 119], atol=0.06)
    np.testing.assert_allclose(down, [25, 1, 13], atol=0.06)
    assert len(spark(np.random.default_rng(0).normal(size=100_000), "long")) < 10_000
    assert spark([], "none") == spark([1.0], "one") == spark([np.nan] * 3, "nan") == ""
    assert "nan" not in spark([2.0, 2.0], "constant")


def test_a_page_in_a_frame_is_the_page():
    page = '<!doctype html><p title="a &amp; b">&lt;"x"</p>'
    (frame,) = Tags(framed(page)).tags
    assert frame[0] == "iframe"
    assert frame[1]["srcdoc"] == page
    assert frame[1]["sandbox"] == "allow-scripts allow-downloads"  # never with the origin of the notebook


def test_the_path_of_a_page_is_a_path_that_is_shown(tmp_path, monkeypatch):
    path = Page(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    assert isinstance(path, Path)
    assert path._repr_html_() is None
    path.write_text("<p>here</p>", encoding="utf8")
    assert "&lt;" not in path._repr_html_()
    assert 'srcdoc="<p>here</p>"' in path._repr_html_()
    assert Page(tmp_path)._repr_html_() is None
    monkeypatch.setattr(display, "LARGEST_PAGE", 5)
    assert "iframe" not in path._repr_html_()
    assert "page.html" in path._repr_html_()
    for derived in (path.parent, path.with_suffix(".txt"), path / "x", path.resolve()):
        assert isinstance(derived, Path)
