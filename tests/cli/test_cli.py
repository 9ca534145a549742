"""The command line: every command once, every wrong input answered in one line, nothing half-written."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaekit.cli import catalogue, main
from vaekit.cli.fit import TRAINING, data_names

TINY = ("--compile", "off", "--steps", "5")
SMALL = (*TINY, "--latent", "3", "--hidden", "8")
METRIC = {"name", "value", "se", "unit", "protocol"}


@dataclass
class Result:
    code: int
    out: str
    err: str


def vaekit(*argv: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return Result(code, out.getvalue(), err.getvalue())


def done(*argv: object) -> Result:
    result = vaekit(*argv)
    assert result.code == 0, result.err
    return result


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path.parent / "cache"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "digits"
    done("fit", "digits", *SMALL, "--out", run)
    return run


@pytest.fixture
def run(digits, tmp_path) -> Path:
    """A run of one's own: commands store metrics and pages in it."""
    return Path(shutil.copytree(digits, tmp_path / "run"))


# --- fit --------------------------------------------------------------------------------------------------------


def test_fit_says_what_comes_next():
    result = done("fit", "digits", *SMALL)
    assert Path("runs/digits-vae/run.json").exists()
    assert "validation ELBO -" in result.out
    for command in ("evaluate", "report", "explore", "sample"):
        assert f"vaekit {command} runs/digits-vae" in result.out
    assert "images/s" in result.err
    again = done("fit", "--out", "runs/digits-vae", "--resume").out
    assert again.partition("next:")[2] == result.out.partition("next:")[2]


def sampled(shown: str) -> list[str]:
    """The words of the line that offers new data, which is run here."""
    (line,) = (line for line in shown.splitlines() if "vaekit sample" in line)
    words = shlex.split(line.partition("vaekit ")[2])
    assert Path(done(*words).out.splitlines()[-1]) == Path(words[-1])
    assert Path(words[-1]).stat().st_size
    return words


def test_what_comes_next_fits_the_run():
    random = np.random.default_rng(0)
    lines = [f"{a:.3f},{'red' if a > 0 else 'dark blue'},{a * a:.2f}" for a in random.normal(size=60)]
    Path("t.csv").write_text("\n".join(["size,colour,area", *lines]))
    result = done("fit", "t.csv", *SMALL, "--out", "my table")
    assert sampled(result.out)[-1] == "samples.csv"
    assert "rows/s" in result.err
    words = sampled(done("fit", "t.csv", *SMALL, "--condition", "colour", "--label", "colour", "--out", "c").out)
    assert words[words.index("--label") + 1] in ("red", "dark blue")
    assert "--latents" in sampled(done("fit", "digits", *SMALL, "--recipe", "ae", "--out", "ae").out)
    np.save("photos.npy", random.integers(0, 255, (40, 16, 16, 3), np.uint8))
    small = (*TINY, "--recipe", "conv", "--latent", 3, "--hidden", 4, "--likelihood", "gaussian")
    assert "--latents" in sampled(done("fit", "photos.npy", *small, "--out", "p").out)
    assert "--latents" not in sampled(done("fit", "digits", *SMALL, "--recipe", "wae", "--out", "w").out)


def test_options_reach_the_run():
    done("fit", "digits", *TINY, "--recipe", "kingma2013", "--latent", 2, "--hidden=8", "--optimiser", "ADAM",
         "--seed", 3, "--valid", 0.2, "--batch", 50, "--out", "r")  # fmt: skip
    config = json.loads(Path("r/run.json").read_text())
    assert config["recipe"] == "kingma2013"
    assert config["arguments"] == {"latent": 2, "hidden": 8}
    assert (config["training"]["optimiser"], config["training"]["seed"], config["training"]["batch"]) == ("adam", 3, 50)
    assert config["data"]["options"] == {"valid": 0.2}


@pytest.mark.parametrize("widths", [("8", "6"), ("8,6",)])
def test_lists_of_numbers(widths):
    done("fit", "digits", *TINY, "--hidden", *widths, "--latent", 2, "--out", "r")
    assert json.loads(Path("r/run.json").read_text())["arguments"]["hidden"] == [8, 6]


def test_help_of_each_recipe():
    from vaekit.recipes import RECIPES

    for name, recipe in RECIPES.items():
        shown = done("fit", "digits", "--recipe", name, "--help-all").out
        for parameter in recipe.parameters:
            assert f"--{parameter.replace('_', '-')}" in shown
        general = {"data", "recipe", "out", "resume", "extend", "exists", "moved", "init_from", "log", "dry_run"}
        assert not set(recipe.parameters) & (set(TRAINING) | set(data_names()) | general), name


