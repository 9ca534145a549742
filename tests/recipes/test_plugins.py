"""The instructions of CONTRIBUTING for new parts, carried out in a package other than vaekit."""

import contextlib
import io
import json

import numpy as np
import pytest
from core_helpers import QUIET
from plugin_helpers import contributing, install, kept, remove

import vaekit as vk
from vaekit.cli import catalogue, main
from vaekit.errors import ChoiceError, RunError
from vaekit.recipes import compose
from vaekit.utils.register import Register

SOURCE = contributing("Add a prior, posterior, likelihood or objective")
RECIPE = """
from vaekit.recipes import compose, setting
setting("squared", compose, "the paper, 2026", "A squared KL.", objective="squared-rate", strength=2.0)
"""
PARTS = {
    "objective": ("squared-rate", {"strength": 3.0}),
    "prior": ("wide", {"spread": 3.0}),
    "posterior": ("stretched", {"stretch": 0.5}),
    "likelihood": ("absolute", {"tolerance": 0.25}),
    "network": ("affine", {}),
    "activation": ("snake", {}),
    "observation": ("percent", {}),
    "corruption": ("dim", {"least": 0.25}),
}
REGISTERS = {kind: pick.register for kind, pick in compose.signature.picks.items()}
TINY = {"latent": 2, "hidden": (8,), "steps": 4, "batch": 20}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package with the parts that CONTRIBUTING shows."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    with kept():
        install(folder, "vaekit-mine", "mine_parts", SOURCE + RECIPE)
        yield folder
        remove(folder)


def command(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_each_part_trains_is_stored_with_its_package_and_opens_where_that_is_installed(package, tmp_path):
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    for kind, (name, knobs) in PARTS.items():
        out = tmp_path / kind
        run = vk.fit(data, "vae", out=out, **{kind: name}, **knobs, **TINY, **QUIET)
        assert json.loads((out / "run.json").read_text())["plugins"] == {kind: "vaekit-mine"}
        again = vk.open(out)
        again.use_data(data)
        np.testing.assert_array_equal(again.encode("test"), run.encode("test"))
        assert np.isfinite(run.score("test", samples=2)).all()
        modules = [m for part in run.composition.modules.values() for m in part.modules()]
        for knob, value in knobs.items():
            assert value in [getattr(m, knob, None) for m in modules] or float(run.model.prior.scale[0]) == value
    with kept():
        remove(package)
        for kind, register in REGISTERS.items():
            register.entries.pop(PARTS[kind][0])
        for kind, (name, _) in PARTS.items():
            with pytest.raises(
                RunError, match=f"{kind} '{name}'.*vaekit-mine is not installed: `pip install vaekit-mine`"
            ):
                vk.open(tmp_path / kind)


def test_the_command_line_knows_what_a_plugin_registers(package, tmp_path):
    described = {a.name: a for a in catalogue.recipe("vae").arguments}
    for kind, (name, knobs) in PARTS.items():
        assert name in described[kind].choices
        assert all(name in described[knob].when[kind] for knob in knobs)
    assert described["strength"].range == "0 or more"
    shown = command("fit", "--objective", "squared-rate", "--help")[1]
    assert "--strength" in shown
    assert "weight of the squared KL" in shown
    assert "--strength" not in command("fit", "--objective", "elbo", "--help")[1]
    assert "squared" in command("recipes")[1]
    out = tmp_path / "run"
    mine = ("fit", "digits", "--objective", "squared-rate", "--strength")
    code, _, err = command(*mine, 3, "--latent", 2, "--hidden", 8, "--steps", 3, "--compile", "off", "--out", out)
    assert code == 0, err
    assert vk.open(out).composition.objective.strength == 3
    code, _, err = command(*mine, -1, "--out", tmp_path / "no")
    assert (code, "--strength must be 0 or more, got -1" in err) == (2, True), err


def test_a_recipe_of_a_plugin_is_a_setting_like_any_other(package):
    spec = vk.DataSpec("vector", (5,), 60, (0.0, 1.0), False)
    assert vk.get_recipe("squared")(spec, **{"latent": 2}).objective.strength == 2.0
    assert vk.get_recipe("squared").package == "vaekit-mine"


def test_what_a_part_declares_wrongly_is_refused_when_it_is_registered():
    register = Register("prior", {"event": "shape of the latents"})

    def unknown(event, colour):
        """A parameter without a default that no caller passes."""

    with pytest.raises(ChoiceError, match=r"`colour` has no default.*Knob.*event"):
        register.add("a", "")(unknown)

    def one(event):
        """Takes the name."""

    def other(event):
        """Comes too late."""

    register.add("b", "")(one)
    with pytest.raises(ChoiceError, match=r"there is a prior 'b' already, .*one: choose another name"):
        register.add("b", "")(other)
    register.add("b", "2nd")(one)  # a cell that is run again
    assert register["b"].paper == "2nd"


def test_parts_that_disagree_on_an_option_are_named(package):
    with kept():
        source = SOURCE.partition("import torch\n")[0]
        scope = {"__name__": "mine_parts"}
        exec(source.replace("squared-rate", "other").replace("float, Knob", "int, Knob"), scope)
        with pytest.raises(ChoiceError, match=r"`strength` is int in objective 'other' .* and float in"):
            _ = compose.parameters
