"""Observation, head and encoder made fit for the data: missing values, mixed columns, elements with one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from vaekit.data.observation import Counts, MixedTable, Observation
from vaekit.heads import Head
from vaekit.heads.mixed import Masked, factor_density
from vaekit.networks.tables import Log1p, OneHot, WithMask

from .composition import DataSpec


def is_mixed(spec: DataSpec) -> bool:
    """Whether the data are a table that needs `MixedTable` and `MixedHead`: not all of its columns real or counts."""
    return spec.kind == "vector" and any(column.kind != "real" for column in spec.columns)


class Adapted(NamedTuple):
    """What `adapt_inputs` makes of an observation, a head and an encoder.

    `wrap` turns a network that takes events of shape `event` (and perhaps a condition after them) into the encoder.
    """

    observation: Observation
    head: Head
    event: tuple[int, ...]
    wrap: Callable[[nn.Module], nn.Module]


def hold(spec: DataSpec, observation: Observation, head: Head) -> Head:
    """`head` with the elements held that have one value in all training data, where the observation calls for that.

    A head that does not factorise over the elements comes back as it was, and takes them like any others.
    """
    if not spec.constant or factor_density(head) is None:
        return head
    held = observation.hold(spec.constant)
    return Masked(head, held) if held else head


def adapt_inputs(spec: DataSpec, observation: Observation, head: Head) -> Adapted:
    """An observation and a head fit for the data's missing values, and what the encoder is to see of x.

        seen, head, event, wrap = adapt_inputs(spec, Standardised(spec.shape), Gaussian(spec.shape))
        posterior = Conditional(wrap(networks.MLP(event, 2 * latent)), Gaussian((latent,)))

    Counts are shown to the encoder as log(1 + x), categories one-hot. With missing values the observation learns how
    often each element is there, the head becomes `Masked`, and the encoder sees zeros (the means of standardised data)
    and the mask. Elements that have one value in all training data are held at it. Where `spec` calls for none of this,
    everything comes back as it was: `event` is the data's shape, `wrap` gives its argument.

    Raises:
        ChoiceError: values are missing and the head does not factorise.
    """
    event, which = tuple(spec.shape), None
    layers: list[Callable[[nn.Module], nn.Module]] = []
    if isinstance(observation, MixedTable):
        columns = observation.columns
        layers.append(lambda net: OneHot(net, columns))
        plan = OneHot(nn.Identity(), columns)
        event, which = (plan.width,), plan.firsts
    elif isinstance(observation, Counts):
        layers.append(Log1p)
    head = hold(spec, observation, head)
    if spec.missing:
        observation, head = observation.masked(tuple(spec.shape)), head if isinstance(head, Masked) else Masked(head)
        dims, shown = len(event), which
        layers.append(lambda net: WithMask(net, dims, shown))
        event = (event[0] + (event[0] if which is None else len(which)), *event[1:])

    def wrap(net: nn.Module) -> nn.Module:
        for layer in reversed(layers):
            net = layer(net)
        return net

    return Adapted(observation, head, event, wrap)