def test_help_shows_what_the_chosen_recipe_uses_and_help_all_the_rest():
    def shown(*argv):
        return set(re.findall(r"(?<=│ )--[a-z0-9-]+", done("fit", *argv).out))

    tc, everything = shown("--recipe", "tc", "--help"), shown("--recipe", "tc", "--help-all")
    assert {"--alpha", "--beta", "--gamma", "--latent", "--out", "--epochs"} <= tc
    assert not {"--l1", "--kernel", "--components", "--transforms", "--mix", "--clip"} & tc
    assert {"--l1", "--kernel", "--components", "--clip"} <= everything
    assert tc < everything
    assert {"--components"} <= shown("--prior", "vamp", "--help")
    assert {"--samples", "--groups"} <= shown("--objective=iwae", "--help")
    first = done("fit", "--recipe", "tc", "--help").out.split("\n\n")
    assert "Example: vaekit fit digits --recipe tc" in first[2]


def test_the_catalogue_is_what_the_registers_say():
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    try:
        from catalogue import text
    finally:
        sys.path.pop(0)
    assert json.loads(text()) == json.loads(catalogue.FILE.read_text()), "run python tools/catalogue.py"


def test_recipes_in_the_catalogue_have_the_types_of_their_functions():
    from vaekit.recipes import RECIPES

    for name, recipe in RECIPES.items():
        described = {a.name: a for a in catalogue.recipe(name).arguments}
        for parameter in recipe.parameters.values():
            argument = described[parameter.name]
            assert argument.hint == parameter.annotation, (name, parameter)
            assert argument.default == parameter.default, (name, parameter)


def test_the_options_of_the_general_recipe_come_in_groups():
    from vaekit.objectives import OBJECTIVES
    from vaekit.recipes import get_recipe

    recipe = catalogue.recipe("vae")
    assert {a.name for a in recipe.arguments} == set(get_recipe("vae").parameters)
    assert max(len(group) for group in recipe.groups.values()) <= 10
    shown = done("fit", "digits", "--help-all").out
    places = [shown.index(f"─ {heading}"[:60]) for heading in recipe.groups]
    assert places == sorted(places)
    assert shown.index("─ Run ") < places[0]
    assert places[-1] < shown.index("─ Training ") < shown.index("─ Data ")
    told = {a.name: f"{heading} {a.help}" for heading, group in recipe.groups.items() for a in group}
    for objective, part in OBJECTIVES.items():  # each choice says which objectives take it, in its line or its heading
        for name in part.knobs:
            assert objective in told[name], f"{name} of {objective}"


def test_every_training_option_is_explained():
    from vaekit.options import Options

    assert set(TRAINING) == set(Options.__dataclass_fields__)


def test_dry_run_writes_nothing(tmp_path):
    before = everything(tmp_path)
    result = done("fit", "digits", "--dry-run", "--latent", 3, "--hidden", 8, "--epochs", 2, "--out", "r")
    assert everything(tmp_path) == before
    for word in (
        "x (1, 8, 8), z (3,)",
        "(64,) -> (16,)",
        "Bernoulli",
        "adamw",
        "29 steps",
        "estimate",
        "memory",
        "cpu",
        "images/s",
    ):
        assert word in result.out, word


def test_init_from(run):
    done("fit", "digits", *SMALL, "--init-from", run, "--out", "r")
    assert json.loads(Path("r/run.json").read_text())["init_from"] == str(run)


def test_names_of_runs_that_cannot_be(tmp_path):
    for name, said in (("", "empty"), ("a\udcff", "UTF-8"), ("y" * 256, "too long")):
        for words in (
            ("fit", "digits", *SMALL, "--out", name),
            ("sample", "example", "--out", name + ".png"[: len(name)]),
        ):
            refused = vaekit(*words)
            assert (refused.code, refused.err.count("\n")) == (2, 1)
            assert said in refused.err
    assert not everything(tmp_path)


def test_extend_and_exists(tmp_path):
    done("fit", "digits", *SMALL, "--out", "r")
    first = json.loads(Path("r/run.json").read_text())
    longer = done("fit", "--out", "r", "--extend", "--steps", first["step"] + 3)
    assert "extended from step" in longer.err
    assert "validation ELBO" in longer.out
    again = done("fit", "--out", "r", "--extend", "--steps", first["step"] + 3)
    assert "nothing to train" in again.out
    legs = json.loads(Path("r/run.json").read_text())["legs"]
    assert [(leg["from"], leg["to"]) for leg in legs] == [(0, first["step"]), (first["step"], first["step"] + 3)]
    for place in ("s", "s"):  # a job that may be submitted again as it is
        job = done("fit", "digits", *SMALL, "--out", place, "--exists", "resume")
    assert "nothing to train" in job.out
    done("fit", "digits", *SMALL, "--out", "r", "--exists", "replace")
    assert len(json.loads(Path("r/run.json").read_text())["legs"]) == 1


