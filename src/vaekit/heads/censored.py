"""The likelihood of columns that were mapped by their quantiles, some of whose values stand for an interval of x."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.data.observation import Observation, Standardised
from vaekit.data.observation.quantiles import PADDING, SIZE
from vaekit.densities import Censored, OptimalNormal
from vaekit.densities.mixed import Mixed
from vaekit.errors import ChoiceError

from .base import Head


class CensoredHead(Head):
    """`head`, with the probability of its interval for each x that stands for one; see `Censored`.

    Arguments:
        head: a head whose density of real elements is Gaussian.

    Raises:
        ChoiceError: it is not.
    """

    edges: Tensor
    run: Tensor

    def __init__(self, head: Head):
        super().__init__(head.event)
        self.head, self.support, self.discrete, self.params = head, head.support, head.discrete, head.params
        self.register_buffer("edges", torch.full((head.event[0], SIZE), PADDING))
        self.register_buffer("run", torch.ones((head.event[0], SIZE + 1)))  # 0 within an atom, as in `Quantiles`
        training = head.training
        with torch.no_grad():
            self._censored(head.eval()(torch.zeros(1, head.features)))
        head.train(training)

    @property
    def features(self) -> int:
        return self.head.features

    def bias_of(self, x: Tensor) -> Tensor | None:
        return self.head.bias_of(x)

    def start_numbers(self, x: Tensor) -> None:
        self.head.start_numbers(x)

    def observe(self, observation: Observation) -> None:
        assert isinstance(observation, Standardised)
        assert observation.quantiles is not None
        self.edges.copy_(observation.quantiles.x)
        self.run.copy_(observation.quantiles.run)

    def forward(self, raw: Tensor) -> Distribution:
        return self._censored(self.head(raw))

    def _censored(self, whole: Distribution) -> Distribution:
        atom = self.run == 0
        if isinstance(whole, Mixed):
            parts = [
                (
                    which,
                    Censored(d, *(t.index_select(0, which) for t in (self.edges, atom)))
                    if isinstance(d, Normal)
                    else d,
                )
                for which, d in whole.parts
            ]
            return Mixed(parts, whole.order, whole.support)
        base = whole.base_dist if isinstance(whole, Independent) else whole
        if not isinstance(base, Normal | OptimalNormal):
            raise ChoiceError(
                "the 'quantile' observation needs a Gaussian density of numbers: write `observation='standardised'`, "
                "or `likelihood='gaussian'`"
            )
        return self.independent(Censored(base, self.edges, atom))
