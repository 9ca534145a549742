"""The register of likelihoods."""

from __future__ import annotations

from collections.abc import Callable

from vaekit.utils.register import Builder, Register

LIKELIHOODS = Register(
    "likelihood",
    {
        "event": "shape of x",
        "levels": "number of whole values of x, 0 to levels - 1",
        "columns": "kind and categories of each column of a table",
        "most": "number of categories above which the logits of a column have a low rank; None for no limit",
        "scaled": "whether a head over counts scales its log means by the data",
        "highest": "the largest log mean of a head over counts",
    },
)
"""The likelihoods p(x|z) by name."""


def likelihood(
    name: str, paper: str, observation: str = "auto", tables: bool = False, heading: str = ""
) -> Callable[[Builder], Builder]:
    """Register a `Head` over x, or a function that returns one, as the likelihood `name`.

    Its parameters annotated with a `Knob` are its options. It is called with `event`, the shape of x, and with those
    of `levels`, `columns`, `most`, `scaled` and `highest` that it has as parameters.

    Arguments:
        name: its name on the command line.
        paper: the publication that introduced it.
        observation: how raw data become x unless users choose otherwise; `auto` decides from the data.
        tables: whether it is for tables whose columns differ in kind.
        heading: the heading of its options in the command line's help; by default that of all likelihoods.
    """
    return LIKELIHOODS.add(name, paper, observation=observation, tables=tables, heading=heading)
