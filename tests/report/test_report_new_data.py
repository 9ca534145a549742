"""The page about new data: numbers beside held-out data, names of the rows, and nothing of the run overwritten."""

import csv
import html
import re

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import main
from vaekit.report import write_new
from vaekit.report.numbers import number

QUIET = {"progress": False, "compile": "off"}


@pytest.fixture(scope="module", autouse=True)
def coarse_plots():
    from vaekit.figures import figure_png
    from vaekit.report import blocks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "figure_png", lambda figure: figure_png(figure, dpi=30))
        patch.setattr(blocks, "VERSIONS", ("light",))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report-new")


@pytest.fixture(scope="module")
def run(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 1)) @ np.ones((1, 3)) + 0.3 * rng.normal(size=(240, 3))
    write(folder / "train.csv", {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    return vk.fit(vk.load(folder / "train.csv"), "vae", out=folder / "run", latent=2, hidden=(8,), steps=120, **QUIET)


def write(path, columns):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


def text(path):
    page = re.sub(r"<style.*?</style>|data:image/png;base64,[A-Za-z0-9+/=]+", "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_new_rows_are_shown_beside_held_out_rows(run, folder, capsys):
    held = run.data.test[:8]
    odd = np.where(np.arange(8)[:, None] == 5, [[6.0, -6.0, 6.0]], held)
    names = [f"item-{i}" for i in range(8)]
    source = write(folder / "new.csv", {"c": odd[:, 2], "id": names, "a": odd[:, 0], "b": odd[:, 1]})
    before = {path.name for path in run.path.iterdir()}
    assert main(["report", str(run.path), str(source), "--samples", "10"]) == 0
    page = run.path / "report-new.html"
    assert capsys.readouterr().out.strip() == str(page)
    shown = text(page)
    found = {m["name"]: m for m in run.evaluate(source, samples=10, seed=0)}["log_px_iw"]
    assert f"log p(x) {number(found['value'], found['se'])}" in shown
    listed = shown[shown.index("row id log p(x)") :]
    assert listed.index("item-5") < min(listed.index(name) for name in names if name != "item-5")
    assert "1 of 8 rows have a p-value" in shown
    after = {path.name for path in run.path.iterdir()}
    assert "metrics.json" not in after
    assert after - before <= {"report-new.html", "held_out.safetensors"}
    assert "report.html" not in after


def test_what_a_page_about_new_data_needs(run, folder, capsys):
    source = write(folder / "few.csv", {"a": [0, 1], "b": [0, 1], "c": [0, 1]})
    out = folder / "page.html"
    assert run.report(out, data=source) == out
    assert "few.csv" in text(out)
    assert write_new(run, run.read(np.zeros((3, 3))), out, n=2, samples=3) == out
    assert "2 rows" in text(out)
    for words, said in (
        ([str(run.path), str(run.path), str(source)], "takes one run"),
        ([str(run.path), str(source), "--synthetic", "sample"], "no --synthetic"),
        ([str(run.path), "-n", "3"], "apply to new data"),
        ([str(run.path), str(folder / "none.csv")], "no run at"),
    ):
        assert main(["report", *words]) == 2
        assert said in capsys.readouterr().err
