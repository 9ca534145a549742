"""What a notebook shows of data, runs and metrics, and sections of the report: in objects, and in a real kernel."""

import json
import re

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.errors import ChoiceError, DataError
from vaekit.metrics import Measured
from vaekit.report.registry import FIGURES

HOSTILE = "<script>alert(1)</script>"
KB = 200_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on small pictures with hostile names, with stored metrics."""
    data = vk.from_arrays(blobs(70), label=np.arange(70) % 2, label_names=[HOSTILE, "b"], name=f"<b>{HOSTILE}")
    made = vk.fit(data, out=tmp_path_factory.mktemp("cells") / "run", latent=2, hidden=(8,), steps=8, **QUIET)
    made.evaluate(samples=2, metrics=["elbo", "rate", "mse"])
    return made


def shows(value):
    text = value._repr_html_()
    assert "<script" not in text
    assert len(text) < KB
    return text


def test_data(run):
    text = shows(run.data)
    assert "&lt;script&gt;" in text
    assert 'alt="The first 10 training images"' in text
    assert repr(run.data).startswith("<b>")  # the plain text is as before
    assert "\n" not in repr(run.data)


def test_tables_signals_and_counts(tmp_path):
    (tmp_path / "t.csv").write_text(
        "a,kind,<i>c</i>\n" + "".join(f"{i / 7},{'xy'[i % 2]},{i % 3}\n" for i in range(60))
    )
    table = shows(vk.load(tmp_path / "t.csv"))
    assert "&lt;i&gt;c" in table
    assert re.search(r">x</td>|>y</td>", table)
    wide = shows(vk.from_arrays(np.random.default_rng(0).normal(size=(60, 5000)).astype("f4")))
    assert "4,990 more" in wide
    assert shows(vk.from_arrays(np.random.default_rng(0).normal(size=(60, 50)), kind="signal")).count("<svg") == 5
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[4:, 0] = np.nan
    assert "missing</td>" in shows(vk.from_arrays(x, missing="mask"))


def test_rows_that_are_gone_do_not_stop_the_display(run, monkeypatch):
    def gone(self, rows):
        raise DataError("gone")

    monkeypatch.setattr("vaekit.data.core.Split.__getitem__", gone)
    assert "cannot be read any more" in run.data._repr_html_()


def test_a_run(run):
    text = shows(run)
    for part in ("finished, 8 steps", "Samples of the prior", "<td", "mse"):
        assert part in text
    assert repr(run).startswith("vae(")


def test_metrics_are_a_list_with_a_display(run):
    assert isinstance(run.metrics, Measured)
    assert run.metrics == json.loads(json.dumps(run.metrics)) == list(run.metrics)
    assert repr(run.metrics) == repr(list(run.metrics))
    measured = run.evaluate(samples=2, metrics=["elbo", "rate"])
    text = shows(measured)
    for m in measured:
        assert f">{m['name']}</td>" in text
    assert "±" in text
    assert "higher</td>" in text
    hostile = [{"name": HOSTILE, "value": 1.0, "se": None, "unit": HOSTILE, "protocol": {"data": HOSTILE}}]
    assert shows(Measured(hostile)).count("&lt;script&gt;") == 3
    assert "No metrics" in shows(Measured())


def test_sections_of_the_report(run, tmp_path):
    shown = run.show()
    assert [part.key for part in shown.sections] == ["training", "samples", "latents"]
    assert {"samples", "latent-map"} <= set(shown.pictures)
    assert all(png.startswith(b"\x89PNG") for png in shown.pictures.values())
    assert "<script" not in shown._repr_html_()
    assert "save" in repr(shown)
    page = shown.save(tmp_path / "shown.html").read_text(encoding="utf8")
    assert page.count("<section") == 3
    with pytest.raises(ChoiceError, match=r"\.pictures"):
        shown.save(tmp_path / "shown.png")
    with pytest.raises(ChoiceError, match=r"\.html or \.png"):
        shown.save(tmp_path / "shown.pdf")
    manifold = run.show("manifold")
    assert manifold.save(tmp_path / "m.png").read_bytes() == manifold.pictures["manifold"]
    assert run.show("curves").sections[0].key == "training"
    with pytest.raises(ChoiceError, match=r"unknown figure 'sample'.*samples"):
        run.show("sample")


@pytest.mark.parametrize("name", ["reconstructions", "interpolations", "traversals"])
def test_every_kind_of_section(run, name):
    assert name in FIGURES
    assert len(run.show(name)._repr_html_()) > 1000


CODE = """
import sys
import numpy as np, vaekit as vk
x = (np.arange(600) % 7).astype("uint8").reshape(60, 10) * 40
run = vk.fit(x, latent=2, hidden=(4,), steps=3, compile="off", device="cpu")
"""


def test_a_real_kernel(tmp_path):
    """The bar is one output that is updated in place, and objects are shown as HTML; nothing goes to standard error."""
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    pytest.importorskip("ipykernel", reason="notebooks need a kernel")
    sources = [CODE, "run", "run.data", "run.evaluate(samples=2, metrics=['rate'])", "run.show('training')"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert nbformat.validate(book) is None
    first, *others = [cell.outputs for cell in book.cells]
    (bar,) = first
    assert bar.output_type == "display_data"
    assert 'aria-valuenow="100.0"' in bar.data["text/html"]
    assert bar.data["text/plain"].startswith("step 3/3")
    for (shown,) in others:
        assert shown.output_type == "execute_result"
        assert "text/html" in shown.data
