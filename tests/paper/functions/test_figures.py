"""Figure 5: what is drawn, in which colours, and what leaves the frame."""

import pytest

from eckart.paper.functions.baselines import BASELINES
from eckart.paper.functions.curves import Curve, ErrorCurves, StepCurves
from eckart.paper.functions.views import (
    OWN,
    STYLES,
    draw_error_curves,
    draw_step_curves,
    error_table,
    step_table,
)
from eckart.reports.figures import figure_bytes

COUNTS = (0, 1, 2)


def curve(name: str, *means: float) -> Curve:
    return Curve(
        name, means, tuple(0.9 * mean for mean in means), tuple(1.1 * mean for mean in means)
    )


@pytest.fixture
def figure_5a() -> ErrorCurves:
    baselines = (curve("least-squares", 1.0, 0.5, 0.0), curve("averaging", 1.0, 7.0, 0.9))
    return ErrorCurves(
        "linear",
        2,
        1234,
        0,
        COUNTS,
        curve("a_$model$", 1.0, 0.6, 0.1),
        baselines,
        curve("excess", 0.0, 0.1, 0.1),
    )


@pytest.fixture
def figure_5b() -> StepCurves:
    models = tuple(curve(f"{step:,} steps", 1.0, 1 / step, 0.1) for step in (1, 2, 4, 8000))
    return StepCurves(
        "linear", 2, 1234, 0, COUNTS, (1, 2, 4, 8000), models, curve("least-squares", 1.0, 0.5, 0.0)
    )


def drawn(figure) -> dict[str, list[float]]:
    return {line.get_label(): [float(y) for y in line.get_ydata()] for line in figure.axes[0].lines}


def test_every_line_of_figure_5a_is_drawn_with_its_band(figure_5a):
    figure = draw_error_curves(figure_5a)
    lines = drawn(figure)
    assert lines["a_$model$"] == [1.0, 0.6, 0.1]
    assert lines["averaging"] == [1.0, 7.0, 0.9]
    assert lines["always 0"] == [1.0, 1.0]
    assert len(figure.axes[0].collections) == 3
    assert "1,234 prompts" in figure.axes[0].get_title()
    assert figure_bytes(figure, "svg") == figure_bytes(draw_error_curves(figure_5a), "svg")


def test_what_leaves_the_frame_is_said(figure_5a):
    axes = draw_error_curves(figure_5a).axes[0]
    assert axes.get_ylim()[1] == 1.5
    assert axes.get_xlabel().endswith("(above the frame in part: averaging)")


def test_a_model_never_leaves_the_frame(figure_5a):
    worse = ErrorCurves(**{**vars(figure_5a), "model": curve("model", 1.0, 4.0, 3.0)})
    assert draw_error_curves(worse).axes[0].get_ylim()[1] > 4.4


def test_every_baseline_has_a_look_of_its_own(figure_5a):
    assert set(STYLES) == set(BASELINES)
    looks = {(look["colour"], look["marker"]) for look in (OWN, *STYLES.values())}
    assert len(looks) == len(STYLES) + 1
    drawn = draw_error_curves(figure_5a).axes[0].lines[:3]
    wanted = (STYLES["least-squares"], STYLES["averaging"], OWN)
    assert [line.get_color() for line in drawn] == [look["colour"] for look in wanted]


def test_more_steps_are_darker(figure_5b):
    *models, reference = draw_step_curves(figure_5b).axes[0].lines[:5]
    brightness = [sum(line.get_color()[:3]) for line in models]
    assert brightness == sorted(brightness, reverse=True)
    assert (reference.get_color(), reference.get_linestyle()) == ("black", ":")
    assert list(drawn(draw_step_curves(figure_5b)))[:5] == [
        "1 steps",
        "2 steps",
        "4 steps",
        "8,000 steps",
        "least-squares",
    ]


def test_the_tables_have_every_number(figure_5a, figure_5b, capsys):
    from rich.console import Console

    Console(width=160).print(error_table(figure_5a), step_table(figure_5b))
    said = capsys.readouterr().out
    for word in (
        "a_$model$",
        "0.600 (0.540 to 0.660)",
        "7.000",
        "0.100 (0.090 to 0.110)",
        "1,234",
        "8,000 steps",
    ):
        assert word in said
