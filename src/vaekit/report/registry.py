"""The register of figures: a function decorated with `@figure` adds a section to the report of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vaekit.utils.register import Named, origin_of

from .blocks import Block, Section, Text
from .look import Look


@dataclass(frozen=True)
class Need:
    """A condition on a run.

    Attributes:
        holds: whether the run meets it.
        because: the reason that the page gives if the run does not meet it.
    """

    holds: Callable[[Look], bool]
    because: str


DATA = Need(lambda look: look.data is not None, "the data are unavailable (see the top of the page)")
VECTOR = Need(lambda look: look.plain, "the code of this model is not a single vector per example")
DENSITY = Need(lambda look: look.has_density, "this model has no density p(x)")


@dataclass(frozen=True)
class Figure:
    """A section of the report with pictures.

    Attributes:
        name: the anchor of the section in the page.
        title: its heading.
        draw: returns the blocks of the section for a run; without blocks the section is omitted.
        needs: conditions; the page names the first one that is not met instead of showing the pictures.
    """

    name: str
    title: str
    draw: Callable[[Look], Sequence[Block]]
    needs: tuple[Need, ...] = ()

    def section(self, look: Look) -> Section | None:
        """The section for a run, or None if the figure does not apply to it."""
        for need in self.needs:
            if not need.holds(look):
                return Section(self.name, self.title, [Text(f"Not shown, because {need.because}.", "note")])
        blocks = list(self.draw(look))
        return Section(self.name, self.title, blocks) if blocks else None


FIGURES = Named[Figure]("figure")
"""The figures by name, in the order of the page."""

Draw = Callable[[Look], Sequence[Block]]


def figure(name: str, title: str, *, needs: Sequence[Need] = ()) -> Callable[[Draw], Draw]:
    """Register a function (look) -> blocks as the section `name` of reports, after the sections registered before.

    Arguments:
        name: lower case; the anchor of the section in the page.
        title: the heading of the section.
        needs: conditions such as `DATA` (the run's data are available), `VECTOR` (a code is one vector) and `DENSITY`
            (the model has p(x)).
    """

    def register(draw: Draw) -> Draw:
        FIGURES.put(name, Figure(name, title, draw, tuple(needs)), origin_of(draw))
        return draw

    return register
