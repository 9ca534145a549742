"""A metric in one file of another package, as in CONTRIBUTING.md, is available wherever metrics are."""

import contextlib
import io
import json

import numpy as np
import pytest
from plugin_helpers import contributing, install, kept, remove

import vaekit as vk
from vaekit.cli import main
from vaekit.report import write_report


def vaekit(*argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return code, out.getvalue() + err.getvalue()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example of CONTRIBUTING.md as an installed package."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    with kept():
        install(folder, "vaekit-rms", "rms_plugin", contributing("Add a metric"))
        yield
        remove(folder)


def test_a_metric_in_one_file_is_known_everywhere(installed, tmp_path):
    how = {"latent": 3, "hidden": (8,), "steps": 5, "progress": False, "compile": "off", "device": "cpu"}
    runs = [vk.fit("digits", "vae", out=tmp_path / name, seed=i, **how) for i, name in enumerate(("one", "other"))]
    raw = runs[0].data.events(runs[0].data.test[:]).astype(float)
    rms = [np.sqrt(((raw - run.reconstruct("test")) ** 2).mean((1, 2, 3))) for run in runs]

    (measured,) = runs[0].evaluate(metrics=["rms"])
    assert measured["value"] == pytest.approx(rms[0].mean(), rel=1e-5)
    assert measured["se"] == pytest.approx(rms[0].std(ddof=1) / len(raw) ** 0.5, rel=1e-5)
    runs[1].evaluate(metrics=["rms"])

    code, shown = vaekit("evaluate", runs[0].path, "--metrics", "rms")
    assert code == 0
    assert "units of the data" in shown
    assert "did you mean 'rms'" in vaekit("evaluate", runs[0].path, "--metrics", "rmss")[1]
    assert "rms" in vaekit("evaluate", "--help")[1]
    assert "Root of the mean squared error of reconstructions" in vaekit("metrics")[1]
    assert "rms" in [one["name"] for one in json.loads(vaekit("metrics", "--json")[1])]

    code, shown = vaekit("compare", runs[0].path, runs[1].path, "--metrics", "rms", "--json")
    (compared,) = json.loads(shown)
    difference = rms[0] - rms[1]
    assert compared["value"] == pytest.approx(difference.mean(), rel=1e-3)
    assert compared["se"] == pytest.approx(difference.std(ddof=1) / len(raw) ** 0.5, rel=1e-3)
    assert compared == vk.compare(*runs, metric="rms")

    page = write_report(runs, tmp_path / "both.html").read_text(encoding="utf8")
    assert page.count("RMS error") > 2  # a card of each run, and the paired difference
    assert "one − other" in page
