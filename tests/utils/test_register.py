"""Registers: entries by name in order, one definition per name, and choices that a knob takes from a mapping."""

from typing import Annotated

import pytest

from vaekit.errors import ChoiceError
from vaekit.utils.arguments import Knob, in_range, knobs
from vaekit.utils.register import Chosen, Named, Register


def test_a_register_is_a_mapping_in_the_order_of_registration():
    numbers = Named[int]("number")
    assert numbers.put("two", 2, "here.two") == 2
    numbers.put("one", 1, "here.one")
    assert dict(numbers) == {"two": 2, "one": 1}
    assert (len(numbers), "one" in numbers, "three" in numbers) == (2, True, False)
    assert (numbers.get("two"), numbers.get("three"), numbers.get("three", 3)) == (2, None, 3)
    with pytest.raises(ChoiceError, match="unknown number 'tow': did you mean 'two'"):
        numbers["tow"]


def test_a_definition_that_is_run_again_replaces_the_last_and_another_is_refused():
    numbers = Named[int]("number")
    numbers.put("one", 1, "here.one")
    numbers.put("one", 11, "here.one")
    assert numbers["one"] == 11
    with pytest.raises(ChoiceError, match=r"there is a number 'one' already, here\.one: choose another name"):
        numbers.put("one", 1, "elsewhere.one")
    assert numbers["one"] == 11


def test_a_part_is_built_from_the_context_and_its_knobs():
    register = Register("shape", {"n": "a number"})

    @register.add("square", "Euclid")
    def square(n, side: Annotated[float, Knob("length", above=0)] = 2.0):
        return n * side**2

    assert {name: argument.default for name, argument in register["square"].knobs.items()} == {"side": 2.0}
    assert Chosen(register["square"], {}).make(n=3, unused=1) == 12
    assert Chosen(register["square"], {"side": 1.0}).make(n=3) == 3
    with pytest.raises(ChoiceError, match="`side` must be above 0, got -1"):
        square(1, side=-1.0)
    with pytest.raises(ChoiceError, match="`n` is a number; rename the knob"):
        register.add("other", "")(takes_n)


def takes_n(n: Annotated[int, Knob("of a knob")] = 1):
    """Its knob has the name of the context."""


def test_a_knob_takes_its_choices_from_a_mapping():
    rules = {"half": 0.5, "double": 2.0}

    @in_range
    def scale(x, rule: Annotated[str, Knob("of the scale", among=rules)] = "half"):
        return rules[rule] * x

    argument, _ = knobs(scale)["rule"]
    assert (argument.type, argument.choices, argument.default) == ("choice", ["half", "double"], "half")
    assert scale(3, rule="double") == 6
    with pytest.raises(ChoiceError, match="unknown `rule` 'doubel': did you mean 'double'"):
        scale(3, rule="doubel")
