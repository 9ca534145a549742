"""Plots that compare: one colour a name, units on the axes, readable logarithms."""

import numpy as np
import pytest

from vaekit.errors import ChoiceError
from vaekit.figures import Line, bars, curves, figure_png, maps, matrices, scatter, style, theme


@pytest.mark.parametrize("which", ["light", "dark"])
def test_a_name_has_one_colour_in_all_panels_and_a_partner_shares_it(which):
    x = np.arange(1, 6)
    with theme(which):
        figure = curves(
            {
                "one": {"a": Line(x, x), "b": Line(x, 2 * x, x, 3 * x)},
                "two": {"b": Line(x, x), "c": Line(x, x, dashed=True, like="b")},
            },
            "steps",
            ["nats", "pixels"],
        )
        figure_png(figure)
    first, second = figure.axes[:2]
    colours = {
        (a.get_title(loc="left"), line.get_label()): line.get_color() for a in (first, second) for line in a.lines
    }
    assert colours["one", "b"] == colours["two", "b"] == colours["two", "c"] != colours["one", "a"]
    assert second.lines[1].get_linestyle() == "--"
    assert (first.get_xlabel(), first.get_ylabel(), second.get_ylabel()) == ("steps", "nats", "pixels")
    assert len(first.collections) == 1  # the band
    assert sorted(text.get_text() for text in figure.legends[0].texts) == ["a", "b", "c"]


@pytest.mark.parametrize(("low", "high"), [(2000, 9000), (1000, 40_000), (1, 1e7)])
def test_logarithmic_axes_have_few_plain_labels(low, high):
    x = np.geomspace(low, high, 9)
    figure = curves({str(i): {"a": Line(x, x)} for i in range(5)}, "samples", "bound", log_x=True, log_y=True)
    figure_png(figure)
    for axes in figure.axes:
        shown = [
            label.get_text()
            for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if axes.get_xlim()[0] <= place <= axes.get_xlim()[1]
        ]
        assert 1 <= len(shown) <= 5
        assert len(set(shown)) == len(shown)
        for text in [*shown, *(label.get_text() for label in axes.get_yticklabels())]:
            assert "$" not in text


def test_levels_and_shared_ranges():
    figure = curves({"a": {"x": Line([1, 2], [0, 1])}, "b": {"x": Line([1, 2], [5, 9])}}, "x", "y",
                    levels={"floor": -3.0}, shared=True)  # fmt: skip
    figure_png(figure)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert [text.get_text() for text in figure.axes[0].texts] == ["floor"]


def test_matrices_write_their_numbers_and_refuse_other_shapes():
    values = np.array([[0.0, 1.0], [0.25, 0.5]])
    figure = matrices({"m": values}, ["r1", "r2"], ["c1", "c2"], "share", 1.0)
    figure_png(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "1.00", "0.25", "0.50"]
    with pytest.raises(ChoiceError, match="2 rows"):
        matrices({"m": values[:1]}, ["r1", "r2"], ["c1", "c2"], "share")


def test_bars_scatter_and_maps():
    figure = bars({"a": [1, 2], "b": [3, 4]}, ["one", "two"], "dB", {"a": [0.1, 0.1], "b": [0.2, np.nan]})
    figure_png(figure)
    assert len(figure.axes[0].patches) == 4
    figure = scatter({"a": ([1, 2], [3, 4])}, "rate", "distortion", equal_sum=True)
    figure_png(figure)
    assert figure.axes[0].get_xlabel() == "rate"
    points = np.random.default_rng(0).normal(size=(20, 2))
    label = np.arange(20) % 9 - 1
    figure = maps({"m": points, "n": points}, label, [f"class {i}" for i in range(8)])
    figure_png(figure)
    assert len(figure.axes[0].collections) == 9
    assert len({style.class_style(i) for i in range(8)}) == 8
