"""What CONTRIBUTING says of new parts, carried out word for word in a package that is not vaekit's."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from core_helpers import QUIET
from plugin_helpers import install, remove

import vaekit as vk
from vaekit.cli import catalogue, main
from vaekit.errors import ChoiceError, RunError
from vaekit.heads import LIKELIHOODS
from vaekit.heads.posteriors import POSTERIORS
from vaekit.models.priors import PRIORS
from vaekit.objectives import OBJECTIVES
from vaekit.recipes import RECIPES, compose
from vaekit.utils.register import Register

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf8")
CHAPTER = TEXT.partition("## Add a prior, posterior, likelihood or objective")[2].partition("\n## ")[0]
SOURCE = "\n".join(re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL))
RECIPE = """
from vaekit.recipes import compose, setting
setting("squared", compose, "the paper, 2026", "A squared KL.", objective="squared-rate", strength=2.0)
"""
PARTS = {
    "objective": ("squared-rate", "strength", 3.0),
    "prior": ("wide", "spread", 3.0),
    "posterior": ("stretched", "stretch", 0.5),
    "likelihood": ("absolute", "tolerance", 0.25),
}
TINY = {"latent": 2, "hidden": (8,), "steps": 4, "batch": 20}


@contextlib.contextmanager
def kept():
    """The registers as they are, whatever is registered meanwhile."""
    held = [OBJECTIVES.entries, PRIORS.entries, POSTERIORS.entries, LIKELIHOODS.entries, RECIPES.entries]
    before = [dict(entries) for entries in held]
    yield
    for entries, old in zip(held, before, strict=True):
        entries.clear()
        entries.update(old)


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
    for kind, (name, knob, value) in PARTS.items():
        out = tmp_path / kind
        run = vk.fit(data, "vae", out=out, **{kind: name, knob: value}, **TINY, **QUIET)
        assert json.loads((out / "run.json").read_text())["plugins"] == {kind: "vaekit-mine"}
        again = vk.open(out)
        again.use_data(data)
        np.testing.assert_array_equal(again.encode("test"), run.encode("test"))
        assert np.isfinite(run.score("test", samples=2)).all()
        module = run.composition.objective if kind == "objective" else getattr(run.model, kind)
        assert value in [getattr(m, knob, None) for m in module.modules()] or float(module.scale[0]) == value
    with kept():
        remove(package)
        for register in (OBJECTIVES, PRIORS, POSTERIORS, LIKELIHOODS):
            register.entries.pop(PARTS[register.kind][0])
        for kind, (name, _, _) in PARTS.items():
            with pytest.raises(
                RunError, match=f"{kind} '{name}'.*vaekit-mine is not installed: `pip install vaekit-mine`"
            ):
                vk.open(tmp_path / kind)


def test_the_command_line_knows_what_a_plugin_registers(package, tmp_path):
    described = {a.name: a for a in catalogue.recipe("vae").arguments}
    for kind, (name, knob, _) in PARTS.items():
        assert name in described[kind].choices
        assert name in described[knob].when[kind]
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
        """A parameter that nobody gives."""

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
        with pytest.raises(ChoiceError, match=r"`strength` is float in .* of vaekit-mine and int in objective 'other'"):
            _ = compose.parameters
