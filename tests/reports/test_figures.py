"""What figures draw, and that they are drawn."""

import math

import pytest

from eckart.errors import RunError
from eckart.records import MatrixSpectrum
from eckart.reports.figures import (
    RatePoint,
    check_figure_path,
    condition_curves,
    draw_condition_numbers,
    draw_rates,
    save_figure,
)


def matrix(layer: int, name: str, condition: float) -> MatrixSpectrum:
    return MatrixSpectrum(layer, name, f"{layer}.{name}", (4, 4), condition, 1.0, 4, condition)


def test_one_curve_a_kind_of_matrix():
    found = [matrix(0, "q", 3.0), matrix(1, "q", 4.0), matrix(0, "k", math.inf), matrix(1, "k", 2.0)]
    curves = {curve.name: curve for curve in condition_curves(found)}
    assert (curves["q"].layers, curves["q"].values, curves["q"].singular) == ((0, 1), (3.0, 4.0), ())
    assert (curves["k"].layers, curves["k"].values, curves["k"].singular) == ((1,), (2.0,), (0,))


def test_experts_are_drawn_as_their_worst():
    (curve,) = condition_curves([matrix(0, "gate[0]", 3.0), matrix(0, "gate[1]", 9.0)])
    assert (curve.name, curve.values) == ("gate", (9.0,))


def test_the_figure_shows_what_it_was_given():
    figure = draw_condition_numbers(condition_curves([matrix(0, "q", 3.0), matrix(1, "q", math.inf)]), "tiny")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["q"]
    assert "singular" in "".join(text.get_text() for text in axes.texts)
    assert list(axes.lines[0].get_ydata()) == [3.0]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_rates_are_drawn_and_saved(tmp_path, suffix):
    points = [RatePoint(0.0, 50, 0.5, 0.4, 0.6), RatePoint(0.9, 50, 0.7, 0.6, 0.8)]
    figure = draw_rates(points, chosen=0.9, majority=0.5, title="tiny")
    save_figure(figure, tmp_path / f"figure{suffix}")
    assert (tmp_path / f"figure{suffix}").stat().st_size > 1000
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "0.9"]


def test_what_a_race_dropped_is_hollow_and_joined_to_none():
    points = [RatePoint(0.0, 100, 0.5, 0.4, 0.6), RatePoint(0.5, 400, 0.7, 0.6, 0.8)]
    points += [RatePoint(0.9, 400, 0.6, 0.5, 0.7), RatePoint(0.99, 100, 0.2, 0.1, 0.3)]
    (axes,) = draw_rates(points, chosen=0.5, majority=0.5, title="tiny").axes
    joined, hollow = (container[0] for container in axes.containers)
    assert (list(joined.get_xdata()), joined.get_linestyle()) == ([1, 2], "-")
    assert (list(hollow.get_xdata()), hollow.get_linestyle()) == ([0, 3], "None")
    assert hollow.get_markerfacecolor() == "white"
    assert [text.get_text() for text in axes.texts] == ["n = 100", "n = 100"]
    assert {"unpruned, first 100 rows", "chosen"} <= {
        text.get_text() for text in axes.get_legend().get_texts()
    }
    assert "n = 400" in axes.get_ylabel()


@pytest.mark.parametrize("name", ["figure.gif", "figure", "no/such/figure.png"])
def test_figures_that_cannot_be_written_are_refused_at_once(tmp_path, name):
    with pytest.raises(RunError):
        check_figure_path(tmp_path / name)