def test_resume_of_a_finished_run(run):
    for argv in (("fit", "--out", run, "--resume"), ("fit", "digits", "--out", run, "--resume")):
        assert "finished" in done(*argv).out


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_resume_ends(sent, tmp_path):
    command = [sys.executable, "-m", "vaekit", "fit"]
    options = ["digits", "--steps", "400", "--compile", "off", "--latent", "2", "--hidden", "8", "--valid", "0.2",
               "--checkpoint-steps", "20", "--out", "my run"]  # fmt: skip
    process = subprocess.Popen(command + options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 600
    while not list(tmp_path.glob("my run/checkpoint/*")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "saved in my run" in err
    assert "vaekit fit digits --out 'my run' --resume" in err
    rows = Path("my run/splits.safetensors").read_bytes()
    stopped = json.loads(Path("my run/run.json").read_text())
    assert stopped["state"] == "interrupted"
    assert vaekit("fit", "--out", "my run", "--resume", "--seed", 1).code == 2  # another run's setting
    assert vaekit("fit", "digits", "--valid", 0.1, "--out", "my run", "--resume").code == 2
    assert "validation ELBO" in done("fit", "--out", "my run", "--resume").out
    config = json.loads(Path("my run/run.json").read_text())
    assert (config["state"], config["step"]) == ("finished", 400)
    assert Path("my run/splits.safetensors").read_bytes() == rows


# --- using a run ------------------------------------------------------------------------------------------------


def test_evaluate(run):
    shown = done("evaluate", run, "--samples", 3, "-n", 20).out
    assert "elbo" in shown
    assert "expected to be at most -" in shown
    assert "K 3" in shown.splitlines()[-1]
    listed = json.loads(done("evaluate", run, "--samples", 3, "-n", 20, "--metrics", "elbo", "rate", "--json").out)
    assert [m["name"] for m in listed] == ["elbo", "rate"]
    assert all(set(m) == METRIC for m in listed)
    assert json.loads(done("evaluate", run, "--samples", 3, "-n", 20, "--metrics", "elbo,rate", "--json").out) == listed
    assert any(m["name"] == "elbo" for m in json.loads((run / "metrics.json").read_text()))
    family = json.loads(done("evaluate", run, "-n", 20, "--metrics", "latents,elbo", "--samples", 3, "--json").out)
    assert {m["name"] for m in family} == {"elbo", "active_units"}


def test_pictures(run):
    for argv in (
        ("sample", run, "-n", 9),
        ("sample", run, "-n", 9, "--temperature", 0.5, "--noise", "--seed", 1),
        ("reconstruct", run, "-n", 4),
        ("interpolate", run, 0, 1, "--steps", 4),
        ("traverse", run, "--latents", 2),
        ("traverse", run, "--latents", 2, "--range", 2, "--index", 3),
    ):
        path = Path("new/picture.png")
        assert done(*argv, "--out", path).out == f"{path}\n"
        with Image.open(path) as image:
            assert image.mode == "RGB"
        path.unlink()


def test_samples_of_latents_fitted_to_the_codes(run, monkeypatch):
    from vaekit.latents.densities import NormalisingFlow, SecondStage

    monkeypatch.setattr(NormalisingFlow, "STEPS", 5)
    monkeypatch.setattr(SecondStage, "STEPS", 5)
    for name in ("gmm", "flow", "two-stage"):
        first = done("sample", run, "--latents", name, "-n", 9, "--out", "a.npz")
        line, path = first.out.splitlines()
        assert line.startswith(f"{name}: ")
        assert "1,437 codes of the training split" in line
        assert "under N(0, I)" in line
        assert path == "a.npz"
        assert f"fitting {name}" in first.err
        a = np.load("a.npz")
        assert (a["x"].shape, a["z"].shape) == ((9, 1, 8, 8), (9, 3))
        again = done("sample", run, "--latents", name.upper(), "-n", 9, "--out", "b.npz")
        assert again.out.splitlines()[0] == line
        assert "fitting" not in again.err
        assert np.array_equal(np.load("b.npz")["x"], a["x"])
    other = vaekit("sample", run, "--latents", "gmm", "--components", 3)
    assert other.code == 2
    assert "--refit" in other.err
    assert "gmm: 3 Gaussians" in done("sample", run, "--latents", "gmm", "--components", 3, "--refit").out
    cold = done("sample", run, "--latents", "gmm", "--temperature", 0, "-n", 2, "--out", "c.npz")
    assert "gmm: 3 Gaussians" in cold.out
    assert np.allclose(*np.load("c.npz")["z"])


def test_arrays(run):
    def arrays(*argv):
        done(*argv, "--out", "a.npz")
        return np.load("a.npz")

    sampled = arrays("sample", run, "-n", 9)
    assert (sampled["x"].shape, sampled["z"].shape) == ((9, 1, 8, 8), (9, 3))
    assert 0 <= sampled["x"].min() <= sampled["x"].max() <= 16
    assert arrays("reconstruct", run, "-n", 4)["reconstruction"].shape == (4, 1, 8, 8)
    assert arrays("interpolate", run, 0, 1, "--mode", "slerp")["z"].shape == (11, 3)
    assert arrays("traverse", run, "--latents", 2)["x"].shape == (2, 9, 1, 8, 8)
    encoded = arrays("encode", run)
    assert (encoded["z"].shape, encoded["label"].shape) == ((180, 3), (180,))
    again = arrays("encode", run, "digits")
    assert again["z"].shape == (1797, 3)
    assert np.allclose(arrays("encode", run, "digits", "--split", "test")["z"].shape, (180, 3))


def test_interpolation_between_files(run):
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save("a.png")
    np.save("rows.npy", np.zeros((2, 8, 8), np.uint8))
    np.savez("one.npz", x=np.ones((8, 8), np.uint8))
    for a, b in (("a.png", "rows.npy"), ("rows.npy:1", "one.npz"), ("0", "a.png")):
        done("interpolate", run, a, b, "--out", "i.npz")
    assert vaekit("interpolate", run, "0", "rows.npy:2").code == 2


def test_indices_see_the_draw_of_their_split(run):
    """The digits are binarised by a draw: an index must not be drawn anew."""
    assert json.loads((run / "run.json").read_text())["observation"] == "binary"
    for options in ((), ("--sample", "--seed", 3)):
        done("reconstruct", run, "-n", 20, *options, "--out", "r.npz")
        done("interpolate", run, 3, 14, *options, "--out", "i.npz")
        made, way = np.load("r.npz"), np.load("i.npz")
        np.testing.assert_allclose(way["z"][[0, -1]], made["z"][[3, 14]], atol=1e-5)  # one row rounds otherwise
        np.testing.assert_allclose(way["x"][[0, -1]], made["reconstruction"][[3, 14]], rtol=1e-4)
    done("reconstruct", run, "-n", 20, "--out", "r.npz")
    made = np.load("r.npz")
    done("traverse", run, "--index", 7, "--steps", 2, "--latents", 1, "--out", "t.npz")
    walked = np.load("t.npz")
    others = np.delete(np.arange(3), walked["latents"])
    np.testing.assert_allclose(walked["z"][0, 0, others], made["z"][7, others], atol=1e-5)


def test_a_split_of_the_runs_own_data_by_name(run):
    done("encode", run, "--out", "own.npz")
    done("encode", run, "digits", "--split", "test", "--out", "named.npz")
    own, named = np.load("own.npz"), np.load("named.npz")
    for key in ("z", "label"):
        np.testing.assert_array_equal(named[key], own[key])


def test_traversal_is_in_the_order_of_the_mean_kl(run):
    from vaekit.run import open_run

    done("traverse", run, "--latents", 3, "--out", "t.npz")
    kl = open_run(run).kl_per_latent(n=1000)
    np.testing.assert_array_equal(np.load("t.npz")["latents"], np.argsort(-kl))


def test_any_number_of_new_rows(run):
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save("one.png")
    Path("folder").mkdir()
    Image.fromarray(np.full((9, 8), 200, np.uint8)).save("folder/a.png")
    x = np.full((8, 8), 3, np.uint8)
    np.save("one.npy", x)
    np.save("two.npy", np.stack([x, x]))
    np.savez("labelled.npz", x=np.stack([x, x]), label=np.array([7, 7]))
    beside = {"one.png": ["file"], "labelled.npz": ["label"]}
    for source, n in (("one.png", 1), ("one.npy", 1), ("two.npy", 2), ("labelled.npz", 2)):
        done("score", run, source, "--samples", 2)
        rows = list(csv.reader(Path("scores.csv").read_text().splitlines()))
        assert len(rows) == 1 + n, source
        assert rows[0] == ["index", *beside.get(source, []), "log_px"]
        done("encode", run, source)
        assert np.load("z.npz")["z"].shape == (n, 3)
    assert np.load("z.npz")["label"].tolist() == [7, 7]
    assert vaekit("score", run, "folder").code == 2  # bytes to 255, where the run knows 0 to 16
    np.save("wide.npy", np.zeros((2, 9, 9), np.uint8))
    assert "shape" in vaekit("score", run, "wide.npy").err


def test_measured_numbers_in_a_file_of_ones_own(run):
    listed = done("evaluate", run, "--samples", 2, "-n", 9, "--json", "--out", "new/metrics.json").out
    assert json.loads(Path("new/metrics.json").read_text()) == json.loads(listed)
    assert vaekit("evaluate", run, "--out", "m.txt").code == 2


def test_score(run):
    done("score", run, "--samples", 2, "-n", 7)
    rows = list(csv.reader(Path("scores.csv").read_text().splitlines()))
    assert rows[0] == ["index", "log_px"]
    assert len(rows) == 8
    assert all(float(value) < 0 for _, value in rows[1:])


def test_report(run):
    assert Path(done("report", run).out.strip()).stat().st_size > 1000
    done("report", run, run, "--out", "both.html")
    assert "<html" in Path("both.html").read_text()[:200]


@pytest.mark.parametrize("command", ["recipes", "datasets"])
def test_lists(command):
    assert ("vae" if command == "recipes" else "digits") in done(command).out
    for one in json.loads(done(command, "--json").out):
        assert set(one) == {"name", "summary", "paper", "arguments"}


def test_recipes_are_listed_once_by_purpose_and_every_suggestion_can_be_typed():
    from vaekit.cli.guide import FITTING, PURPOSES

    assert sorted(name for names in PURPOSES.values() for name in names) == sorted(catalogue.recipes())
    shown = done("recipes").out
    for purpose, names in PURPOSES.items():
        assert shown.index(purpose) < min(shown.index(f"  {name} ") for name in names)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    options = {"recipe", *TRAINING, *data_names()}
    for have, command in FITTING:
        assert f"| {have} | `{command}` |" in readme
        assert f"{command}\n" in shown
        flags = re.findall(r"--([a-z-]+)", command)
        own = re.search(r"--recipe ([a-z-]+)", command)
        taken = {a.name for a in catalogue.recipe(own[1] if own else "vae").arguments} | options
        assert {flag.replace("-", "_") for flag in flags} <= taken, command


# --- other data -------------------------------------------------------------------------------------------------


def test_folder_of_images(tmp_path):
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"photos/{i:02}.png")
    done("fit", "photos", *SMALL, "--size", 8, "--likelihood", "gaussian", "--out", "r")
    done("score", "r", "photos", "--samples", 2)
    rows = list(csv.reader(Path("scores.csv").read_text().splitlines()))
    assert rows[0] == ["index", "file", "log_px"]
    assert [row[1] for row in rows[1:]] == [f"{i:02}.png" for i in range(12)]
    done("interpolate", "r", "photos/00.png", "photos/01.png", "--out", "i.png")
    (tmp_path / "one").mkdir()
    Image.fromarray(random.integers(0, 255, (12, 16), np.uint8)).save(tmp_path / "one/grey.png")
    done("score", "r", "one", "--samples", 2)
    assert "grey.png" in Path("scores.csv").read_text()


def test_signals_and_vectors(tmp_path):
    random = np.random.default_rng(0)
    np.save("signals.npy", random.normal(size=(40, 2, 16)).astype(np.float32))
    done("fit", "signals.npy", "--kind", "signal", *SMALL, "--out", "s")
    done("sample", "s", "-n", 5, "--out", "s.png")
    np.savetxt("t.csv", random.normal(size=(40, 5)), delimiter=",", header="a,b,c,d,e", comments="")
    done("fit", "t.csv", *SMALL, "--out", "t")
    refused = vaekit("sample", "t", "--out", "t.png")
    assert refused.code == 2
    assert "t.npz" in refused.err
    done("sample", "t", "--out", "t.npz")
    assert np.load("t.npz")["x"].shape == (64, 5)


def test_data_that_moved():
    np.save("x.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    done("fit", "x.npy", *SMALL, "--out", "r")
    Path("x.npy").rename("y.npy")
    refused = vaekit("evaluate", "r", "--samples", 1)
    assert refused.code == 2
    assert "--data" in refused.err
    for argv in (("evaluate", "r", "--samples", 1), ("reconstruct", "r"), ("encode", "r"), ("interpolate", "r", 0, 1)):
        done(*argv, "--data", "y.npy")


def test_resume_of_a_run_whose_data_moved(tmp_path, monkeypatch):
    from vaekit.utils.files import read_json, write_json

    np.save("x.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    done("fit", "x.npy", *SMALL, "--checkpoint-steps", 2, "--out", "r")
    last = max(Path("r/checkpoint").glob("*"))
    last.unlink()  # as if it had stopped one checkpoint earlier
    write_json(Path("r/run.json"), read_json(Path("r/run.json")) | {"state": "interrupted"})
    Path("x.npy").rename("y.npy")
    refused = vaekit("fit", "--out", "r", "--resume")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--data PATH" in refused.err
    assert "one" in vaekit("fit", "y.npy", "--out", "r", "--resume", "--data", "y.npy").err
    assert "--resume" in vaekit("fit", "--data", "y.npy").err
    assert "validation ELBO" in done("fit", "--out", "r", "--resume", "--data", "y.npy").out
    assert read_json(Path("r/run.json"))["state"] == "finished"


def test_named_data_that_can_be_had_nowhere(monkeypatch, tmp_path):
    from vaekit.data import named

    monkeypatch.setattr(named, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setenv("VAEKIT_MIRROR", (tmp_path / "nowhere").as_uri())
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "empty"))
    result = vaekit("fit", "fashion-mnist", *SMALL)
    assert result.code == 3
    assert result.err.startswith("error: fashion-mnist: ")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "file"))
    assert vaekit("fit", "fashion-mnist", *SMALL).code == 2


