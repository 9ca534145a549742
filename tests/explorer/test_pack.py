"""The page is one file whose parts come out as they went in, and nothing in the data can become markup."""

import base64
import functools
import gzip
import html.parser
import json
import re

import numpy as np
import pytest
import torch
from explorer_helpers import HOSTILE, trained

from vaekit.errors import ChoiceError
from vaekit.explorer import write, write_explorer
from vaekit.explorer.pack import Blobs, add_runtime, ordered, page, safe_json, safe_script


class Parts(html.parser.HTMLParser):
    """The script elements of a page by their attributes, and the title."""

    def __init__(self, text):
        super().__init__()
        self.blobs, self.modules, self.meta, self.title, self.tags, self.open = {}, {}, "", "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open = (tag, dict(attributes))

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, text):
        tag, attributes = self.open or ("", {})
        if "data-blob" in attributes:
            self.blobs[attributes["data-blob"]] = gzip.decompress(base64.b64decode(text))
        elif "data-module" in attributes:
            self.modules[attributes["data-module"]] = text
        elif attributes.get("id") == "meta":
            self.meta += text
        elif tag == "title":
            self.title += text

    def array(self, meta, name):
        about = meta["blobs"][name]
        return np.frombuffer(self.blobs[name], about["dtype"]).reshape(about["shape"])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "template.html").write_text(
        '<!doctype html><html><head><meta charset="utf-8"><title><!--title--></title><!--style--></head>'
        "<body><!--first--><!--data--><!--modules--></body></html>"
    )
    (tmp_path / "style.css").write_text("body { margin: 0 }")
    (tmp_path / "main.js").write_text('import { b } from "./b.js";\nimport "./a.js";\nb();\n')
    (tmp_path / "a.js").write_text("export const a = 1;\n")
    (tmp_path / "b.js").write_text('import {\n  a,\n} from "./a.js";\nexport const b = () => a;\n')
    return tmp_path


def test_what_goes_in_comes_out(folder):
    blobs = Blobs()
    x = np.arange(12, dtype=np.float16).reshape(3, 4)
    blobs.add("points.z", x)
    blobs.add("big-endian", np.arange(3, dtype=">i4"))
    blobs.add_bytes("some", b"\x00\xff</script>")
    text = page("T", {"blobs": blobs.shapes, "name": HOSTILE[0]}, blobs, folder)
    parts = Parts(text)
    meta = json.loads(parts.meta)
    np.testing.assert_array_equal(parts.array(meta, "points.z"), x)
    np.testing.assert_array_equal(parts.array(meta, "big-endian"), [0, 1, 2])
    assert parts.blobs["some"] == b"\x00\xff</script>"
    assert meta["name"] == HOSTILE[0]
    assert meta["blobs"]["some"] == {"dtype": "bytes", "shape": [11]}


def test_hostile_text_stays_text(folder):
    for text in HOSTILE:
        parts = Parts(page(text, {"labels": HOSTILE, text: text}, Blobs(), folder))
        assert parts.title == text
        assert json.loads(parts.meta)["labels"] == HOSTILE
        assert parts.tags.count("script") == 5  # meta, three modules, the boot
    assert "<" not in safe_json(HOSTILE)
    assert "\u2028" not in safe_json(HOSTILE)


def test_modules_stand_after_what_they_import(folder):
    assert list(ordered(folder)) == ["a.js", "b.js", "main.js"]
    parts = Parts(page("T", {}, Blobs(), folder))
    assert list(parts.modules) == ["a.js", "b.js", "main.js"]
    assert parts.modules["b.js"] == (folder / "b.js").read_text()


