"""The metrics of samples of a run, the table of its samplers, its command and its section of the report."""

import json
import shutil

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.metrics import Measurement, evaluate, samples
from vaekit.metrics.measurement import samples as samples_of
from vaekit.metrics.samples import ABOVE, Sampled, learned, measure_samplers, measured
from vaekit.metrics.samples.samplers import codes_of, drawn_by, known, stored
from vaekit.report import write_report
from vaekit.report.look import Look
from vaekit.report.registry import FIGURES
from vaekit.report.samplers import verdicts

TINY = {"latent": 2, "hidden": (16,), "progress": False}
FEW = {"options": vk.Options(steps=150, batch=50, compile="off")}


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", 30)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = vk.fit("digits", "vae", out=tmp_path_factory.mktemp("samples") / "run", **TINY, **FEW)
    run.fit_latents("gmm", components=3)
    return run


@pytest.fixture
def run(digits, tmp_path):
    """A copy of the run in a folder of its own."""
    shutil.copytree(digits.path, tmp_path / "run")
    return vk.open(tmp_path / "run")


def test_the_family_of_samples_has_intervals_and_floors(run):
    found = {m["name"]: m for m in evaluate(run, metrics=["samples"], samples=3)}
    assert set(samples.MEASURES) | {"frechet", "membership_gap", "membership_auc"} == set(found)
    for name, m in found.items():
        if name != "frechet":
            assert m["interval"]["low"] <= m["value"] <= m["interval"]["high"], name
            assert m["floor"]["value"] is not None
    assert found["frechet_distance"]["value"] > found["frechet_distance"]["floor"]["high"]
    assert found["sharpness"]["value"] < 0.9  # means of p(x|z) of two latents
    assert next(iter(found["sharpness"]["each"])) == "0.25 and more cycles per pixel"
    assert (
        "64 features of a network trained on 1,437 training data (30 steps, seed 0)"
        in (found["sample_recall"]["protocol"]["estimator"])
    )
    assert (run.path / learned.FILE).exists()
    again = {m["name"]: m for m in vk.open(run.path).metrics}
    assert again["memorisation"] == found["memorisation"]
    drawn = samples_of(Measurement(run))
    reference = samples.Reference(run.data, folder=run.path)
    assert {one.name: one.estimate.value for one in reference.measure(drawn)} == {
        name: m["value"] for name, m in found.items() if name in samples.MEASURES
    }


def test_membership_is_that_of_the_scores(run):
    found = {m["name"]: m for m in evaluate(run, metrics=["membership_gap", "membership_auc"], samples=3, store=False)}
    log_p = {split: run.score(split, samples=3) for split in ("train", "valid", "test")}
    gap = found["membership_gap"]
    assert gap["value"] == pytest.approx(log_p["train"].mean() - log_p["test"].mean(), abs=1e-6)
    assert gap["floor"]["value"] == pytest.approx(log_p["valid"].mean() - log_p["test"].mean(), abs=1e-6)
    pairs = np.mean(log_p["train"][:, None] > log_p["test"])
    assert found["membership_auc"]["value"] == pytest.approx(pairs, abs=1e-6)


def test_training_data_are_not_held_out(run):
    with pytest.raises(ChoiceError, match="use the test or the validation split"):
        evaluate(run, "train", metrics=["memorisation"])
    table = vk.from_arrays(np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32))
    other = vk.fit(table, "vae", out=run.path.parent / "table", **TINY, options=vk.Options(steps=2, compile="off"))
    assert measured.SPATIAL.lacking("sharpness", Measurement(other)) == (
        "sharpness needs images or signals, and this run models vector data"
    )
    names = {m["name"] for m in evaluate(other, metrics=["samples"], samples=2, store=False)}
    assert "sharpness" not in names
    assert {"kernel_distance", "memorisation"} < names
    assert "frechet_distance" not in names  # 12 data in 64 features
    with pytest.raises(ChoiceError, match="needs 128 data or more for 64 features, got 12: kernel_distance"):
        evaluate(other, metrics=["frechet_distance"], store=False)


def test_validation_data_are_not_compared_with_themselves(run):
    """Measured on the validation split, test data take the place of samples."""
    m = {one["name"]: one for one in evaluate(run, "valid", metrics=["memorisation", "membership_gap"], samples=3)}
    floor = m["memorisation"]["floor"]
    assert floor["low"] < 0.5 < floor["high"]
    of_valid, of_test = (run.score(split, samples=3).mean() for split in ("valid", "test"))
    assert m["membership_gap"]["floor"]["value"] == pytest.approx(of_test - of_valid, abs=1e-6)


def test_a_sampler_that_copies_training_data_is_flagged(run, monkeypatch):
    """In the table, among its verdicts and in the report."""
    x = run.data.events(run.data.train[:180])
    monkeypatch.setattr(samples.samplers, "drawn_by", lambda *_, **__: x)
    table = measure_samplers(run, latents=["prior"])
    assert table.copying == ["prior"]
    assert table.value("prior", "memorisation") == 1
    assert table.above("prior")["value"] == 1 - table.value("prior", "memorisation", "floor")["value"]
    words = " ".join(verdicts(table))
    assert "prefer training data more than validation data do, beyond chance: prior by 0." in words
    monkeypatch.undo()
    blocks = FIGURES["samplers"].section(Look(run)).blocks
    assert any("has memorised training data" in block.text for block in blocks if block.kind == "text")


