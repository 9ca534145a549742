"""Runs as rows and columns: what is one setting, what is one column, what is stored, and what is said."""

import json
import math
import shutil

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.metrics.compared import Cell, Column, Comparison, Estimate
from vaekit.metrics.compared.gathered import Asked, _like, common
from vaekit.metrics.compared.gathered import stored as numbers_of
from vaekit.report import write_comparison
from vaekit.report.compared import _sentence

HOW = {"hidden": (8,), "steps": 4, "progress": False, "compile": "off", "device": "cpu"}
FEW = {"n": 40, "samples": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def runs(folder):
    """Two settings with two seeds each."""
    named = {f"z{latent}-{seed}": (latent, seed) for latent in (3, 2) for seed in (0, 1)}
    return {
        name: vk.fit("digits", "vae", latent=latent, seed=seed, out=folder / name, **HOW)
        for name, (latent, seed) in named.items()
    }


@pytest.fixture(scope="module")
def found(runs):
    return vk.compare(list(runs.values()), metrics=["log_px_iw", "active_units"], **FEW)


def test_runs_that_differ_in_their_seed_are_one_row(found):
    assert [row.name for row in found.rows] == ["latent 3", "latent 2"]
    assert [row.seeds for row in found.rows] == [[0, 1], [0, 1]]
    assert [column.name for column in found.columns] == ["log_px_iw", "active_units"]
    assert found.as_json()["rows"][1]["settings"] == {"latent": 2}


def test_numbers_and_differences_are_those_of_the_scores(found, runs):
    """By hand with NumPy: means over seeds, and differences paired by datum and seed."""
    scores = {name: run.score("test", n=40, samples=2) for name, run in runs.items()}
    a, b = (np.stack([scores[f"z{latent}-0"], scores[f"z{latent}-1"]]) for latent in (3, 2))
    first, second = found.cells[0, 0], found.cells[1, 0]
    assert first.estimate.value == pytest.approx(a.mean(), rel=1e-5)
    assert first.estimate.se == pytest.approx(a.mean(1).std(ddof=1) / math.sqrt(2), rel=1e-3)
    assert first.difference is None
    d = (b - a).astype(float)
    between = d.mean(1).var(ddof=1) / 2
    rest = d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()
    within = max(d.mean(0).var(ddof=1) / 40 - (rest**2).sum() / 39 / (2 * 40), 0)
    assert second.difference.value == pytest.approx(d.mean(), rel=1e-5)
    assert second.difference.se == pytest.approx(math.sqrt(between + within), rel=1e-3)
    assert second.how == ("paired by datum where the metric has a number for each", "paired by seed")


def test_the_reference_is_chosen_by_run_or_row(runs, folder):
    for to in ("latent 2", str(folder / "z2-1"), "z2-0"):
        found = vk.compare(list(runs.values()), to=to, metrics=["rate"], **FEW)
        assert found.reference == 1
        assert [cell.difference is None for cell in found.cells.values()] == [False, True]
    with pytest.raises(ChoiceError, match="choose from latent 3, latent 2"):
        vk.compare(list(runs.values()), to="z9", **FEW)


def test_two_runs_and_runs_that_are_asked_to_be_are_rows_of_their_own(runs, folder):
    pair = vk.compare([runs["z3-0"], folder / "z3-1"], metrics=["rate"], **FEW)
    assert [row.name for row in pair.rows] == ["seed 0", "seed 1"]
    assert pair.cells[1, 0].difference.over == "data"
    assert "another seed may reverse" in repr(pair)
    each = vk.compare([folder / name for name in runs], each=True, metrics=["rate"], **FEW)
    assert [row.name for row in each.rows] == ["latent 3, seed 0", "latent 3, seed 1", "latent 2, seed 0",
                                               "latent 2, seed 1"]  # fmt: skip
    assert "adjusted for the 3 differences" in repr(each)


def test_a_copy_with_the_same_seed_is_not_another_seed(runs, folder, tmp_path):
    copy = shutil.copytree(folder / "z3-0", tmp_path / "copy")
    found = vk.compare([*runs.values(), copy], metrics=["rate"], **FEW)
    assert [len(row.runs) for row in found.rows] == [2, 2, 1]
    assert found.rows[2].name == "latent 3, copy"
    assert any("has the settings and the seed of" in note for note in found.notes)
    assert "one side has a single run" in " ".join(found.cells[2, 0].how)


def test_a_conditional_run_beside_others_says_so(runs, folder):
    conditional = vk.fit("digits", "vae", latent=3, condition="label", out=folder / "given", **HOW)
    found = vk.compare([*runs.values(), conditional], metrics=["log_px_iw"], **FEW)
    assert [c.label for c in found.columns] == ["log p(x) (unconditional)", "log p(x) (given label)"]
    assert (2, 0) not in found.cells
    assert found.cells[2, 1].difference is None  # nothing to subtract it from
    assert any("x alone and others of x given label" in note for note in found.warnings)
    first = vk.compare([conditional, *runs.values()], metrics=["log_px_iw"], **FEW)
    assert first.rows[first.reference].name == found.rows[0].name  # rather than one that nothing is compared with


def test_two_data_sets_are_two_columns(runs, folder):
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    other = vk.fit(vk.from_arrays(x), "vae", latent=2, out=folder / "other", **HOW)
    found = vk.compare([runs["z3-0"], runs["z3-1"], other], metrics=["elbo"], **FEW)
    assert len(found.columns) == 2
    assert sorted(found.cells) == [(0, 0), (1, 1)]
    assert all(cell.difference is None for cell in found.cells.values())
    assert "digits" in found.columns[0].label
    assert any("not comparable" in note for note in found.warnings)


def test_stored_numbers_are_used_if_all_have_one_protocol(runs, folder, tmp_path):
    paths = [shutil.copytree(folder / name, tmp_path / name) for name in runs]
    with pytest.raises(ChoiceError, match="no stored numbers"):
        vk.compare(paths, measure=False)
    for path in paths:
        vk.open(path).evaluate(n=30, samples=3, metrics=["rate", "log_px_iw"])
    found = vk.compare(paths)
    assert found.notes[0] == "Numbers are those stored with the runs."
    assert {c.protocol["n"] for c in found.columns} == {30}
    assert found.cells[1, 0].difference.over == "seeds"
    measured = vk.compare(paths, measure=True, metrics=["rate"], n=30, samples=3)
    assert measured.notes[0] == "Numbers were measured for this comparison."
    assert measured.cells[0, 0].estimate.value == pytest.approx(found.cells[0, 0].estimate.value, rel=1e-5)
    assert measured.cells[1, 0].difference.over == "seeds and data"
    # a single run needs the numbers of each datum
    assert "measured" in vk.compare(paths[:3], metrics=["rate"]).notes[0]
    vk.open(paths[0]).evaluate(n=20, samples=3, metrics=["rate"])
    (tmp_path / "z3-0" / "metrics.json").write_text(json.dumps(vk.open(paths[0]).metrics[-1:]))
    apart = vk.compare(paths, measure=False, metrics=["rate"])
    assert [c.label for c in apart.columns] == ["Rate (n = 20)", "Rate (n = 30)"]
    assert apart.cells[0, 0].difference is None
    assert any("Not all runs of latent 3" in note for note in apart.notes)


def test_new_numbers_are_of_as_many_data_as_the_usual_stored_ones(runs, folder, tmp_path):
    """Slow metrics are stored for the first 100 data, which says nothing about the others."""
    paths = [shutil.copytree(folder / name, tmp_path / name) for name in ("z3-0", "z2-0")]
    slow = {"name": "log_px_ais", "value": -1.0, "se": 0.1, "unit": "nats"}
    protocols = {}
    for path in paths:
        run = vk.open(path)
        usual = run.evaluate(n=30, samples=3, metrics=["rate", "log_px_iw"])
        protocols[path] = usual[0]["protocol"]
        stored = {**slow, "protocol": {**protocols[path], "n": 20, "estimator": "AIS", "K": None}}
        (path / "metrics.json").write_text(json.dumps([stored]))
    numbers = [numbers_of(vk.open(path)) for path in paths]
    asked = Asked()
    shared = common(numbers, asked, ["log_px_ais"])
    assert _like(shared, ["log_px_iw", "log_px_ais"]) == []
    assert [p["n"] for p in _like(shared, ["log_px_ais"])] == [20]
    for path in paths:
        usual = {**protocols[path], "n": 30}
        entries = [{**slow, "name": name, "protocol": {**usual, "K": k}} for name, k in (("rate", None), ("elbo", 3))]
        (path / "metrics.json").write_text(json.dumps([*json.loads((path / "metrics.json").read_text()), *entries]))
    shared = common([numbers_of(vk.open(path)) for path in paths], asked, ["log_px_ais", "rate", "elbo"])
    assert [(p["n"], p["K"]) for p in _like(shared, ["log_px_iw", "log_px_ais"])] == [(30, None), (30, 3)]


@pytest.mark.parametrize("measure", [True, False])
def test_a_single_run_has_the_interval_of_its_metric(runs, folder, tmp_path, measure):
    paths = [shutil.copytree(folder / name, tmp_path / name) for name in ("z3-0", "z2-0")]
    own = [vk.open(path).evaluate(n=150, metrics=["mig"])[-1]["interval"] for path in paths]
    found = vk.compare(paths, metrics=["mig"], n=150, measure=measure)
    for i, interval in enumerate(own):
        estimate = found.cells[i, 0].estimate
        assert estimate.interval() == pytest.approx((interval["low"], interval["high"]))
        assert estimate.reach() == pytest.approx((interval["high"] - interval["low"]) / 2)


def test_a_sentence_about_a_metric_without_a_better_direction():
    column = Column("rate", "Rate", "nats", None, "", {})
    cell = Cell(Estimate(3.0), {}, Estimate(1.5, ((0.01, 50.0),), "data"), p=0.001, p_holm=0.001, verdict="differs")
    said = _sentence("latent 3", "latent 2", column, cell, " nats")
    assert said.startswith("Rate is higher in latent 3 than in latent 2 by 1.50 nats (95% interval 1.30 to 1.70")


def test_a_run_that_cannot_be_opened_is_left_out_of_folders_but_not_if_named(runs, folder, tmp_path, capsys):
    for name in ("z3-0", "z3-1", "z2-0"):
        shutil.copytree(folder / name, tmp_path / "runs" / name)
    (shutil.copytree(folder / "z2-1", tmp_path / "runs" / "spoilt") / "model.safetensors").unlink()
    options = ["--metrics", "rate", "-n", "20", "--samples", "2", "--json"]
    for words in (str(tmp_path / "runs"), str(tmp_path / "runs" / "*")):
        assert main(["compare", words, *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [len(row["runs"]) for row in found["rows"]] == [1, 2]
        assert "spoilt is left out: " in found["notes"][-1]
    assert main(["compare", str(tmp_path / "runs" / "z[2s]*"), str(tmp_path / "runs" / "sp*"), *options]) == 2
    assert "got 1" in (said := capsys.readouterr().err)
    assert "model.safetensors" in said
    assert main(["compare", str(tmp_path / "runs" / "z3-0"), str(tmp_path / "runs" / "spoilt"), *options]) == 2
    assert "left out" not in capsys.readouterr().err


def test_a_comparison_is_records_text_and_html(found):
    assert isinstance(found, Comparison)
    records = found.table()
    assert len(records) == 4
    assert records[0]["low"] < records[0]["value"] < records[0]["high"]
    assert {r["row"] for r in records} == {"latent 3", "latent 2"}
    assert "log p(x) ↑" in repr(found)
    assert "<table>" in found._repr_html_()
    json.dumps(found.as_json())


def test_the_command_takes_patterns_and_folders_and_writes_a_page(runs, folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    args = ["-n", "40", "--samples", "2", "--metrics", "log_px_iw", "mse", "--out", str(page)]
    assert main(["compare", str(folder / "z3-*"), str(folder / "z2-0"), str(folder / "z2-1"), *args]) == 0
    said = capsys.readouterr().out
    assert "latent 3" in said
    assert "minus latent 3" in said
    text = page.read_text(encoding="utf8")
    for words in ("Learning curves", "Reconstructions of the same data", "Samples, not selected", "Differences to"):
        assert words in text
    assert json.loads(page.with_suffix(".json").read_text())["reference"] == "latent 3"
    assert main(["compare", str(folder / "nothing-*"), str(folder / "z2-0")]) == 2
    assert main(["compare", str(folder / "z2-0")]) == 2
    assert main(["compare", str(folder / "z2-0"), str(folder / "z3-0"), "-n", "9", "--json", "--metrics", "rate"]) == 0
    assert [m["name"] for m in json.loads(capsys.readouterr().out)] == ["rate difference"]


def test_the_page_reads_on_a_phone(found, tmp_path):
    """No cell or plot is cut off at the width of a phone, and nothing is loaded from the network."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("the page's tests need chromium")
    path = write_comparison(found, tmp_path / "page.html")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=300_000)
        page = browser.new_context(viewport={"width": 375, "height": 800}, offline=True).new_page()
        errors = []
        page.on("console", lambda message: errors.append(message.text))
        page.goto(f"file://{path}", timeout=300_000)
        wide = page.evaluate("document.documentElement.scrollWidth")
        rights = page.evaluate("[...document.querySelectorAll('.stacks td')].map(e => e.getBoundingClientRect().right)")
        browser.close()
    assert errors == []
    assert wide <= 375
    assert len(rights) > 10
    assert max(rights) <= 375


def test_a_page_of_tables_has_lines_instead_of_pictures(folder, tmp_path):
    other = vk.open(folder / "other", data=np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32))
    comparison = vk.compare([other], metrics=["elbo"], **FEW)
    assert "lines" not in repr(comparison)
    text = write_comparison(comparison, tmp_path / "page.html").read_text(encoding="utf8")
    assert "Values in standard deviations" in text


def test_other_uses_are_refused(runs):
    first, second = runs["z3-0"], runs["z2-0"]
    for wrong in (lambda: vk.compare(first), lambda: vk.compare(first, second, each=True), lambda: vk.compare([]),
                  lambda: vk.compare("runs"), lambda: vk.compare([first], second), lambda: vk.compare([first, 3]),
                  lambda: vk.compare([first, second], metrics=["rat"])):  # fmt: skip
        with pytest.raises(ChoiceError):
            wrong()
