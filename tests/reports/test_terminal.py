"""What a terminal shows: nothing that matters is cut, however narrow it is and whatever stands in a
table."""

import io
import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import made_runs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from samples import trial

from eckart.records import Edit, Row, Rows, Setting
from eckart.reports.results import evaluation_report, score_report, search_report, spectrum_report
from eckart.reports.sentences import evaluation_verdict
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said, as_text, listed, print_on
from eckart.selection.looks import Looks
from eckart.selection.result import Candidate, SearchResult
from eckart.statistics.scores import Score
from eckart.weights.conditioning import MatrixSpectrum

NARROW = 40
"""Here numbers stay whole, even where a line is too long for it."""
WIDTHS = (NARROW, 60, 80, 120)
LONG_MODEL = "an-organisation-of-some-length/a-model-with-a-long-name-7b-instruct-v0.3"
LONG_LABELS = (
    "not applicable to this customer",
    "Donaudampfschifffahrtsgesellschaft",
    "a",
    "否定的な評価",
)


def numbers(text: str) -> set[str]:
    """Return every number that stands in a text, whole."""
    return set(re.findall(r"[-+]?\d[\d.,:]*(?:e[-+]?\d+)?", text))


def scored(classes: int = 2, n: int = 100_000) -> Score:
    labels = tuple(i % classes for i in range(n))
    predictions = tuple((i * 7 // 3) % classes for i in range(n))
    confusion = [[0] * classes for _ in range(classes)]
    for label, prediction in zip(labels, predictions, strict=True):
        confusion[label][prediction] += 1
    right = sum(confusion[i][i] for i in range(classes)) / n
    return Score(
        n=n,
        accuracy=right,
        balanced_accuracy=right,
        macro_f1=0.123456,
        log_loss=1234.56789,
        majority_rate=1 / classes,
        confusion=tuple(map(tuple, confusion)),
        labels=labels,
        predictions=predictions,
        log_likelihoods=(),
    )


def finished(layers: int = 96, rates: int = 9, clips: bool = True) -> SearchResult:
    """Return a search whose every entry is as wide as entries become."""
    before = scored()
    after = replace(before, predictions=before.labels, accuracy=1.0)
    ranks = {"q": 11264, "k": 1024, "v": 1024, "o": 11264}
    steps = [round(i / rates, 4) for i in range(rates)]
    best = steps[-1] if clips else 0.0
    setting = Setting(LONG_MODEL, "a-task-with-a-long-name", 32, 1234, "sum")
    splits = {"validation": rows_of("validation", 2000), "test": rows_of("test", before.n)}

    def made(split, rate, **outcome):
        edits = (Edit(layers - 1, "attn", rate),) if rate else ()
        about = {"setting": setting, "split": split, "rows": splits[split].digest, "edits": edits}
        return trial(f"{split} {rate}", **about, **outcome)

    seen = scored(n=2000)
    better = replace(seen, predictions=seen.labels)
    scores = {rate: better if rate == best else seen for rate in steps}
    tried = [
        Candidate(rate, ranks, made("validation", rate, score=score), 2000)
        for rate, score in scores.items()
    ]
    failed = made("validation", 0.995, score=None, status="failed", error="its scores are NaN")
    tried.append(Candidate(0.995, ranks, failed, 0))
    return SearchResult(
        settings={
            "model": LONG_MODEL,
            "task": "a-task-with-a-long-name",
            "top_k": 3,
            "combine": "geometric",
            "shots": 32,
            "seed": 1234,
            "dtype": "bfloat16",
        },
        labels=("a", "b"),
        part="attn",
        layer=layers - 1,
        rate=best,
        condition_numbers={i: 1.2345678 * 10 ** (i % 9) for i in range(layers - 1)}
        | {layers - 1: float("inf")},
        candidates=tuple(tried),
        baseline=made("test", 0.0, score=before),
        clipped=made("test", best, score=after if clips else before),
        parameters={"dense": 1, "factored": 1, "saved": 0},
        published=(
            {
                "source": "authors' log: a-long-task",
                "layer": 27,
                "rate": 0.995,
                "test_baseline": 0.5,
                "test_clipped": 0.123456,
            },
        ),
        notes=("train: left out 12,345 rows for repeating an input",),
        rows=tuple(splits.values()),
    )


def rows_of(split: str, n: int) -> Rows:
    return Rows(("a", "b"), tuple(Row(f"{split}:{i}", "", 0) for i in range(n)))


def written(columns: list[str], rows: list[list[str]]):
    """Return a table as a terminal shows it: names in its first column, numbers in the others."""
    kinds = ["text"] + ["written"] * len(columns)
    made = (Column(str(i), title, kinds[i]) for i, title in enumerate(columns))
    values = [{str(i): cell for i, cell in enumerate(row)} for row in rows]
    return Table("made", "", "", tuple(made), values)


def evaluated():
    task = SimpleNamespace(name="a-task", shots=10, seed=0, labels=LONG_LABELS)
    shown = trial(score=scored(4), edits=(Edit(126, "attn", 0.3333333333333333),))
    return evaluation_report(
        SimpleNamespace(
            model=LONG_MODEL,
            dtype="bfloat16",
            task=task,
            scoring="sum",
            trial=shown,
            score=shown.score,
            before=None,
            comparison=None,
            prompts=(),
            notes=("7 rows were left out",),
        )
    )


def spectra():
    return spectrum_report(
        [
            MatrixSpectrum(
                layer=layer,
                name=name,
                path=f"model.layers.{layer}.{name}",
                shape=(28672, 8192),
                sigma_max=123456.789,
                sigma_min=small,
                rank=8192 - (small < 1e-20),
                rounding=0.00012345,
            )
            for layer, small in ((0, 1.23456e-5), (125, 1e-30), (125, 0.0123456))
            for name in ("gate", "fc_out")
        ]
    )


SHOWN = {
    "a search": lambda: search_report(finished()),
    "a search that clips nothing": lambda: search_report(finished(clips=False)),
    "an evaluation": evaluated,
    "eight long labels": lambda: score_report(
        scored(8), [f"{name} {i}" for i in (1, 2) for name in LONG_LABELS], "t"
    ),
    "many labels": lambda: score_report(scored(77), [f"label {i}" for i in range(77)], "77 labels"),
    "a spectrum": spectra,
    "a wide grid": lambda: written(
        ["layer", *map(str, range(40))],
        [[str(i), *(f"{1.5 * i * j:,.4f} -" for j in range(40))] for i in range(32)],
    ),
    "intervals": lambda: written(
        [
            "predictor",
            "all edits of a task (1234 cells, 12 groups)",
            "p, corrected",
            "over a random layer",
        ],
        [
            [
                "baseline: the deepest of the worst-conditioned",
                "+0.12 (-0.34 to +0.56)",
                "1.2e-300",
                "+12.34 (+1 to +2)",
            ]
        ],
    ),
}


@cache
def made(what: str):
    return SHOWN[what]()


@cache
def numbers_of(what: str) -> set[str]:
    """Return the numbers that are shown where there is room for everything."""
    return numbers(as_text(made(what), 10_000))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("what", SHOWN)
def test_no_number_is_cut_and_no_line_is_too_long(what, width):
    said = as_text(made(what), width)
    assert "…" not in said
    assert numbers_of(what) <= numbers(said)
    too_long = [line for line in said.splitlines() if cell_len(line) > width]
    assert width == NARROW or [line for line in too_long if LONG_MODEL not in line] == []


finite = st.floats(allow_nan=False, allow_infinity=False)
cells = st.one_of(finite.map(repr), st.integers(-(10**12), 10**12).map("{:+d}".format))
names = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=60)
grids = st.tuples(st.integers(1, 9), st.integers(0, 12)).flatmap(
    lambda size: st.tuples(
        st.lists(names, min_size=size[0] + 1, max_size=size[0] + 1),
        st.lists(
            st.tuples(names, st.lists(cells, min_size=size[0], max_size=size[0])),
            min_size=size[1],
            max_size=size[1],
        ),
    )
)


# How fast tables are drawn is the machine's business: a busy one is no fault of a table.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(grids, st.integers(1, 130))
def test_every_cell_of_any_table_stands_in_it_whole_at_any_width(grid, width):
    columns, rows = grid
    said = as_text(written(columns, [[name, *values] for name, values in rows]), width).split()
    assert all(value in said for _, values in rows for value in values)


def test_a_table_without_rows_and_a_column_without_a_name_is_drawn():
    assert "name" in as_text(written(["name", "a", ""], []))


def test_what_fits_is_one_table_and_what_does_not_repeats_the_names():
    sheet = written(["name", *"abcdef"], [["one", *["123456789"] * 6], ["two", *["987654321"] * 6]])
    assert as_text(sheet, 100).count("one") == 1
    narrow = as_text(sheet, 50)
    assert (narrow.count("one"), narrow.count("two")) == (2, 2)
    assert max(map(len, narrow.splitlines())) <= 50


@pytest.mark.parametrize("width", [16, 20, 60, 200])
def test_entries_side_by_side_are_whole(width):
    entries = [f"{i}: {10**i}" for i in range(9)]
    assert numbers(as_text(listed(entries), width)) >= {str(10**i) for i in range(9)}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [20, 60, 80])
