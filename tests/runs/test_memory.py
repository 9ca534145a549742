"""What a run does not store, arrays in memory and compositions built by hand, is passed again; errors say how."""

import re

import numpy as np
import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError, DataError, RunError

TINY = {"steps": 2, "batch": 16, "latent": 2, "hidden": (8,), **QUIET}


def written(error, names):
    """The value of the Python that an error tells to write."""
    (code,) = re.findall(r"vk\.\w+\(.*\)", str(error.value).split(", or save")[0])
    return eval(code, {"vk": vk, **names})


@pytest.mark.parametrize("labelled", [False, True])
def test_the_error_says_how_to_pass_them(tmp_path, labelled):
    x, y = blobs(60).astype(np.float32), np.arange(60) % 3
    data = vk.from_arrays(x, label=y if labelled else None)
    run = vk.fit(data, "conditional" if labelled else "vae", out=tmp_path / "run", **TINY)
    expected = run.score("test", samples=4)
    opened = vk.open(tmp_path / "run")
    with pytest.raises(DataError, match=r"which a run does not store.* `data=PATH`") as error:
        opened.score("test", samples=4)
    np.testing.assert_array_equal(written(error, {"x": x, "y": y}).score("test", samples=4), expected)
    np.savez(tmp_path / "x.npz", x=x, y=y) if labelled else np.savez(tmp_path / "x.npz", x=x)
    again = vk.open(tmp_path / "run", data=tmp_path / "x.npz")
    np.testing.assert_array_equal(again.score("test", samples=4), expected)


def test_other_arrays_are_refused(tmp_path):
    x = blobs(60).astype(np.float32)
    vk.fit(x, "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(DataError, match="the array holds other data"):
        vk.open(tmp_path / "run", data=x + 1)
    with pytest.raises(DataError, match="shape"):
        vk.open(tmp_path / "run", data=x[:, :2])


def test_training_is_extended_with_the_same_arrays_in_the_same_splits(tmp_path):
    x = blobs(60).astype(np.float32)
    vk.fit(vk.from_arrays(x, valid=0.3, split_seed=5), "vae", out=tmp_path / "run", **TINY)
    with pytest.raises(RunError, match=r"arrays in memory.* as in vk.fit\(x, out='.*run', extend=True\)"):
        vk.fit(out=tmp_path / "run", extend=True, steps=4)
    assert vk.fit(x, out=tmp_path / "run", extend=True, steps=4, progress=False).config["step"] == 4


def test_a_composition_is_passed_again_too(tmp_path):
    data = vk.from_arrays(blobs(60))
    composition = vk.get_recipe("vae")(vk.DataSpec.of(data), latent=2, hidden=(8,))
    options = {"batch": 16, **QUIET}
    vk.fit(data, composition, out=tmp_path / "run", steps=2, **options)
    for way in ({"resume": True}, {"extend": True, "steps": 3}):
        with pytest.raises(RunError, match="composition built by hand") as error:
            vk.fit(data, out=tmp_path / "run", **way)
        (code,) = re.findall(r"vk\.fit\((.*?)\)", str(error.value))
        assert code.endswith(f"{next(iter(way))}=True")
        more = {name: value for name, value in way.items() if name == "steps"} | {"progress": False}
        names = {"vk": vk, "data": data, "composition": composition, "more": more}
        made = eval(f"vk.fit({code}, **more)", names)
        assert made.config["step"] == way.get("steps", 2)


def test_errors_about_labels_say_how_to_give_them_to_arrays(tmp_path):
    x, y = blobs(60).astype(np.float32), np.arange(60) % 2
    fits = {
        "label": lambda data, **own: vk.fit(data, "vae", out=tmp_path / "a", **own, **TINY),
        "conditional": lambda data, **own: vk.fit(data, "conditional", out=tmp_path / "b", **TINY),
        "semi": lambda data, **own: vk.fit(data, "semi-supervised", out=tmp_path / "c", **TINY),
    }
    for fit in fits.values():
        with pytest.raises(ChoiceError, match="from_arrays") as error:
            fit(x, label=y)
        (code,) = re.findall(r"vk\.from_arrays\(.*?\)", str(error.value))
        assert fit(eval(code.replace("...", "y"), {"vk": vk, "x": x, "y": y})).state == "finished"
    opened = vk.open(tmp_path / "b", data=x)  # without their labels
    with pytest.raises(ChoiceError, match="these data have no labels") as error:
        opened.encode("test")
    (code,) = re.findall(r"vk\.from_arrays\(.*?\)", str(error.value))
    assert len(vk.open(tmp_path / "b", data=eval(code, {"vk": vk, "x": x, "y": y})).encode("test")) == 6


def test_the_command_line_is_told_nothing_of_python(tmp_path, capsys):
    vk.fit(blobs(60).astype(np.float32), "vae", out=tmp_path / "run", **TINY)
    assert main(["score", str(tmp_path / "run"), "--samples", "2"]) == 2
    said = capsys.readouterr().err
    assert "save them as a .npy or .npz file and pass --data PATH" in said
    assert "vk." not in said


def test_a_study_takes_arrays(tmp_path, monkeypatch):
    taken = []

    def check(data, name):
        taken.append(data)
        raise DataError("so far")

    monkeypatch.setattr("vaekit.studies.check_sizes", check)
    with pytest.raises(DataError, match="so far"):
        vk.study("collapse", blobs(60), out=tmp_path / "page.html")
    assert (taken[0].name, taken[0].shape) == ("arrays", (1, 6, 5))
