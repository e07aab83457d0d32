"""What figures draw, and that they are drawn."""

import math
from dataclasses import replace

import pytest
from made_runs import Made

from eckart.analysis.findings import find
from eckart.errors import RunError
from eckart.reports.figures import (
    RatePoint,
    check_figure_path,
    condition_curves,
    draw_condition_numbers,
    draw_rates,
    save_figure,
)
from eckart.reports.figures.accuracy import BLURRED, accuracy_panel, draw_accuracy
from eckart.reports.figures.bars import draw_bars, outcome_panel
from eckart.reports.figures.gains import draw_gain_pairs, gain_pairs
from eckart.reports.figures.gallery import gallery
from eckart.reports.page import Report
from eckart.weights.conditioning import MatrixSpectrum


def matrix(layer: int, name: str, condition: float) -> MatrixSpectrum:
    return MatrixSpectrum(
        layer=layer,
        name=name,
        path=f"{layer}.{name}",
        shape=(4, 4),
        sigma_max=condition,
        sigma_min=1.0,
        rank=3 if math.isinf(condition) else 4,
    )


def test_one_curve_a_kind_of_matrix():
    found = [
        matrix(0, "q", 3.0),
        matrix(1, "q", 4.0),
        matrix(0, "k", math.inf),
        matrix(1, "k", 2.0),
    ]
    curves = {curve.name: curve for curve in condition_curves(found)}
    assert (curves["q"].layers, curves["q"].values, curves["q"].singular) == (
        (0, 1),
        (3.0, 4.0),
        (),
    )
    assert (curves["k"].layers, curves["k"].values, curves["k"].singular) == ((1,), (2.0,), (0,))


def test_experts_are_drawn_as_their_worst():
    (curve,) = condition_curves([matrix(0, "gate[0]", 3.0), matrix(0, "gate[1]", 9.0)])
    assert (curve.name, curve.values) == ("gate", (9.0,))


def test_the_figure_shows_what_it_was_given():
    figure = draw_condition_numbers(
        condition_curves([matrix(0, "q", 3.0), matrix(1, "q", math.inf)]), "tiny"
    )
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["q"]
    assert "singular" in "".join(text.get_text() for text in axes.texts)
    assert list(axes.lines[0].get_ydata()) == [3.0]


def test_a_matrix_has_one_colour_and_rounding_a_hollow_mark():
    of_mlp = [matrix(0, "fc_out", 2.0), matrix(0, "fc_in", 3.0)]
    unsure = replace(matrix(1, "fc_in", 9.0), rounding=1.5)
    curves = condition_curves([*of_mlp, unsure])
    assert [(curve.name, curve.unresolved) for curve in curves] == [("fc_in", (1,)), ("fc_out", ())]
    alone = draw_condition_numbers(curves[1:], "tiny").axes[0].lines[0]
    (axes,) = draw_condition_numbers(curves, "tiny").axes
    (both,) = (line for line in axes.lines if line.get_label() == "fc_out")
    assert (both.get_color(), both.get_marker()) == (alone.get_color(), alone.get_marker())
    hollow = [
        line
        for line in axes.lines
        if line.get_markerfacecolor() == "white" and list(line.get_xdata())
    ]
    assert [list(line.get_ydata()) for line in hollow] == [[9.0]]


def test_where_nothing_was_clipped_there_is_no_bar():
    found = find(Made(base=1.0, seeds=(0, 1)).run())
    panel = outcome_panel(found, found.choices, "test", lambda choice: [])
    assert [bar.kind for bar in panel.bars] == ["unpruned"]
    figure = draw_bars([panel], 3, "test")
    assert "mlp: nothing clipped" in [text.get_text() for text in figure.axes[0].texts]
    assert len(figure.axes[0].patches) == 1


def test_few_choices_are_named_and_have_their_intervals():
    pairs = gain_pairs(find(Made(gain=lambda setting, edit: 0.2 * (edit.rate == 0.9)).run()))
    (chosen,) = (pair for pair in pairs if pair.chosen)
    figure = draw_gain_pairs(pairs)
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in axes.texts] == ["1"]
    assert "1: moods, mlp" in [text.get_text() for text in legend.get_texts()]
    ends = [segment[:, 1].tolist() for lines in axes.collections[:] for segment in _segments(lines)]
    assert list(chosen.interval) in ends


def _segments(collection):
    return collection.get_segments() if hasattr(collection, "get_segments") else []


def test_a_figure_says_of_what_it_was_made(tmp_path):
    for picture in Report.of(Made(gain=lambda setting, edit: 0.1, rows=30).run()).pictures:
        assert "n = 29 rows a seed, 30 in all, 3 seeds" in picture.titled().get_suptitle(), (
            picture.name
        )


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


@pytest.mark.parametrize(("rows", "gain", "blurred"), [(20, 0.0, True), (400, 0.3, False)])
def test_a_panel_says_where_nothing_can_be_seen(rows, gain, blurred):
    made = Made(gain=lambda setting, edit: gain, layers=(0, 7), rates=(0.9,), seeds=(0,), rows=rows)
    findings = find(made.run())
    panel = accuracy_panel(findings, findings.targets[0], "test")
    (axes,) = draw_accuracy([panel], 1, "test").axes
    assert (BLURRED in [text.get_text() for text in axes.texts]) is blurred


def test_a_task_of_its_own_figure_says_why():
    both = Made(tasks=("moods", "films"), layers=(6,), rates=(0.9,), scorings=("sum", "mean")).run()
    apart = {
        key: trial
        for key, trial in both.trials.items()
        if (trial.setting.task == "films") == (trial.setting.scoring == "mean")
    }
    captions = {
        p.name: p.caption
        for p in gallery(find(replace(both, trials=apart)))
        if p.name.startswith("outcomes")
    }
    assert len(captions) == 2
    assert all("stand in figures of their own" in caption for caption in captions.values())
