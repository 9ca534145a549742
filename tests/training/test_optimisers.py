"""Update rules against torch.optim, float64."""

import itertools
from typing import get_args

import pytest
import torch
from core_helpers import QUIET

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.options import ADAMS, OptimiserName
from vaekit.training.optimisers import OPTIMISERS, optimiser, overshot
from vaekit.utils.progress import Silent

THEIRS = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
}


def test_every_optimiser_that_options_name_exists():
    """Options are checked without importing torch, so their names stand in their type."""
    assert tuple(OPTIMISERS) == get_args(OptimiserName)


@pytest.mark.parametrize(
    ("name", "decay", "options"),
    [*itertools.product(OPTIMISERS, [0.0, 0.03], [{}]), *itertools.product(ADAMS, [0.03], [{"beta2": 0.99}])],
)
def test_fifty_steps_equal_torch(name, decay, options):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(7, 3, generator=g, dtype=torch.float64)
    target = torch.randn(7, 3, generator=g, dtype=torch.float64)
    reference = torch.nn.Parameter(start.clone())
    betas = {"betas": (0.9, options["beta2"])} if options else {}
    theirs = THEIRS[name]([reference], lr=0.1, weight_decay=decay, **betas)
    ours, rule = start.clone(), optimiser(name.upper(), decay, **options)
    (state,) = rule.state([ours])
    assert len(state) == rule.slots
    for t in range(1, 51):
        lr = 0.05 * (1 + 0.9 * ((-1) ** t)) / t**0.5
        theirs.param_groups[0]["lr"] = lr
        reference.grad = 4 * (reference.detach() - target) ** 3
        reference.grad[0, 0] = 0  # an element whose gradient is always zero
        gradient = 4 * (ours - target) ** 3
        gradient[0, 0] = 0
        theirs.step()
        rule.update(ours, gradient, state, torch.tensor(rule.coefficients(lr, t), dtype=torch.float64))
        torch.testing.assert_close(ours, reference.detach(), rtol=1e-10, atol=1e-12)
    assert float((ours - start).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_update_in_one_pass_is_that_of_a_compiled_step(name):
    """To rounding errors, over 30 steps and on a tensor that does not fill the processor's vectors."""
    g = torch.Generator().manual_seed(0)
    rule = optimiser(name, 0.03)
    one = torch.randn(37, generator=g)
    many = one.clone()
    (of_one,), (of_many,) = rule.state([one]), rule.state([many])
    for t in range(1, 31):
        gradient, c = torch.randn(37, generator=g), torch.tensor(rule.coefficients(0.01, t))
        rule.update(one, gradient, of_one, c)
        rule.arithmetic(many, gradient, of_many, c)
        torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_gradients_and_parameters_may_have_any_strides(name):
    g = torch.Generator().manual_seed(0)
    rule, start = optimiser(name, 0.03), torch.randn(5, 7, generator=g)
    for gradient in (torch.randn(7, 5, generator=g).T, torch.tensor(2.0).expand(5, 7)):
        for p in (start.clone(), start.T.clone().T):
            one, many = p, start.clone()
            (of_one,), (of_many,) = rule.state([one]), rule.state([many])
            for t in (1, 2):
                c = torch.tensor(rule.coefficients(0.01, t))
                rule.update(one, gradient, of_one, c)
                rule.arithmetic(many, gradient, of_many, c)
            torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_an_unknown_optimiser_is_refused_with_the_list():
    with pytest.raises(ChoiceError, match="adagrad"):
        optimiser("adma")


# --- first steps that go too far --------------------------------------------------------------------------------


def steps(elbo, loss=None, n=50):
    """Values of n steps whose ELBO (and loss) goes from the first number straight to the second."""
    loss = (-elbo[0], -elbo[1]) if loss is None else loss
    return torch.stack([torch.linspace(*loss, n), torch.linspace(*elbo, n)], 1).double()


def test_first_steps_that_went_too_far_are_told():
    names = ("loss/model", "elbo")
    said = overshot(names, torch.cat([steps((-100.0, -100.0), n=1), steps((-700.0, -700.0), n=39)]), 0.02)
    assert "`lr=0.02` overshot: after 40 steps the training ELBO is 600 nats below" in said
    assert "`lr=0.002`" in said
    assert overshot(names, steps((-100.0, -40.0)), 0.02) is None
    assert overshot(names, steps((-100.0, -150.0)), 0.02) is None  # less than as far again
    back = torch.cat([steps((-100.0, -9000.0), n=25), steps((-9000.0, -90.0), n=15), steps((-90.0, -90.0), n=10)])
    assert overshot(names, back, 0.02) is None  # it has come back
    assert overshot(names, steps((-3.0, -9.0), loss=(3.0, 1.0)), 0.02) is None  # as a small weight of the KL allows
    assert overshot(names, steps((-100.0, -700.0), n=19), 0.02) is None  # too few to tell
    assert overshot(("distortion",), steps((-100.0, -700.0))[:, :1], 0.02) is None


def test_the_papers_rate_is_told_where_it_goes_too_far(tmp_path):
    """Adagrad's first step moves every weight by 0.02: on 64 columns with a Gaussian the KL of all latents explodes."""
    heard: list[str] = []

    class Heard(Silent):
        def note(self, text):
            heard.append(text)

    settings = {"steps": 30, "likelihood": "gaussian", **QUIET, "progress": Heard()}
    far = vk.fit(vk.load("digits"), "kingma2013", out=tmp_path / "far", **settings)
    (said,) = [text for text in heard if "overshot" in text]
    assert said.startswith("note: the first steps at `lr=0.02` overshot: after 30 steps")
    assert "`lr=0.002`" in said
    heard.clear()
    near = vk.fit(vk.load("digits"), "kingma2013", out=tmp_path / "near", lr=0.002, **settings)
    assert not any("overshot" in text for text in heard)
    assert near.config["valid"]["elbo"] - far.config["valid"]["elbo"] > 200