def test_progress_of_long_work(monkeypatch):
    from vaekit.cli.output import TaskProgress

    err = io.StringIO()
    with contextlib.redirect_stderr(err), TaskProgress() as progress:
        for i in range(1, 101):
            progress("downloading a", i, 100)
        progress("downloading b", 5, 0)
    assert err.getvalue().splitlines() == ["downloading a 1%", "downloading a 100%", "downloading b"]
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with contextlib.redirect_stderr(terminal), TaskProgress() as progress:
        progress("downloading a", 50, 100)
    assert "downloading a" in terminal.getvalue()


def test_the_elbo_told_is_that_of_the_saved_weights(capsys):
    from types import SimpleNamespace

    from vaekit.cli.fit import _finished

    def record(elbo):
        return {"elbo": elbo, "rate": 1.0, "distortion": 2.0}

    for patience, elbo in ((None, "-5.00"), (3, "-4.00")):
        config = {"arguments": {}, "training": {"patience": patience}, "valid": record(-5.0), "best": record(-4.0)}
        options = SimpleNamespace(patience=patience)
        _finished(SimpleNamespace(log=[], options=options, config={**config, "seconds": 1, "step": 2}), Path("r"))
        assert elbo in capsys.readouterr().out


# --- what cannot be done ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("fti digits", "did you mean 'fit'"),
        ("train digits", "did you mean 'fit'"),
        ("generate RUN", "did you mean 'sample'"),
        ("digits", "vaekit fit digits"),
        ("RUN", "vaekit report"),
        ("fit RUN", "--resume"),
        ("fit digits --recipe tc --codes 5", "--recipe vq"),
        ("fit digits --learning-rate 1", "did you mean --lr?"),
        ("fit digits --batch-size 1", "did you mean --batch?"),
        ("fit digits --latent-dim 1", "did you mean --latent?"),
        ("fit digits --hidden-dims 1", "did you mean --hidden?"),
        ("fit digits --optimizer adam", "did you mean --optimiser?"),
        ("fit digits --num-epochs 1", "did you mean --epochs?"),
        ("fit digits --gpu", "did you mean --device?"),
        ("fit digits --lr-schedule cosine", "did you mean --schedule?"),
        ("fit digits --epochs", "--epochs needs a value"),
        ("fit digits --latent 2.5", "expected a whole number, got '2.5'"),
        ("sample RUN -n 2.5", "expected a whole number, got '2.5'"),
        ("sample RUN --count 3", "did you mean -n?"),
        ("example", "vaekit report example"),
        ("fit digits --recipe cvae", "did you mean 'conditional'"),
        ("fit fiel", "did you mean 'file'"),
        ("fit digits -o r", "did you mean --out?"),
        ("fit digits --help-al", "did you mean --help-all?"),
        ("fit digits --resume=perhaps", "--resume"),
        ("sample digits", "vaekit fit digits"),
        ("sample file", "is a file, not a run"),
        ("sample RUN/..", "give one of them"),
        ("sample RUN --output x.png", "did you mean --out?"),
        ("study zzz", "kl-weight"),
        ("study interpolaton", "did you mean 'interpolation'"),
        ("study beta nowhere.csv", "neither a data set nor a path"),
        ("fit", "DATA"),
        ("fit digts", "did you mean 'digits'"),
        ("fit digits extra", "extra"),
        ("fit digits --latnt 3", "did you mean --latent"),
        ("fit digits --recipe covn", "did you mean 'conv'"),
        ("fit digits --recipe zzz", "kingma2013"),
        ("fit digits --activation rellu", 'Did you mean "relu"'),
        ("fit digits --optimiser adm", "did you mean 'adam'"),
        ("fit digits --compile of", 'Did you mean "off"'),
        ("fit digits --kind imge", 'Did you mean "image"'),
        ("fit digits --latent 0", "--latent must be 1 or more"),
        ("fit digits --latent many", "whole number"),
        ("fit digits --hidden -5", "--hidden must be 1 or more, got -5"),
        ("fit digits --hidden 8,0", "--hidden must be 1 or more, got 0"),
        ("fit digits --samples 0", "--samples"),
        ("fit digits --beta nan", "--beta"),
        ("fit digits --beta -1", "--beta"),
        ("fit digits --warmup -1", "--warmup"),
        ("fit digits --likelihood gaussian --sigma inf", "sigma"),
        ("fit digits --recipe conv --hidden 8 -2", "--hidden must be 1 or more, got -2"),
        ("fit digits --recipe conv --blocks -1", "--blocks"),
        ("fit digits --recipe unit-gaussian --decoder-hidden 0", "--decoder-hidden"),
        ("fit digits --recipe kingma2013 --hidden 0", "--hidden"),
        ("fit digits --weight-decay nan", "--weight-decay"),
        ("fit digits --weight-decay -1", "--weight-decay"),
        ("fit digits --hidden 3,x", "300,300"),
        ("fit --hidden 3 digits", "write DATA before"),
        ("fit digits --epochs 1 --steps 1", "one of"),
        ("fit digits --steps 0", "--steps"),
        ("fit digits --lr nan", "--lr"),
        ("fit digits --device cudaa", "--device"),
        ("fit digits --valid 2", "valid"),
        ("fit digits --size 4", "size"),
        ("fit digits --likelihood bernoulli --observation levels", "--observation"),
        ("fit digits --out RUN", "--resume"),
        ("fit digits --out .", "other files"),
        ("fit digits --out file", "is a file"),
        ("fit digits --out file/run", "not a directory"),
        ("fit digits --init-from nowhere", "nowhere"),
        ("fit digits --out nowhere --resume", "nowhere"),
        ("fit digits --out RUN --resume --recipe linear", "--recipe"),
        ("fit digits --resume --dry-run", "--dry-run"),
        ("fit --out RUN --resume --steps 40", "--extend"),
        ("fit --out RUN --resume --lr 0.5", "--lr"),
        ("fit --out RUN --resume --latent 9", "--latent"),
        ("fit --out RUN --resume --valid 0.3", "valid"),
        ("fit --out RUN --extend", "--epochs, --steps or --minutes"),
        ("fit --out RUN --extend --steps 1", "--steps 1 counts from"),
        ("fit --out nowhere --extend --steps 9", "nowhere"),
        ("fit digits --out RUN --exists replace --latent 0", "--latent"),
        (f"fit digits --out {'x' * 300}", "too long"),
        ("evaluate", "RUN"),
        ("evaluate nowhere", "vaekit fit"),
        ("evaluate RUN --samples 0", "--samples"),
        ("evaluate RUN -n 0", "-n"),
        ("evaluate RUN --split tset", 'Did you mean "test"'),
        ("evaluate RUN --metrics elob", "did you mean 'elbo'"),
        ("evaluate RUN --metrics disentaglement", "did you mean 'disentanglement'"),
        ("sample RUN -n 0", "-n"),
        ("sample RUN --temperature -1", "--temperature"),
        ("sample RUN --latents gm", "did you mean 'gmm'"),
        ("sample RUN --latents flow --components 3", "--components is for gmm"),
        ("sample RUN --latents gmm --components 0", "--components must be 1 or more"),
        ("sample RUN --components 3", "add --latents gmm"),
        ("sample RUN --refit", "add --latents gmm"),
        ("sample RUN --out x.jpg", ".png"),
        ("sample RUN --out .", "directory"),
        ("sample RUN --out file/x.png", "not a directory"),
        ("reconstruct RUN -n 0", "-n"),
        ("interpolate RUN 0", "B"),
        ("interpolate RUN 0 180", "0 to 179"),
        ("interpolate RUN 0 nothing.png", "neither"),
        ("interpolate RUN 0 file", "image"),
        ("interpolate RUN 0 1 --steps 1", "--steps"),
        ("interpolate RUN 0 1 --mode slrp", 'Did you mean "slerp"'),
        ("traverse RUN --latents 0", "--latents"),
        ("traverse RUN --range 0", "--range"),
        ("traverse RUN --index 999", "0 to 179"),
        ("encode RUN nothing", "nothing"),
        ("encode RUN --out z.png", ".npz"),
        ("score RUN --samples 0", "--samples"),
        ("report", "RUN"),
        ("report nowhere", "nowhere"),
        ("report RUN --out page.pdf", ".html"),
        ("recipes --jsn", "--json"),
    ],
)
def test_refusals(argv, said, digits, tmp_path):
    (tmp_path / "file").write_text("no image")
    before, run_before = everything(tmp_path), everything(digits)
    result = vaekit(*(word.replace("RUN", str(digits)) for word in argv.split()))
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert said in result.err
    assert result.out == ""
    assert (everything(tmp_path), everything(digits)) == (before, run_before)


