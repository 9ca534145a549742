"""Defaults: each is declared once, and run.json stores those that a run used."""

import inspect
import json

import numpy as np
import pytest
from core_helpers import QUIET

import vaekit as vk
from vaekit.recipes import RECIPES, DataSpec, get_recipe
from vaekit.runs.stored import rebuild

FACTS = DataSpec("vector", (6,), 50, (0.0, 1.0), False, classes=("a", "b", "c"))
REGISTERS = {
    pick.register.kind: pick.register for recipe in RECIPES.values() for pick in recipe.signature.picks.values()
}

# --- defaults that a run used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "choices", "used"),
    [
        ("vae", {}, {"beta": 1.0, "samples": 1, "transforms": None, "blocks": 0}),
        ("vae", {"objective": "tc"}, {"beta": 6.0}),
        ("tc", {}, {"beta": 6.0, "alpha": 1.0}),
        ("beta", {}, {"beta": 4.0}),
        ("iwae", {}, {"samples": 20}),  # the recipe's own, not the objective's 50
        ("vae", {"objective": "info"}, {"alpha": 0.0, "weight": 100.0}),
        ("vae", {"prior": "flow"}, {"transforms": 4}),
        ("vae", {"posterior": "iaf"}, {"transforms": 2}),
        ("vae", {"posterior": "iaf", "prior": "flow"}, {"transforms": None}),  # two values; each part keeps its own
    ],
)
def test_the_default_of_a_knob_is_that_of_the_part_that_is_chosen(recipe, choices, used):
    defaults = get_recipe(recipe).defaults_for(FACTS, choices)
    assert {name: defaults[name] for name in used} == used


def test_a_run_is_rebuilt_with_the_defaults_that_it_stores(tmp_path):
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    vk.fit(data, "vae", out=tmp_path / "run", objective="tc", latent=2, hidden=(4,), steps=1, batch=20, **QUIET)
    config = json.loads((tmp_path / "run" / "run.json").read_text())
    assert config["defaults"]["beta"] == 6.0
    for stored, beta in ((3.0, 3.0), (None, 6.0)):  # of a version with another default; as versions before stored it
        config["defaults"]["beta"] = stored
        assert rebuild(config).objective.beta.value == beta
    again = vk.fit(data, "vae", out=tmp_path / "run", resume=True, objective="tc", beta=6.0, **QUIET)
    assert again.state == "finished"  # what it was trained with may be named


# --- one declaration ----------------------------------------------------------------------------------------------

DIFFER = {
    "alpha": "a weight of another term in each objective",
    "beta": "tc weights the total correlation by it, 6 in the paper; elbo the KL",
    "gamma": "a weight of another term in each objective",
    "groups": "piwae is defined by several groups, iwae by one",
    "samples": "importance-weighted bounds need many",
    "transforms": "a prior's flow is applied once per example, a posterior's for each draw",
    "weight": "of another divergence",
    "width": "a transformer's layers run once per code, dense layers once per datum",
}
"""Knobs whose default depends on the part, and why."""

CALLED_OTHERWISE = {
    ("MLP", "hidden"): "of a network that is built by hand; recipes pass the widths that they declare",
    ("GridEncoder", "blocks"): "of each level; those of discrete codes are on the last grid only",
    ("GridDecoder", "blocks"): "of each level; those of discrete codes are on the last grid only",
}
"""(what is called, its parameter) whose default is not that of the part or recipe that calls it, and why."""


def defaults_of(function):
    """Defaults by parameter."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def called(function):
    """The classes and functions of vaekit that the code of a function, or of a constructor, names."""
    plain = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    if not inspect.isfunction(plain):
        return []
    found = [plain.__globals__[name] for name in plain.__code__.co_names if name in plain.__globals__]
    modules = [one for one in found if inspect.ismodule(one)]
    found += [getattr(one, name) for one in modules for name in plain.__code__.co_names if name in vars(one)]
    found += function.__mro__[1:] if inspect.isclass(function) else ()
    ours = [one for one in found if getattr(one, "__module__", "").startswith("vaekit.")]
    classes = [one for one in ours if inspect.isclass(one) and not issubclass(one, Exception)]
    return classes + [one for one in ours if inspect.isfunction(one)]


def alike(one, other):
    """Whether two defaults are values of one type; else two parameters of one name mean different things."""
    number = (int, float)
    return type(one) is type(other) or (isinstance(one, number) and isinstance(other, number))


def test_a_knob_of_several_parts_has_one_default():
    assert len(REGISTERS) >= 8
    found = {}
    for register in REGISTERS.values():
        for part in register.values():
            for name, argument in part.knobs.items():
                found.setdefault(name, set()).add(repr(argument.default))
    assert {name for name, values in found.items() if len(values) > 1} == set(DIFFER)


def test_what_a_part_or_recipe_calls_declares_no_other_default():
    """Two levels deep: what builds it, and what that calls in turn."""
    wrong, compared = {}, 0
    builders = [part.build for register in REGISTERS.values() for part in register.values()]
    for builder in [*builders, *(recipe.function for recipe in RECIPES.values())]:
        own = {name: value for name, value in defaults_of(builder).items() if value is not None}
        reached = [deeper for one in called(builder) for deeper in (one, *called(one))]
        for callee in reached:
            for name, value in defaults_of(callee).items():
                if name in own and alike(value, own[name]):
                    compared += 1
                    if value != own[name] and (callee.__qualname__, name) not in CALLED_OTHERWISE:
                        wrong[f"{builder.__qualname__} -> {callee.__qualname__}"] = (name, own[name], value)
    assert compared > 20
    assert wrong == {}
