"""Models of a study: trained together, kept, gone on with; and the page."""

import json
import os
import signal

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import catalogue, main
from vaekit.errors import ChoiceError, RunError
from vaekit.recipes import architectures, composition
from vaekit.studies import EARLY, STUDIES, Bench, Plan, interpolation, registry, study
from vaekit.studies.bench import slug
from vaekit.training.loop import Trainer

SMALL = {"latent": 2, "hidden": (8,)}


@pytest.fixture(scope="module")
def digits():
    return vk.load("digits")


@pytest.fixture(autouse=True)
def clock(study_clock):
    """Studies on a clock of their own do the same on any machine."""
    return study_clock


def steps(folder):
    return {p.parent.name: json.loads(p.read_text())["step"] for p in folder.glob("*/run.json")}


def test_all_models_get_the_same_steps_and_go_on_when_there_is_more_time(digits, tmp_path):
    plans = {"one": Plan("vae", SMALL), "Two!": Plan("ae", SMALL), "three": Plan("vae", {**SMALL, "beta": 2.0})}
    told = []
    runs = Bench(digits, 0.06, tmp_path, lambda *words: told.append(words)).train(plans)
    first = steps(tmp_path)
    assert set(first) == {"one", "two", "three"}
    assert len(set(first.values())) == 1
    assert min(first.values()) >= 25
    assert {run.config["step"] for run in runs.values()} == set(first.values())
    assert all(0 <= done <= of for _, done, of in told)
    weights = {name: run.encode("test", n=5) for name, run in runs.items()}
    # as long again trains no more; for longer, on
    again = Bench(digits, 0.04, tmp_path).train(plans)
    assert steps(tmp_path) == first
    np.testing.assert_array_equal(again["one"].encode("test", n=5), weights["one"])
    Bench(digits, 0.3, tmp_path).train(plans)
    later = steps(tmp_path)
    assert len(set(later.values())) == 1
    assert min(later.values()) > min(first.values())
    with pytest.raises(RunError, match="does not hold the model"):
        Bench(digits, 0.06, tmp_path).train({"one": Plan("vae", {**SMALL, "beta": 3.0})})


def test_gone_on_with_is_the_same_as_trained_at_once(digits, tmp_path):
    bench, plan = Bench(digits, 1.0, tmp_path), Plan("vae", SMALL)
    for target in (30, 55, 80):
        bench._advance(tmp_path / "pieces", plan, target, lambda step: None)
    bench._advance(tmp_path / "whole", plan, 80, lambda step: None)
    a, b = (vk.open(tmp_path / name) for name in ("pieces", "whole"))
    np.testing.assert_array_equal(a.encode("test", n=5), b.encode("test", n=5))


def test_one_that_fell_behind_catches_up(digits, tmp_path):
    plans = {"one": Plan("vae", SMALL), "two": Plan("vae", {**SMALL, "beta": 2.0})}
    Bench(digits, 1.0, tmp_path)._advance(tmp_path / "one", plans["one"], 70, lambda step: None)
    Bench(digits, 0.01, tmp_path).train(plans)
    assert len(set(steps(tmp_path).values())) == 1
    assert min(steps(tmp_path).values()) >= 70


