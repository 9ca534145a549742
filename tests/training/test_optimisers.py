"""Update rules against torch.optim, float64."""

import pytest
import torch

from vaekit.errors import ChoiceError
from vaekit.training.optimisers import OPTIMISERS, optimiser

THEIRS = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
}


@pytest.mark.parametrize("decay", [0.0, 0.03])
@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_fifty_steps_equal_torch(name, decay):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(7, 3, generator=g, dtype=torch.float64)
    target = torch.randn(7, 3, generator=g, dtype=torch.float64)
    reference = torch.nn.Parameter(start.clone())
    theirs = THEIRS[name]([reference], lr=0.1, weight_decay=decay)
    ours, rule = start.clone(), optimiser(name.upper(), decay)
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


def test_an_unknown_optimiser_is_refused_with_the_list():
    with pytest.raises(ChoiceError, match="adagrad"):
        optimiser("adma")
