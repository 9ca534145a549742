"""Calls of earlier versions are accepted, with a warning that says what to write."""

import warnings

import pytest

from vaekit.utils.formerly import formerly


class Model:
    @formerly("samples", "n", what="data")
    def score(self, data="test", *, n=None, samples=100):
        return data, n, samples


def test_earlier_calls_give_the_same_and_say_what_to_write():
    for call, written in [
        (lambda m: m.score("valid", 5, 3), "samples=5, n=3"),
        (lambda m: m.score("valid", 5, n=3), "samples=5"),
        (lambda m: m.score(what="valid", n=3, samples=5), "data='valid'"),
    ]:
        with pytest.warns(DeprecationWarning, match=f"Model.score: give these arguments by name: {written}$") as seen:
            assert call(Model()) == ("valid", 3, 5)
        assert seen[0].filename == __file__


def test_values_that_are_not_a_word_are_not_written_out():
    with pytest.warns(DeprecationWarning, match=r"samples=\.\.\.$"):
        Model().score("valid", [1, 2])


def test_present_calls_do_not_warn_and_impossible_ones_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Model().score("valid", n=3) == ("valid", 3, 100)
        for wrong in (lambda: Model().score("valid", 5, 3, 1), lambda: Model().score(other=1)):
            with pytest.raises(TypeError):
                wrong()
    with pytest.warns(DeprecationWarning, match="by name"), pytest.raises(TypeError, match="multiple values"):
        Model().score("valid", 5, samples=3)
