"""What a sweep chooses: ranges and values by the types of the options, and refusals that say what to write."""

import pytest

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.recipes import get_recipe
from vaekit.tuning.space import DIGITS, check, space, training_arguments


class Fixed:
    """Stands for a trial of Optuna: suggests the low end, and records what it is asked."""

    def __init__(self):
        self.asked = {}

    def suggest_int(self, name, low, high, *, step, log):
        self.asked[name] = (low, high, step, log)
        return low

    def suggest_float(self, name, low, high, *, step, log):
        self.asked[name] = (low, high, step, log)
        return (low + high) / 3

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return choices[-1]


def settings(over, recipe="vae", **fixed):
    trial = Fixed()
    return space(over, recipe, fixed, {}).choose(lambda one: one.suggested(trial)), trial.asked


def test_options_have_their_own_types():
    found, asked = settings("latent=2..64:log, lr=1e-4..1e-2:log,beta=0..10,batch=16..64:16,activation=SiLU|relu")
    assert found == {"latent": 2, "lr": 0.003367, "beta": 3.333, "batch": 16, "activation": "relu"}
    assert type(found["latent"]) is int
    assert asked["latent"] == (2, 64, 1, True)
    assert asked["batch"] == (16, 64, 16, False)
    assert asked["lr"] == (1e-4, 1e-2, None, True)
    assert asked["activation"] == ["silu", "relu"]
    assert len(f"{found['beta']:g}".replace(".", "")) == DIGITS


def test_values_of_any_type_are_written_in_text_or_in_python():
    found, asked = settings("hidden=64|100,100,direct=true|false", network="conv")
    assert found == {"hidden": (100, 100), "direct": False}
    assert asked["hidden"] == ["64", "100,100"]
    again, _ = settings({"hidden": [(64,), (100, 100)], "direct": [True, False]}, network="conv")
    assert again == found
    assert settings(["latent=2..8", "beta=1|4"])[0] == {"latent": 2, "beta": 4.0}


def test_the_text_of_a_value_is_the_value():
    """Other processes and later calls of a sweep read its options from their text."""
    values = [0.12345678, 0.12345679, 5.0, 1e-6]
    made = space({"beta": values}, "vae", {}, {})
    assert made.text == {"beta": "0.12345678|0.12345679|5|1e-06"}
    (again,) = space(made.text, "vae", {}, {}).dimensions
    assert list(again.values.values()) == values


def test_an_option_is_chosen_only_where_it_applies():
    found = space("components=2..10,prior=normal|vamp", "vae", {}, {})
    assert [one.name for one in found.dimensions] == ["prior", "components"]
    assert found.conditional
    assert list(found.corners()) == [
        {"prior": "normal"},
        {"prior": "vamp", "components": 2},
        {"prior": "vamp", "components": 10},
    ]
    assert found.split({"prior": "normal"}) == ({"prior": "normal"}, {})
    assert space("latent=2..4,lr=1e-3..1e-2", "vae", {}, {}).split({"latent": 2, "lr": 0.01})[1] == {"lr": 0.01}


def test_every_option_of_a_recipe_and_of_training_is_known():
    assert {"lr", "batch", "optimiser", "weight_decay"} <= set(training_arguments())
    for argument in get_recipe("vae").arguments:
        assert argument.type.removesuffix(" | None") in (
            "int", "float", "bool", "str", "choice", "tuple[int, ...]", "tuple[float, ...]",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("latnet=2..4", "did you mean 'latent'"),
        ("learning_rate=1e-4..1e-2", "did you mean 'lr'"),
        ("latent=2.5..4", "not a whole number"),
        ("latent=64..4", "write latent=4..64"),
        ("latent=2..8:0", "step must be above 0"),
        ("beta=0..1:log", "no logarithm"),
        ("hidden=64..512", r"hidden=256\|300,300"),
        ("activation=sillu|relu", "did you mean 'silu'"),
        ("optimiser=adam|sgdd", "did you mean 'sgd'"),
        ("direct=yes|no", "neither true nor false"),
        ("latent=4", "for a single value give `latent=4`"),
        ("latent", "NAME=LOW..HIGH"),
        ("", "at least one option"),
        ("latent=2..4,latent=5..8", "give it once"),
        ("lr=2..x", "not a number"),
        ("lr=0..1", "`lr` must be above 0"),
        ("seed=0..4", "`confirm`"),
        ("epochs=1..4", "the same length"),
        ("device=cpu|cuda", "does not change what is learned"),
        ("components=2..10", "`prior='mixture'`"),
    ],
)
def test_mistakes_are_refused_with_what_to_write(over, message):
    with pytest.raises(ChoiceError, match=message):
        space(over, "vae", {}, {})


def test_what_is_fixed_cannot_be_chosen():
    with pytest.raises(ChoiceError, match="give it once"):
        space("latent=2..4", "vae", {"latent": 3}, {})
    with pytest.raises(ChoiceError, match="give it once"):
        space("lr=1e-4..1e-2", "vae", {}, {"lr": 1e-3})


@pytest.mark.parametrize(
    ("over", "recipe", "message"),
    [
        ("latent=0..4", "vae", "`latent` must be 1 or more, got 0"),
        ("beta=-1..1", "vae", "`beta` must be 0 or more"),
        ("optimiser=adam|sgd,beta2=0.9..0.99", "vae", "`beta2` is an option of adam"),
        ("latent=2..8", "ae", "no log p"),
        ("likelihood=bernoulli|gaussian", "vae", "x differs: binary data with likelihood bernoulli"),
    ],
)
def test_ends_and_combinations_are_tried_before_anything_is_trained(over, recipe, message):
    with pytest.raises(ChoiceError, match=message):
        check(space(over, recipe, {}, {}), vk.load("digits"), {}, ["elbo"])
