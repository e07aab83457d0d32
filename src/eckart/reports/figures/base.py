"""The base of every figure: colours, lines with bands, legends, and how a file is written."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.errors import RunError
from eckart.files import write_whole

# Okabe and Ito's colours stay apart for colour-blind readers; the markers stay apart in print.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#7F7F7F",
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
PANEL_LETTERS = 44
"""As many stand in a line above a panel without running into the next one's."""
FORMATS = (".png", ".svg", ".pdf")
# Names are data: a $ in one is a $. An SVG's text stays text, and equal figures are equal files.
PLAIN: dict[Any, Any] = {"text.parse_math": False}
SAVED: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "eckart", "pdf.fonttype": 42}


def check_figure_path(path: Path) -> None:
    """Refuse a figure file that could not be written, before anything is computed.

    Raises:
        RunError: its format is unknown or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise RunError(
            f"figure '{path}' ends in none of {', '.join(FORMATS)}; name it, for example,"
            f" {path.stem}.png"
        )
    if not path.parent.is_dir():
        raise RunError(f"figure '{path}' cannot be written: there is no folder '{path.parent}'")
    if not os.access(path.parent, os.W_OK):
        raise RunError(
            f"figure '{path}' cannot be written: folder '{path.parent}' is read-only; name another"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all."""
    write_whole(path, figure_bytes(figure, path.suffix[1:]))


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of a kind: png, svg or pdf."""
    content = io.BytesIO()
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context(SAVED), warnings.catch_warnings():
        # Of a slow machine: it says that finding a place for a legend took a second.
        warnings.filterwarnings("ignore", message="Creating legend with loc=")
        figure.savefig(content, format=kind, dpi=160, metadata=dated.get(kind))
    return content.getvalue()


def plain_text(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a drawing function take every text as it is, mathematics or not."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context(PLAIN):
            return draw(*args, **kwargs)

    return drawn


def new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    return figure, tidy(figure.add_subplot())


def tidy(axes: Axes) -> Axes:
    """Leave out what carries no information."""
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def title_panel(axes: Axes, title: str) -> None:
    """Write a panel's title over as many lines as its width needs."""
    axes.set_title(fill(title, PANEL_LETTERS, break_long_words=False), size=9)


def draw_banded(
    axes: Axes,
    x: Sequence[float],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    colour: Any,
    band: float = 0.1,
    **style: Any,
) -> None:
    """Draw a line in its band, which is as opaque as `band` says."""
    axes.fill_between(x, lows, highs, color=colour, alpha=band, linewidth=0)
    axes.plot(x, means, **{"color": colour, "markersize": 4, "linewidth": 1.3, **style})


def legend_of_all(figure: Figure) -> dict[str, Any]:
    """Return the handle of every name that any panel has, once."""
    return {
        name: handle
        for axes in figure.axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
