"""A reader in one file of another package, as CONTRIBUTING.md says, is known wherever data are read."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import catalogue, main
from vaekit.data import Source, reader
from vaekit.data.readers.registry import READERS
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.utils import plugins
from vaekit.utils.arguments import Knob

SMALL = ("--latent", 2, "--hidden", 8, "--steps", 4, "--device", "cpu", "--compile", "off")


def vaekit(*argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return code, " ".join((out.getvalue() + err.getvalue()).replace("│", " ").split())


def forget():
    for cached in (plugins.installed, catalogue.data_options):
        cached.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with one module as pip would; returns how to remove it."""
    before, folder = dict(READERS.entries), tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(module, code):
        (folder / f"{module}.py").write_text(code)
        info = folder / f"vaekit_{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vaekit-{module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vaekit.parts]\nmine = {module}\n")
        forget()
        return lambda: [info.rename(tmp_path / "removed"), READERS.entries.pop("recs"), forget()]

    yield write
    READERS.entries.clear()
    READERS.entries.update(before)
    forget()
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)


def example():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf8")
    return text.split("## Add a reader")[1].split("```python")[1].split("```")[0]


def test_a_reader_in_one_file_is_known_everywhere(install, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remove = install("records", example())
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.savetxt("x.recs", rows)

    data = vk.load("x.recs", every=2, valid=0.2)
    np.testing.assert_allclose(data.train.raw, rows[::2], rtol=1e-6)
    assert data.options == {"every": 2, "valid": 0.2}
    np.save("x.npy", rows)
    with pytest.raises(
        DataError, match=r"`every` applies to a file of records \(\.recs\), not to a \.npy file \(x\.npy\)"
    ):
        vk.load("x.npy", every=2)
    with pytest.raises(
        DataError, match=r"`size` applies to a folder of images, .* not to a file of records \(\.recs\)"
    ):
        vk.load("x.recs", size=8)
    with pytest.raises(ChoiceError, match="`every` must be 1 or more, got 0"):
        vk.load("x.recs", every=0)
    with pytest.raises(ChoiceError, match="unknown option of data 'evry': did you mean 'every'"):
        vk.load("x.recs", evry=2)
    Path("x.bin").touch()
    with pytest.raises(DataError, match=r"expected .*\.recs"):
        vk.load("x.bin")

    shown = vaekit("fit", "x.recs", "--help")[1]
    assert "Data: a file of records (.recs)" in shown
    assert "--every INT keep one record of so many [default: 1]" in shown
    assert vaekit("fit", "x.recs", "--every", 2, *SMALL, "--out", "run")[0] == 0
    stored = json.loads(Path("run/run.json").read_text())["data"]
    assert stored["options"] == {"every": 2}
    assert stored["reader"] == {"name": "recs", "package": "vaekit-records"}
    np.testing.assert_array_equal(vk.open("run").data.train.raw, data.train.raw)
    code, said = vaekit("fit", "--out", "run", "--resume", "--every", 3)
    assert code == 2
    assert "the run was started with every 2, not 3" in said
    assert vaekit("encode", "run", "x.recs", "--out", "z.npz")[0] == 0  # read as the run's data were
    with np.load("z.npz") as codes:
        np.testing.assert_allclose(codes["z"], vk.open("run").encode(rows[::2]), rtol=1e-5, atol=1e-6)
    assert vaekit("score", "run", "--samples", 2)[0] == 0

    remove()
    run = vk.open("run")
    assert run.encode(rows[:2]).shape == (2, 2)
    with pytest.raises(RunError, match=r"reader 'recs': the package vaekit-records is not installed: `pip install"):
        _ = run.data


def test_an_option_that_fit_has_is_for_python_only(install, tmp_path):
    install("stepped", example().replace("every", "latent").replace('"recs"', '"stepped"').replace(".recs", ".step"))
    np.savetxt(tmp_path / "x.step", np.random.default_rng(0).normal(size=(40, 3)))
    assert len(vk.load(tmp_path / "x.step", latent=2).train.raw) == 20
    code, shown = vaekit("fit", tmp_path / "x.step", *SMALL, "--dry-run")
    assert code == 0
    assert "note: --latent of a file of records (.step) (vaekit-stepped) is for Python only" in shown


def test_the_command_line_names_a_plugin_that_is_left_out(install):
    install("halfway", "import no_such_module_at_all")
    code, shown = vaekit("fit", "digits", "--help")
    assert code == 0
    assert "note: the plug-in halfway of the package vaekit-halfway is left out" in shown


def no_knob(path, *, rows):
    return Source(np.zeros((3, 3)))


def no_default(path, *, rows: Annotated[int, Knob("how many")]):
    return Source(np.zeros((3, 3)))


def other_type(path, *, size: Annotated[int, Knob("how many")] = 1):
    return Source(np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("name", "read", "message"),
    [
        ("wrong", no_knob, "annotate the parameter `rows` with a Knob"),
        ("wrong", no_default, "give the option `rows` a default"),
        ("wrong", other_type, r"the option `size` is of type int, but of type str .* in the reader 'images'"),
        ("npz", other_type, "there is a reader 'npz' already"),
    ],
)
def test_a_reader_that_is_declared_wrongly_is_refused(name, read, message):
    with pytest.raises(ChoiceError, match=message):
        reader(name, "a file")(read)
    assert "wrong" not in READERS