def test_sentences_break_between_words_on_a_terminal_and_nowhere_else(terminal, width):
    said = (
        f"note: {LONG_MODEL} was not found; give --trust-remote-code or 'pip install"
        " eckart[adapter]'"
    )
    file = io.StringIO()
    print_on(Console(file=file, width=width, force_terminal=terminal, color_system=None), said)
    lines = file.getvalue().splitlines()
    assert " ".join(lines) == said
    assert len(lines) == 1 or terminal
    assert all(len(line) <= width or " " not in line for line in lines) or not terminal


def test_names_do_not_steer_the_terminal():
    name = "a\x1b[31mred\u202e"
    table = Table("t", name, "", (Column("x", name), Column("y", "y")), [{"x": name, "y": name}])
    for what, times in ((Said(name), 1), (table, 4)):
        said = as_text(what)
        assert said.count("a\\x1b[31mred\\u202e") == times
        assert "\x1b" not in said


def test_lines_of_their_own_and_what_is_moved_in_stay_so():
    said = as_text(Said("first\n  a line that is moved in and goes on\n\nlast", hang=2), 20)
    assert said == "first\n  a line that is\n    moved in and\n    goes on\n\nlast\n"


def test_the_verdict_is_the_first_thing_and_one_screen_holds_all_but_the_condition_numbers():
    said = as_text(search_report(replace(finished(layers=32, rates=7), looks=Looks())), 80)
    said = said.replace("seed\n1234", "seed 1234")
    assert said.startswith(
        "Gain with n = 100000 test rows and one draw of demonstrations, seed 1234:"
    )
    order = [
        "Gain with",
        "looked at once",
        "validation: layer",
        "failed at 0.995",
        "condition number of",
        "note: ",
    ]
    assert sorted(order, key=said.index) == order
    assert said[: said.index("condition number of")].count("\n") <= 45
    assert said[said.index("condition number of") :].count("\n") <= 14


def test_of_an_edit_that_learned_nothing_both_models_are_named():
    labels = np.arange(100) % 5 // 4
    before, after = (made_runs.score(labels, np.full(100, answer)) for answer in (1, 0))
    result = SimpleNamespace(
        model="tiny",
        task=SimpleNamespace(name="moods", shots=0, seed=0),
        trial=trial(split="validation"),
        score=after,
        before=before,
        comparison=None,
    )
    first = evaluation_verdict(result).split("; always")[0]
    assert "unpruned 0.2000" in first
    assert "clipped 0.8000" in first