def test_every_sampler_of_a_run_is_a_row_of_one_table(run, capsys):
    assert known(run) == ["prior", "gmm"]
    assert main(["samplers", str(run.path), "-n", "130", "--out", str(run.path.parent / "table.json")]) == 0
    text = capsys.readouterr()
    lines = text.out.splitlines()
    assert lines[0].split()[:4] == ["sampler", "Fréchet", "kernel", "precision"]
    assert [line.split()[0] for line in lines[1:4]] == ["prior", "gmm", "real"]
    assert "130 means of p(x|z) and as many test data of digits, seed 0" in lines[4]
    assert "not fitted: flow, two-stage, flow-matching; --latents all fits and measures them too" in text.err
    found = json.loads((run.path.parent / "table.json").read_text(encoding="utf8"))
    assert [row["name"] for row in found["samplers"]] == ["prior", "gmm"]
    assert stored(run).as_json() == found
    assert found["samplers"][1]["measures"][0]["low"] < found["samplers"][1]["measures"][0]["value"]
    assert main(["samplers", str(run.path), "--latents", "gnm"]) == 2
    assert "did you mean gmm?" in capsys.readouterr().err.replace("'", "")
    assert "do not detectably prefer training data more than validation data do" in text.out
    page = write_report([run]).read_text(encoding="utf8")
    assert "not selected: means of p(x|z)" in page
    assert (run.path / "figures" / "samplers.png").exists()
    fit = run.path / "latents" / "gmm.json"
    record = json.loads(fit.read_text(encoding="utf8"))
    fit.write_text(json.dumps(record | {"seconds": 99.0}), encoding="utf8")  # the same fit
    assert len(stored(run).rows) == 2
    fit.write_text(json.dumps(record | {"seed": 1}), encoding="utf8")  # fitted again in another way
    assert [row["name"] for row in stored(run).rows] == ["prior"]
    run.config["step"] += 1  # trained further
    assert stored(run) is None


def sampled(**samplers):
    """A table of samplers with these Fréchet and kernel distances and preferences above real data, each (value, se)."""
    rows = []
    for name, (frechet, kernel, above) in samplers.items():
        parts = {ABOVE: dict(zip(("value", "se"), above, strict=True))}
        for end, sign in (("low", -2), ("high", 2)):
            parts[ABOVE][end] = None if above[1] is None else above[0] + sign * above[1]
        pairs = {"frechet_distance": frechet, "kernel_distance": kernel, "memorisation": (0.6, 0.05)}
        measures = [{"name": m, "value": value, "se": se, "parts": parts} for m, (value, se) in pairs.items()]
        rows.append({"name": name, "fit": None, "measures": measures})
    return Sampled(rows, {})


def test_verdicts_name_what_the_errors_allow():
    none, sure, unsure = (None, None), (0.2, 0.02), (0.03, 0.02)
    words = verdicts(sampled(prior=((0.3, 0.01), (0.1, 0.01), unsure), gmm=((0.1, 0.01), (0.2, 0.01), sure)))
    assert words[0] == "Samples of gmm are the nearest to the data by the Fréchet distance."
    assert "beyond chance: gmm by 0.200 (95% interval 0.160 to 0.240). Those of the prior do not detectably" in words[1]
    assert words[2].endswith("a difference of up to 0.070 cannot be excluded.")
    words = verdicts(sampled(prior=(none, (0.1, 0.01), sure), gmm=(none, (0.11, 0.01), (0.0, None))))
    assert words[0] == "Samples of prior are the nearest to the data by the kernel distance, but not clearly."
    assert words[1].startswith("The Fréchet distance was not measured")
    assert words[2].endswith("The model has memorised training data.")
    assert words[3].startswith("Memorisation by gmm is not judged")
    words = verdicts(sampled(flow=((0.1, 0.01), (0.1, 0.01), sure)))
    assert words[0].endswith("The model has memorised training data, or flow fits their codes too closely.")
    assert verdicts(sampled(gmm=((0.1, 0.01), none, (-0.2, 0.01))))[0].endswith("up to 0.000 cannot be excluded.")


def test_samples_of_a_table_are_drawn_and_shown_as_lines(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    run = vk.fit(vk.from_arrays(x), "vae", out=tmp_path / "run", **TINY, options=vk.Options(steps=20, compile="off"))
    table = measure_samplers(run, features="raw")
    assert table.protocol["x"] == "draws from p(x|z)"
    assert "principal components" in table.protocol["features"]
    assert [block.kind for block in FIGURES["samplers"].section(Look(run)).blocks] == ["table", "text", "picture"]


def test_samples_of_a_conditional_run_have_the_conditions_of_the_test_data(tmp_path):
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.8).astype(int)
    x = (y[:, None] + 0.1 * rng.normal(size=(300, 3))).astype(np.float32)
    data = vk.from_arrays(x, label=y, label_names=["low", "high"])
    run = vk.fit(data, "conditional", out=tmp_path / "run", **TINY, options=vk.Options(steps=20, compile="off"))
    labels = data.test.label[:20]
    z = codes_of(run, "prior", 20, labels=labels)
    assert np.array_equal(z[:, -1] > z[:, -2], labels == 1)
    drawn = drawn_by(run, "prior", 60)
    assert len(drawn) == 60
    np.testing.assert_allclose(drawn_by(run, "prior", 20), drawn[:20], rtol=1e-5)
