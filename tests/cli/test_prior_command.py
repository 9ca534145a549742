"""`vaekit prior`, and `vaekit sample` with its labels and guidance: what they print, keep and refuse."""

import json
import os

import numpy as np
import pytest
from core_helpers import python, same

import vaekit as vk
from vaekit.cli import main
from vaekit.report.look import Look
from vaekit.report.registry import FIGURES

pytestmark = pytest.mark.usefixtures("coarse_paths")
SMALL = ("--width", "16", "--layers", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior")
    rng = np.random.default_rng(0)
    heap = rng.integers(0, 3, 300)
    np.savez(path / "heaps.npz", x=(rng.normal(size=(300, 4)) + 3 * heap[:, None]).astype(np.float32), label=heap)
    vk.fit(path / "heaps.npz", "vae", out=path / "run", latent=2, hidden=(8,), steps=20, progress=False, compile="off")
    return path


def vaekit(capsys, *words):
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_train_extend_and_sample(folder, capsys):
    run = folder / "run"
    assert "has no flow-matching to resume" in vaekit(capsys, "prior", run, "--resume")[1]
    status, said = vaekit(capsys, "prior", run, "--steps", 6, *SMALL, "--ema", 0.9)
    assert status == 0
    assert "flow-matching: a dense network of 1 blocks of width 16, given label" in said
    assert "--label 'class 0' --guidance 2" in said
    record = json.loads((run / "latents" / "flow-matching.json").read_text())
    assert (record["steps"], record["asked"]["width"]) == (6, 16)
    status, said = vaekit(capsys, "prior", run, "--steps", 6)
    assert (status, "add --extend to train it longer, or add --refit to replace it" in said) == (2, True)
    assert vaekit(capsys, "prior", run, "--extend", "--steps", 9, "--quiet")[0] == 0
    assert json.loads((run / "latents" / "flow-matching.json").read_text())["steps"] == 9
    words = ("sample", run, "--latents", "flow-matching", "-n", 5, "--label", 2, "--guidance", 1.5)
    assert vaekit(capsys, *words, "--out", folder / "x.npz")[0] == 0
    assert np.load(folder / "x.npz")["x"].shape == (5, 4)
    table, plot = FIGURES["densities"].section(Look(vk.open(run))).blocks
    assert (table.rows[0][0], table.rows[0][2], plot.kind) == ("flow-matching", "9", "picture")


def test_what_is_refused_keeps_the_stored_density(folder, capsys):
    run = folder / "run"
    assert vaekit(capsys, "prior", run, "--steps", 6, *SMALL, "--refit", "--condition", "none")[0] == 0
    stored = {file: file.read_bytes() for file in (run / "latents").rglob("*") if file.is_file()}
    for words, why in (
        (("--extend", "--steps", 3), "has taken 6 steps (6 epochs) already"),
        (("--extend",), "needs a length"),
        (("--extend", "--lr", 1, "--steps", 9), "was started with --lr 0.001, not 1.0"),
        (("--refit", "--network", "grid"), "needs codes that are small images"),
        (("--refit", "--batch", 0), "batch"),
    ):
        status, said = vaekit(capsys, "prior", run, *words)
        assert (status, why in said) == (2, True), said
        assert all(file.read_bytes() == before for file, before in stored.items())
    words = ("sample", run, "--latents", "flow-matching", "--label", 1)
    assert "the flow-matching of this run is not conditional" in vaekit(capsys, *words)[1]


def test_the_device_is_the_best_one_by_default(folder, capsys, monkeypatch):
    from vaekit.training import cost

    asked = []
    choose = cost.choose_device
    monkeypatch.setattr(cost, "choose_device", lambda name, double=False: asked.append(name) or choose("cpu"))
    assert vaekit(capsys, "prior", folder / "run", "--latents", "gmm", "--refit")[0] == 0
    assert "auto" in asked


def test_the_other_densities_and_what_is_refused(folder, capsys):
    run = folder / "run"
    assert vaekit(capsys, "prior", run, "--latents", "gmm", "--components", 2, "--refit")[0] == 0
    for words, why in (
        (("prior", run, "--latents", "gmm", "--refit", "--minutes", 1), "gmm is not trained as a run"),
        (("prior", run, "--latents", "gnm"), "did you mean 'gmm'"),
        (("prior", run, "--refit", "--network", "grid"), "needs codes that are small images"),
        (("prior", run, "--refit", "--condition", "attributes"), "no attributes to be conditional on"),
        (("prior", run, "--minutes", 1, "--steps", 3), "give one of"),
        (("sample", run, "--guidance", 2), "add --latents flow-matching and --label"),
        (("sample", run, "--label", 1, "--latents", "prior"), "or --latents flow-matching for data with labels"),
        (("sample", run, "--label", 1, "--latents", "gmm"), "--label needs a conditional run"),
    ):
        status, said = vaekit(capsys, *words)
        assert (status, why in said) == (2, True), said


# --- killed and resumed -----------------------------------------------------------------------------------------

KILLED = """
import dataclasses, functools, os, shutil, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import QUIET
from vaekit.cli import main
from vaekit.latents.densities import FlowMatchingDensity, flow_matching

folder, asked = Path(sys.argv[1]), flow_matching._options
flow_matching._options = lambda *given: dataclasses.replace(asked(*given), checkpoint_steps=3)
FlowMatchingDensity.path = functools.partialmethod(FlowMatchingDensity.path, steps=2)
x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
np.save(folder / "x.npy", x)
vk.fit(str(folder / "x.npy"), out=folder / "whole", steps=2, latent=2, hidden=(4,), **QUIET)
shutil.copytree(folder / "whole", folder / "killed")

def words(run):
    begun = (run / "latents" / "flow-matching" / "run.json").exists()
    how = ["--resume"] if begun else ["--steps", "8", "--width", "8", "--layers", "1", "--batch", "8"]
    return ["prior", str(run), "--quiet", *how]

def killed(run, at, renamed):
    "Train until the file of this number is to be renamed into place, or has been; how it ended."
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    real, count = os.replace, 0
    def replace(part, path):
        nonlocal count
        count += 1
        if renamed and count == at:
            real(part, path)
        if count == at:
            os.kill(os.getpid(), 9)
        real(part, path)
    os.replace = replace
    os._exit(main(words(run)))

assert main(words(folder / "whole")) == 0  # in this process, so that what it imports is there for the others
for at, renamed in ((1, False), (2, True), (4, False), (3, True), (1, False)):
    assert killed(folder / "killed", at, renamed) == 9, f"it ended before the kill at {at}"
assert main(words(folder / "killed")) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_file_and_resumed_the_density_has_the_same_bytes(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = python(str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr
    whole, killed = (tmp_path / name / "latents" for name in ("whole", "killed"))
    assert same(whole, killed, "flow-matching/model.safetensors")
    assert (whole / "flow-matching.safetensors").read_bytes() == (killed / "flow-matching.safetensors").read_bytes()
    records = [json.loads((folder / "flow-matching.json").read_text()) for folder in (whole, killed)]
    assert [record.pop("seconds") >= 0 for record in records] == [True, True]
    assert records[0] == records[1]