def test_an_interrupt_keeps_what_was_trained(digits, tmp_path, monkeypatch):
    from vaekit.studies import bench as module

    real, calls = module.fit, []

    def fit(*given, **named):
        calls.append(named["out"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(module, "fit", fit)
    plans = {"one": Plan("vae", SMALL), "two": Plan("vae", SMALL)}
    with pytest.raises(KeyboardInterrupt):
        Bench(digits, 0.05, tmp_path).train(plans)
    kept = steps(tmp_path)
    assert kept
    monkeypatch.setattr(module, "fit", real)
    Bench(digits, 0.05, tmp_path).train(plans)
    assert all(steps(tmp_path)[name] >= done for name, done in kept.items())
    assert len(steps(tmp_path)) == 2


def test_an_interrupt_is_not_mistaken_for_the_end_of_the_time(digits, tmp_path, clock, monkeypatch):
    """A signal arrives in the very step after which the clock would end the training."""
    step, taken = Trainer.one_step, []

    def interrupted(trainer):
        step(trainer)
        taken.append(trainer.step)
        if trainer.step == 50:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "one_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Bench(digits, 1.0, tmp_path)._advance(tmp_path / "one", Plan("vae", SMALL), 500, lambda step: None, clock.now)
    assert (taken[-1], steps(tmp_path)["one"]) == (50, 50)


def test_a_machine_that_slows_down_while_a_model_trains_does_not_break_the_bound(digits, tmp_path, clock, monkeypatch):
    """After the first tries a step takes 20 times as long: the round is cut short, and all have the same steps."""
    from vaekit.studies import bench as module

    real, calls = module.fit, []

    def fit(*given, **named):
        calls.append(named["steps"])
        clock.per_step = 0.001 if len(calls) == 1 else 0.02
        return real(*given, **named)

    monkeypatch.setattr(module, "fit", fit)
    plans = {"one": Plan("vae", SMALL), "two": Plan("vae", SMALL)}
    begun = clock.now
    runs = Bench(digits, 0.3, tmp_path).train(plans)
    assert clock.now - begun < 1.5 * 60 * 0.3
    reached = steps(tmp_path)
    assert max(calls) > 2 * max(reached.values()), "the test did not ask for more than there was time for"
    assert len(set(reached.values())) == 1
    assert {run.config["step"] for run in runs.values()} == set(reached.values())


def test_the_clock_ends_a_model_where_it_is(digits, tmp_path, clock):
    bench, clock.per_step = Bench(digits, 1.0, tmp_path), 0.01
    bench._advance(tmp_path / "one", Plan("vae", SMALL), 10_000_000, lambda step: None, clock.now + 0.6)
    assert steps(tmp_path)["one"] == 100  # the first record after 0.6 s, at 0.01 s a step
    assert len(vk.open(tmp_path / "one").encode("test", n=5)) == 5


def test_a_given_number_of_steps_does_not_depend_on_the_clock(digits, tmp_path, clock):
    clock.per_step = 30.0  # a budget of 0.25 minutes would end after the first record
    plans = {"one": Plan("vae", SMALL), "two": Plan("vae", SMALL)}
    bench = Bench(digits, 0.25, tmp_path, steps=60)
    assert bench.steps_within(plans["one"], 2) == 60
    runs = bench.train({"one": plans["one"]})
    runs = bench.train(plans)  # "one" is kept
    assert steps(tmp_path) == {"one": 60, "two": 60}
    assert {run.config["step"] for run in runs.values()} == {60}
    with pytest.raises(RunError, match="has 60 training steps, more than steps=50"):
        Bench(digits, 0.25, tmp_path, steps=50).train(plans)
    Bench(digits, 0.25, tmp_path, steps=70).train(plans)
    assert steps(tmp_path) == {"one": 70, "two": 70}


def test_sizes_grow_with_the_minutes_alone(digits, tmp_path):
    at = [Bench(digits, m, tmp_path).sized(100, 1600) for m in (0.1, 0.5, 2.0, 8.0, 60.0)]
    assert at == [100, 100, 400, 1600, 1600]


def test_a_study_keeps_the_defaults_that_its_models_began_with(digits, tmp_path):
    """A later version may have others: models that differ in them could not be compared."""
    plans = {"one": Plan("vae", SMALL), "two": Plan("vae", {**SMALL, "beta": 2.0})}
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(architectures, "OF_IMAGES", composition.USUAL)
        Bench(digits, 1.0, tmp_path, steps=20).train({"one": plans["one"]})
    (tmp_path / "study.json").unlink()  # earlier versions did not write it
    runs = Bench(digits, 1.0, tmp_path, steps=30).train(plans)
    assert {(run.options.lr, run.options.beta2) for run in runs.values()} == {(1e-3, 0.999)}
    (new,) = Bench(digits, 1.0, tmp_path / "new", steps=20).train({"one": plans["one"]}).values()
    assert (new.options.lr, new.options.beta2) == (2e-3, 0.99)


def test_what_was_decided_stays_decided(digits, tmp_path):
    assert Bench(digits, 1.0, tmp_path).decided("steps", lambda: 7) == 7
    assert Bench(digits, 9.0, tmp_path).decided("steps", lambda: 8) == 7


def test_names_become_folders():
    assert slug("fixed 0.25, seed 1") == "fixed-0.25-seed-1"
    assert slug("../É!") not in ("", "..", ".")


# --- the whole --------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """A study of one small model, whose sentence holds what must be escaped."""

    def work(bench):
        """One small model: a test.

        Nothing else."""
        runs = bench.train({"<b>model</b>": Plan("vae", SMALL)})
        return registry.Findings(
            ["It says <script>alert(1)</script>."], [], {"steps": bench.trained_steps, "n": len(runs)}
        )

    made = registry.Study("tiny", "Somebody 2026", "digits", work)
    monkeypatch.setitem(STUDIES.entries, "tiny", made)
    known = catalogue.studies() | {"tiny": catalogue.Experiment("tiny", made.paper, made.data, made.summary)}
    monkeypatch.setattr(catalogue, "studies", lambda: known)


def test_a_study_writes_a_page_that_needs_nothing_else(tiny, tmp_path, clock, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun, clock.per_step = clock.now, 0.01
    path = study("tiny", minutes=0.25)
    assert clock.now - begun < 1.2 * 15
    assert path.name == "study-tiny-digits.html"
    page = path.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>model" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    found = json.loads((tmp_path / "study-tiny-digits.runs" / "findings.json").read_text())
    assert f"{found['numbers']['steps']:,}" in page
    assert "vaekit study tiny digits --minutes 0.25" in page
    page = study("tiny", minutes=0.25, steps=600, out="fixed.html").read_text()
    assert "1 model, 600 steps each</" in page
    assert "vaekit study tiny digits --minutes 0.25 --steps 600 --out fixed.html" in page


def test_on_the_command_line(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    for name in STUDIES:
        assert name in out
    for words, said in (
        (["study", "kl-wieght"], "did you mean 'kl-weight'"),
        (["study", "tiny", "digits", "--minutes", "0"], "at least 0.25 minutes"),
        (["study", "tiny", "digits", "--out", "page.pdf"], ".html"),
        (["study", "tiny", "nowhere"], "neither a data set nor a path"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def pictures(n, side=8, classes=2, **given):
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, n) if classes else None
    return vk.from_arrays(rng.integers(0, 256, (n, side, side)).astype(np.uint8), label=label, name="small", **given)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        (
            "kl-weight",
            lambda: pictures(72, classes=8),
            "needs at least 30 test examples, but small has 7: give at least 300",
        ),
        ("interpolation", lambda: pictures(40), "needs at least 30 test examples, but small has 4"),
        ("ae-vs-vae", lambda: pictures(400, classes=0), "at least two classes, but the test data of small have 0"),
        ("ae-vs-vae", lambda: pictures(400, classes=1), "at least two classes, but the test data of small have 1"),
        (
            "ae-vs-vae",
            lambda: pictures(400, classes=300),
            r"needs at least \d+ labelled test examples for \d+ classes, but small has 40",
        ),
        ("blur", lambda: pictures(400, side=4), "images of at least 8x8 pixels, but these are 4x4"),
        ("denoising", lambda: pictures(400, side=2), "images of at least 4x4 pixels, but these are 2x2"),
        ("complete", lambda: pictures(400, side=1), "examples of at least 4 numbers, but those of small have 1"),
        ("denoising", lambda: table(), "needs images, but arrays holds data of kind vector"),
        ("ae-vs-vae", lambda: table(), "needs at least two classes"),
        ("complete", lambda: table(np.nan, missing="mask"), "without missing values"),
    ],
)
def test_studies_refuse_data_they_cannot_use_before_anything_is_trained(name, make, said, tmp_path):
    with pytest.raises(ChoiceError, match=said):
        study(name, make(), minutes=0.25, out=tmp_path / "page.html")
    assert not any(tmp_path.iterdir())


def table(first=0.0, **given):
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    x[0, 0] = first
    return vk.from_arrays(x, **given)


def test_groups_of_test_data_are_counted(tmp_path):
    data = pictures(400, columns={"who": np.arange(400) // 10}, group="who")
    with pytest.raises(
        ChoiceError, match=r"test data from at least 10 groups, because .* over groups, but small has 4"
    ):
        study("kl-weight", data, minutes=0.25, out=tmp_path / "page.html")


def test_a_page_of_few_steps_makes_no_claim(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "train", lambda self, plans: self.runs)
    monkeypatch.setattr(Bench, "trained_steps", EARLY - 1)
    page = study("tiny", minutes=0.25, out=tmp_path / "page.html").read_text()
    assert "Too early for results: at least one model had only 499 training steps" in page
    assert "alert(1)" not in page
    monkeypatch.setattr(Bench, "trained_steps", EARLY)
    assert "alert(1)" in study("tiny", minutes=0.25, out=tmp_path / "page.html").read_text()


def test_pairs_share_no_datum_and_no_group():
    data = pictures(900, classes=3, columns={"who": np.arange(900) // 3}, group="who")
    pairs = interpolation.pick_pairs(data, 100)
    assert set(pairs) == {interpolation.WITHIN, interpolation.BETWEEN}
    label, used = data.test.label, np.concatenate([rows for ends in pairs.values() for rows in ends])
    assert len(np.unique(data.test.group[used])) == len(used)
    for kind, (a, b) in pairs.items():
        assert len(a) >= 5
        assert ((label[a] == label[b]) == (kind == interpolation.WITHIN)).all()


def test_groups_and_classes_of_a_table_by_name(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"p{i // 10},{i % 7}.5,{i % 2}\n" for i in range(600))
    (tmp_path / "rows.csv").write_text("who,a,b\n" + rows)
    assert main(["study", "tiny", "rows.csv", "--group", "who"]) == 2
    assert "test data from at least 10 groups" in capsys.readouterr().err
    seen = []
    monkeypatch.setattr(Bench, "train", lambda self, plans: seen.append(self.data) or {})
    (tmp_path / "rows.csv").write_text("who,a,b\n" + rows + rows.replace("p", "q"))
    assert main(["study", "tiny", "rows.csv", "--group", "who", "--label", "b"]) == 0
    assert len(np.unique(seen[0].test.group)) == 12
    assert set(seen[0].test.label) == {0, 1}
    assert "rows.csv --label b --group who --minutes 7" in (tmp_path / "study-tiny-rows.html").read_text()