def test_modules_that_cannot_be_packed(folder):
    (folder / "a.js").write_text('import { b } from "./b.js";')
    with pytest.raises(ValueError, match=r"circle: a\.js -> b\.js -> a\.js"):
        ordered(folder)
    (folder / "a.js").write_text('import { c } from "./c.js";')
    with pytest.raises(ValueError, match=r"a\.js imports c\.js, which is missing"):
        ordered(folder)
    for text in ("</script>", "<!--", "<SCRIPT"):
        with pytest.raises(ValueError, match="write it as two strings"):
            safe_script(text)


def test_a_template_without_a_place_is_refused(folder):
    (folder / "template.html").write_text("<!--title--><!--style--><!--first--><!--data-->")
    with pytest.raises(ValueError, match="modules"):
        page("T", {}, Blobs(), folder)


def test_no_nan_in_the_pages_json():
    with pytest.raises(ValueError, match="JSON"):
        safe_json({"a": float("nan")})


def test_the_runtime_comes_with_its_licence():
    blobs = Blobs()
    about = add_runtime(blobs)
    assert "MIT" in about["licence"]
    assert "Microsoft" in about["licence"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    parts = Parts("".join(blobs.elements))
    assert parts.blobs["ort.wasm"][:4] == b"\0asm"
    assert len(parts.blobs["ort.wasm"]) == blobs.shapes["ort.wasm"]["shape"][0]
    assert b"sourceMappingURL" not in parts.blobs["ort.mjs"]
    assert b"protobuf" in parts.blobs["ThirdPartyNotices.txt"]
    assert blobs.size < 5.5e6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("page") / "run")


def test_a_page_holds_the_run(run, folder, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript", reason="needs vaekit[onnx]")
    monkeypatch.setattr(write, "page", functools.partial(page, folder=folder))
    told = []
    made = run.explore(tmp_path / "sub" / "page.html", tsne=20, progress=lambda *what: told.append(what))
    assert made == tmp_path / "sub" / "page.html"
    assert {what for what, _, _ in told} >= {"exporting", "encoding", "reconstructing", "log p(x)", "t-SNE"}
    text = made.read_text()
    assert not re.search(r'(src|href)="(https?:)?//', text)
    parts = Parts(text)
    meta = json.loads(parts.meta)
    assert meta["labels"]["names"] == HOSTILE
    assert meta["event"] | {"height": 6, "width": 5, "channels": 1, "low": 0.0, "high": 255.0} == meta["event"]
    assert set(meta["blobs"]) == set(parts.blobs)
    for name, about in meta["blobs"].items():
        if about["dtype"] != "bytes":
            parts.array(meta, name)  # as many bytes as its shape says
    n = meta["limits"]["points"]
    assert meta["points"]["test"] + meta["points"]["train"] == n == len(parts.array(meta, "points.z"))
    assert meta["limits"]["tsne"] == len(parts.array(meta, "map.tsne")) == 20
    assert [m["id"] for m in meta["maps"]] == ["pair", "pca", "tsne"]
    assert all(sd >= 1 for sd, dead in zip(meta["off"]["sd"], meta["latent"]["dead"], strict=True) if dead)
    # its decoder is the run's
    options = onnxruntime.SessionOptions()
    weights = parts.blobs["weights.bin"]
    if weights:
        options.add_external_initializers_from_files_in_memory(["weights.bin"], [weights], [len(weights)])
    session = onnxruntime.InferenceSession(parts.blobs["decode.onnx"], options)
    z = torch.randn(9, 3).numpy()
    (x,) = session.run(None, {"z": z})
    np.testing.assert_allclose(x, run.decode(z), atol=0.255)  # a thousandth of the range
    assert meta["graphs"]["decode"]["inputs"] == [{"name": "z", "shape": [3], "kind": "z"}]
    assert meta["graphs"]["encode"]["outputs"][1]["name"] == "sd"


def test_wrong_numbers_are_refused(run):
    with pytest.raises(ChoiceError, match="`points` must be at least 1"):
        write_explorer(run, points=0)
    with pytest.raises(ChoiceError, match="tsne"):
        write_explorer(run, tsne=10**6)