def test_damaged_run(run):
    (run / "run.json").write_text("{")
    result = vaekit("sample", run)
    assert (result.code, result.err.count("\n")) == (2, 1)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses new files")
def test_unwritable_place(run):
    for argv in (("sample", run, "--out", "/proc/x.png"), ("fit", "digits", "--out", "/proc/run")):
        result = vaekit(*argv)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "cannot write" in result.err


# --- the start --------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    Path("other").mkdir()
    Path("other/run.json").touch()
    program = (
        "import sys, vaekit.cli\n"
        "def heavy(*names): return set(names) & set(sys.modules)\n"
        "def told(line): return vaekit.cli.main(line.split())\n"
        "for line in ('--help', '--version', 'sample --help', 'fit --help', 'fit --recipe tc --help', 'recipes',\n"
        "             'study', 'fit --help-all', 'metrics', 'evaluate --help', 'compare --help',\n"
        "             'evaluate other --metrics help'):\n"
        "    assert told(line) == 0, line\n"
        "    assert not heavy('torch', 'matplotlib', 'sklearn', 'PIL', 'jinja2'), line\n"
        "assert told('datasets') == 0\n"
        "for line in ('fit nowhere.csv', 'fit digits --recipe covn', 'fit digits --bta 3', 'fit digts', 'fit other',\n"
        "             'fit digits --out other', 'fit digits --epochs 1 --steps 1', 'sample nowhere', 'report .',\n"
        "             'study zzz', 'study beta nowhere', 'train', 'explore x.csv', 'export nowhere --out x',\n"
        "             'evaluate other --metrics elob', 'compare other', 'compare other nowhere'):\n"
        "    assert told(line) == 2, line\n"
        "    assert not heavy('torch', 'matplotlib', 'sklearn', 'pandas', 'scipy', 'jinja2'), line\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    for command in ("fit", "evaluate", "recipes"):
        assert command in done.stdout


def test_opening_a_run_and_drawing_from_it_imports_no_more_than_torch_itself():
    program = (
        "import sys, vaekit.cli\n"
        "assert vaekit.cli.main(['sample', 'example', '-n', '2']) == 0\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'matplotlib', 'sklearn', 'scipy', 'pandas', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr


MARKED = re.compile(r"`([a-z][a-z0-9_]*)(?:=[^`]*)?`")


def texts_of_the_library():
    """The strings of the library, docstrings among them, that are not command lines; {} stands for what is put in."""
    import ast

    import vaekit as package

    root = Path(package.__file__).parent
    lines = {
        "report/commands.py",
        "utils/environment.py",  # of the compiler
        "cli/guide.py",
        "report/about.py",
        "studies/page.py",
        "explorer/pack.py",
    }
    for file in sorted(root.rglob("*.py")):
        if file.is_relative_to(root / "cli") or str(file.relative_to(root)) in lines:
            continue
        tree = ast.parse(file.read_text())
        joined = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
        skipped = {part for one in joined for part in ast.walk(one) if part is not one}
        for node in ast.walk(tree):
            if node in skipped:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                yield f"{file.relative_to(root)}:{node.lineno}", "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{file.relative_to(root)}:{node.lineno}", node.value


def test_library_texts_name_arguments_and_never_flags():
    """A flag means nothing in Python: texts mark `arguments`, which the command line writes as flags."""
    from vaekit.cli import arguments

    marked = set()
    for where, text in texts_of_the_library():
        outside = re.sub(r"`vaekit [^`]*`", "", text)  # command lines may be named
        assert not re.search(r"(?<![\w-])--[a-z]", outside), f"{where}: {text}"
        marked |= set(MARKED.findall(text))
    assert {"beta", "likelihood", "missing", "out"} <= marked
    assert {"latent", "hidden", "lr", "kind", "data", "run", "n"} <= arguments()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`beta` must be above 0", "--beta must be above 0"),
        ("`beta_from` takes `warmup`", "--beta-from takes --warmup"),
        ("use `likelihood='gaussian'`", "use --likelihood gaussian"),
        ("`hidden=[300, 200]`, `hidden=(8,)`", "--hidden 300 200, --hidden 8"),
        ("`latent=2` or `sigma=0.5`", "--latent 2 or --sigma 0.5"),
        ("`skip_bad=True`, `direct=False`", "--skip-bad, --no-direct"),
        ("`delimiter=';'`", "--delimiter ';'"),
        ("`types={'zip': 'categorical', 'age': 'counts'}`", "--types zip=categorical,age=counts"),
        ("`data=PATH`", "--data PATH"),
        ("`n` is 0", "-n is 0"),
        ("`vk.fit(DATA, out='runs/my wine')`", "`vaekit fit DATA --out 'runs/my wine'`"),
        ("`vk.fit('wine.csv')` trains", "`vaekit fit wine.csv` trains"),
        ("`vaekit fit DATA` and `vk.fit(data)` and `nothing`", "`vaekit fit DATA` and `vk.fit(data)` and `nothing`"),
    ],
)
def test_arguments_of_the_library_are_flags_on_the_command_line(said, shown):
    from vaekit.cli import arguments
    from vaekit.cli.parameters import as_flags

    assert as_flags(said, arguments()) == shown


def test_notes_are_worded_for_who_reads_them(capsys):
    from vaekit.utils.progress import Plain, say
    from vaekit.utils.wording import wording

    with wording(str.upper):
        say("note")
        Plain().note("another")
    say("last")
    assert capsys.readouterr().err == "NOTE\nANOTHER\nlast\n"


def test_module_and_version():
    import vaekit as package

    ran = subprocess.run([sys.executable, "-m", "vaekit", "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, package.__version__)


def test_warnings_of_libraries_stay_inside(run):
    import warnings

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        done("sample", run)
    assert not heard


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_do_not_spin_for_ever_unless_the_environment_says_so(monkeypatch, given, count):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done("recipes")
    assert os.environ.get("GOMP_SPINCOUNT") == count
