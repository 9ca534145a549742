"""Replaying recorded steps: what a CPU can check of it, with a recorder that calls the function again."""

import warnings

import pytest
import torch

from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.objectives import ELBO
from vaekit.recipes import Composition, gaussian_vae
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings
from vaekit.utils.cuda import WARM_UP, CudaGraph, Replayed, sent


class Again(CudaGraph):
    """Replays by calling the recorded function with the arguments of the recording."""

    def __init__(self):
        self.warmed = self.recorded = 0

    def warm(self, run):
        self.warmed += 1
        return run()

    def record(self, run):
        self.recorded += 1
        return run


class Refuses(Again):
    def record(self, run):
        raise RuntimeError("a number was read\nmore")


def adds_up():
    total = torch.zeros(2)

    def function(x, more, missing):
        assert missing is None
        total.add_(x * more["scale"])
        return total.clone()

    return function


@pytest.mark.parametrize("kind", [Again, Refuses])
def test_a_replayed_function_sees_the_arguments_of_each_call_and_changes_what_it_would(kind):
    graph, plain = kind(), adds_up()
    replayed = Replayed(adds_up(), graph)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(WARM_UP + 4):
            arguments = (torch.tensor([i, 1.0]), {"scale": torch.tensor(i + 2)}, None)
            assert torch.equal(replayed(*arguments), plain(*arguments))
    assert graph.warmed == WARM_UP
    assert [str(w.message) for w in caught] == (
        ["the training step cannot be recorded as a CUDA graph and takes longer: a number was read"]
        if kind is Refuses
        else []
    )
    assert graph.recorded == (kind is Again)


def test_a_replayed_training_step_ends_with_the_weights_of_an_eager_one():
    def trained(replayed):
        torch.manual_seed(0)
        head = heads.Gaussian((3,), "shared")
        model = gaussian_vae(networks.MLP((3,), 4, (5,)), networks.MLP((2,), head.features, (5,)), 2, head)
        settings = Settings(optimiser=lambda: optimiser("adam"), lr=0.1, clip=1.0, ema=0.9)
        engine = Engine(Composition(model, ELBO(), Identity()), settings)
        if replayed:
            engine._run = Replayed(engine._whole, Again())
        data = torch.randn(WARM_UP + 4, 8, 3)
        values = [engine.step(x, step, 1 / (1 + step)) for step, x in enumerate(data)]
        return [*values, *engine.tensors().values()]

    for a, b in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_failure_in_the_first_call_is_one_of_the_function():
    def function(x):
        raise ValueError("no")

    replayed = Replayed(function, Again())
    with pytest.raises(ValueError, match="no"):
        replayed(torch.zeros(1))
    assert replayed.left == WARM_UP


def test_values_of_the_host_arrive():
    values = torch.arange(3)
    assert torch.equal(sent(values, torch.device("cpu")), values)
