"""Adapt observation, head and encoder to the data: missing values, mixed columns, constant elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from vaekit.data.observation import Counts, MixedTable, Observation, Standardised
from vaekit.heads import Head
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.heads.censored import CensoredHead
from vaekit.heads.mixed import Masked, factor_density
from vaekit.networks.tables import MOST_ONE_HOT, Log1p, OneHot, WithMask

from .composition import DataSpec


def is_mixed(spec: DataSpec) -> bool:
    """Whether the data are a table with columns that are not real, which needs `MixedTable` and `MixedHead`."""
    return spec.kind == "vector" and any(column.kind != "real" for column in spec.columns)


def most_one_hot(spec: DataSpec) -> int | None:
    """The number of categories above which those of a column are embedded; None for runs of earlier rules."""
    return MOST_ONE_HOT if spec.rules > 2 else None


class Adapted(NamedTuple):
    """The result of `adapt_inputs`.

    Attributes:
        observation, head: adapted to the data.
        event: shape of the input of the encoder's network.
        wrap: turns a network for inputs of shape `event` (and a condition, if any) into an encoder of x.
    """

    observation: Observation
    head: Head
    event: tuple[int, ...]
    wrap: Callable[[nn.Module], nn.Module]


def hold(spec: DataSpec, observation: Observation, head: Head) -> Head:
    """A `Masked` head that fixes the elements that are constant in the training data.

    The head is returned unchanged if there are no such elements, if the observation does not need them fixed, or if
    the head does not factorise over the elements.
    """
    if spec.constant and isinstance(head, AutoregressiveHead):
        head.hold(observation.hold(spec.constant))
        return head
    if not spec.constant or factor_density(head) is None:
        return head
    held = observation.hold(spec.constant)
    return Masked(head, held) if held else head


def adapt_inputs(spec: DataSpec, observation: Observation, head: Head) -> Adapted:
    """Adapt an observation, a head and the encoder's input to the data.

        observation, head, event, wrap = adapt_inputs(spec, Standardised(spec.shape), Gaussian(spec.shape))
        posterior = Conditional(wrap(networks.MLP(event, 2 * latent)), Gaussian((latent,)))

    The encoder gets counts as log(1 + x) and categories one-hot, or embedded if there are many. With missing values,
    the observation learns how often each element is observed, the head becomes `Masked`, and the encoder gets zeros in
    their place (the means of standardised data) and the mask. Elements that are constant in the training data are
    fixed; see `hold`. Values that stand for an interval of x get its probability; see `CensoredHead`. If none of this
    applies, the arguments are returned unchanged, `event` is the data's shape and `wrap` is the identity.

    Raises:
        ChoiceError: the data have missing values and the head does not factorise.
    """
    event, which = tuple(spec.shape), None
    layers: list[Callable[[nn.Module], nn.Module]] = []
    if isinstance(observation, MixedTable):
        columns, most = observation.columns, most_one_hot(spec)
        layers.append(lambda net: OneHot(net, columns, most))
        plan = OneHot(nn.Identity(), columns, most)
        event, which = (plan.width,), plan.firsts
    elif isinstance(observation, Counts):
        layers.append(Log1p)
    if (
        isinstance(observation, Standardised)
        and observation.quantiles is not None
        and not isinstance(head, AutoregressiveHead)
    ):
        head = CensoredHead(head)
    head = hold(spec, observation, head)
    if spec.missing:
        observation = observation.masked(tuple(spec.shape))
        head = head if isinstance(head, Masked | AutoregressiveHead) else Masked(head)
        dims, shown = len(event), which
        layers.append(lambda net: WithMask(net, dims, shown))
        event = (event[0] + (event[0] if which is None else len(which)), *event[1:])

    def wrap(net: nn.Module) -> nn.Module:
        for layer in reversed(layers):
            net = layer(net)
        return net

    return Adapted(observation, head, event, wrap)
