"""Every command and every line of Python in the README runs, with the long trainings cut short."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf8"), re.S)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("vaekit ")]


def test_the_readme_shows_the_whole_path():
    verbs = [line.split()[1] for line in commands()]
    assert verbs[0] == "fit"
    assert {"evaluate", "report", "sample", "reconstruct", "interpolate", "traverse", "encode", "score"} <= set(verbs)


SHORTER = {
    "--minutes 5": "--steps 30 --compile off",
    "--minutes 10 --out runs/grid": "--steps 2 --hidden 8 8 --compile off --out runs/grid",
    "prior runs/grid --minutes 10": "prior runs/grid --steps 3 --width 16 --layers 1",
    "--minutes 2": "--minutes 0.25",
    "--epochs 60": "--epochs 2",
    "vaekit explore": "vaekit explore --points 50 --tsne 0",
    "--latents prior gmm": "--latents prior gmm -n 500",
    "prior runs/fashion --minutes 10": "prior runs/fashion --steps 3 --width 16 --layers 1",
    "--latents gmm": "--latents gmm --components 2",
    "--samples 100 -n 1000": "--samples 10 -n 100",
    "-n 200 --samples 50": "-n 20 --samples 10",
    "photos/ --samples 100": "photos/ --samples 10",
    "photos/ --false-alarms 0.01": "photos/ --false-alarms 0.01 --samples 2",
    "vaekit report runs/fashion photos/": "vaekit report runs/fashion photos/ --samples 2",
}


def test_commands_run(tmp_path, monkeypatch, fashion_mnist, study_clock, onnx_operators_once):
    from vaekit.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaekit.metrics.samples.learned.STEPS", 20)
    monkeypatch.setattr("vaekit.export.detect.SAMPLES", 2)  # of each held-out row
    monkeypatch.setattr("vaekit.latents.densities.flow_matching.HELD_OUT", (5, 5))
    lines = commands()
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    assert all(any(long in line for line in lines) for long in SHORTER)
    for line in lines:
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        words = shlex.split(line)[1:]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = main(words)
        assert status == 0, f"{line}: {errors.getvalue()}"
        if "--out" in words:
            assert (tmp_path / words[words.index("--out") + 1]).exists(), line
    assert (tmp_path / "runs/fashion/report.html").stat().st_size > 10_000


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(blocks("python")[number], f"README.md, block {number}", "exec"), {})
    if number == 0:
        assert "elbo" in out.getvalue()
    if "sklearn" in blocks("python")[number]:
        assert float(out.getvalue()) > 0.8  # the accuracy it prints; its run was a temporary one
    else:
        assert list((tmp_path / "runs").glob("*/model.safetensors"))


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    documents = README.read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)", documents, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_family_page_is_that_of_the_recipes():
    import runpy

    page = runpy.run_path(str(ROOT / "docs" / "family.py"))["page"]
    assert (ROOT / "docs" / "family.md").read_text(encoding="utf8") == page(), "run: python docs/family.py"
