"""Several runs beside each other: paired on the rows that both were asked."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import Made, write

from eckart.analysis.findings import find
from eckart.analysis.pairs import paired_choices
from eckart.errors import RunError
from eckart.records import Edit
from eckart.reports.compared import read_comparison
from eckart.sweeps.grid import Sweep


def better(setting, edit):
    return 0.25 if edit == Edit(6, "mlp", 0.9) else 0.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run that gains, one that does not, and one of another task."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"layers": (6,), "rates": (0.9,), "rows": 60}
    made = {
        "better": Made(gain=better, **small),
        "plain": Made(**small),
        "elsewhere": Made(tasks=("topics",), **small),
    }
    return {name: each.write(folder / name) for name, each in made.items()}


def test_runs_on_the_same_rows_are_paired(folders):
    report = read_comparison([folders["plain"], folders["better"]], None, "html")
    (row,) = report.tables["compared"].to_json()
    first, second = (
        find(Made(gain=gain, layers=(6,), rates=(0.9,), rows=60).run())
        for gain in (lambda *_: 0.0, better)
    )
    blocks = [f.blocks[f.choices[0].condition, "test"] for f in (first, second)]
    chosen = [b.row_merits(f.choices[0].edit) for b, f in zip(blocks, (first, second), strict=True)]
    gains = chosen[1] - chosen[0]
    assert row["gain"] == pytest.approx(np.nanmean(np.nanmean(gains, axis=1)))
    assert (row["rows"], row["asked"]) == (60, 60)
    assert "less 'plain', on 60 rows that both were asked" in report.summary[0]
    assert [line["run"] for line in report.tables["leaderboard"].to_json()] == ["better", "plain"]


def test_the_first_screen_opens_with_the_verdict(folders):
    first = read_comparison([folders["plain"], folders["better"]], None, "html").opening
    said = dict(first.answers)
    assert first.title.startswith("'better' did better than 'plain': +16.38 points")
    assert said["How sure?"].startswith(
        "'better' (moods, 4 shots, sum, mlp): Quite sure that it is"
    )
    assert "of this one comparison; 60 rows, 3 draws" in said["How sure?"]
    assert said["What now?"].startswith("Prefer it")


def test_the_first_run_counts_among_the_highest(folders, tmp_path):
    third = Made(layers=(6,), rates=(0.5,), rows=60).write(tmp_path / "third")

    def which(*runs):
        first = read_comparison([*runs], None, "html").opening
        return dict(first.answers)["Which did better?"]

    said = which(folders["better"], folders["plain"], third)
    rows = read_comparison([folders["plain"], folders["better"]], None, "html").tables
    (row,) = rows["compared"].rows
    assert said.startswith(f"Highest on these rows: 'better', accuracy {row['after']:.4f}. ")
    assert f"accuracy {row['before']:.4f}, 'better' {row['after']:.4f}." in said
    other_way = which(folders["plain"], folders["better"])
    assert other_way.startswith("Highest on these rows: 'better' (moods, 4 shots, sum, mlp), acc")
    fewer = Made(layers=(6,), rates=(0.9,), rows=50).write(tmp_path / "fewer")
    assert not which(folders["better"], folders["plain"], fewer).startswith("Highest"), "other rows"


def test_what_differs_besides_the_choice_is_a_caution(folders, tmp_path):
    other = Made(gain=better, layers=(6,), rates=(0.9,), rows=50, scorings=("batch",), seeds=(0, 1))
    run = other.write(tmp_path / "other")
    first = read_comparison([folders["plain"], run], None, "html").opening
    assert first.cautions[-1] == (
        "They differ from 'plain' in more than what they clip: scoring sum there, batch in 'other';"
        " draws 3 there, 2 in 'other'; rows 60 there, 50 in 'other'."
    )


def test_what_is_not_learned_clipped_or_alike_is_said_first(folders, tmp_path):
    other = Made(models=("made/other",), layers=(6,), rates=(0.9,), rows=60).write(tmp_path / "o")
    report = read_comparison([folders["better"], folders["plain"], other], None, "html")
    assert report.opening.cautions[:3] == (
        "The models differ: tiny in 'better'; tiny in 'plain'; other in 'o'.",
        "No better than always answering the most frequent label, as far as these rows show:"
        " 'plain' and 'o'.",
        "Nothing is clipped in 'plain' and 'o': there the unpruned model stands.",
    )
    assert report.summary[-1] == f"Mind: {' '.join(report.opening.cautions)}"
    clear = Made(gain=better, layers=(6,), rates=(0.9,), rows=60, base=0.7).write(tmp_path / "c")
    report = read_comparison([folders["better"], clear], None, "html")
    assert (report.opening.cautions, len(report.summary)) == ((), 1)


def test_a_run_that_clips_nothing_is_counted_and_said_not_to_be_drawn(folders, tmp_path):
    elsewhere = Made(tasks=("topics",), gain=better, layers=(6,), rates=(0.9,), rows=60)
    first = read_comparison(
        [folders["plain"], elsewhere.write(tmp_path / "better")], None, "html"
    ).opening
    assert first.title.endswith("own unpruned model: 1 better, 1 clips nothing")
    assert first.picture.draw.keywords["sample"].endswith("; not drawn: nothing clipped")


def test_an_unfinished_run_is_marked_on_the_leaderboard(folders, tmp_path):
    whole = Made(gain=better, tasks=("topics",), layers=(6,), rates=(0.9,)).run()
    study = {
        "models": ["made/tiny"],
        "tasks": [{"task": "topics", "name": "topics", "metric": "accuracy"}],
        "layers": [6],
        "parts": ["mlp"],
        "rates": [0.9],
        "seeds": [0, 1, 2, 3],
        "test": "all",
    }
    settings = Sweep.of(study, "the study").settings
    models = {"made/tiny": {"layers": {"mlp": [6]}, "spectra": []}}
    run = tmp_path / "half"
    write(replace(whole, settings=settings, models=models), run)
    report = read_comparison([folders["plain"], run], None, "html")
    states = {row["run"]: row["state"] for row in report.tables["leaderboard"].rows}
    assert states == {"plain": None, "half": "unfinished"}
    names = [line.name for line in report.opening.picture.draw.args[0]]
    assert "'half' (unfinished): topics, 4 shots, sum, mlp, n = 80" in names


def test_a_row_that_reads_otherwise_is_another_row():
    one = find(Made(layers=(6,), rates=(0.9,), rows=40).run())
    other = find(Made(layers=(6,), rates=(0.9,), rows=40, text="another film {}").run())
    (pair,) = paired_choices(one, other)
    assert (pair.shared, pair.gain, pair.error) == (0, None, "they were asked different rows")


def test_fewer_rows_are_said():
    one = find(Made(layers=(6,), rates=(0.9,), rows=40).run())
    more = find(Made(layers=(6,), rates=(0.9,), rows=50).run())
    (pair,) = paired_choices(one, more)
    assert pair.gain
    assert (pair.shared, pair.asked) == (40, 50)


def test_other_draws_are_not_paired():
    one, other = (
        find(Made(layers=(6,), rates=(0.9,), seeds=seeds).run()) for seeds in ((0, 1), (2, 3))
    )
    (pair,) = paired_choices(one, other)
    assert pair.error == "they have no draw of demonstrations in common"


def test_without_demonstrations_a_run_stands_beside_every_draw():
    none = find(Made(layers=(6,), rates=(0.9,), shots=(0,), seeds=(0,)).run())
    drawn = find(Made(layers=(6,), rates=(0.9,), seeds=(0, 1, 2)).run())
    (pair,) = paired_choices(none, drawn)
    assert pair.gain is not None
    assert pair.gain.seeds == 3


def test_other_tasks_make_a_leaderboard(folders):
    report = read_comparison([folders["plain"], folders["elsewhere"]], None, "html")
    assert "Not compared with 'plain': 'elsewhere' (topics" in report.summary[0]
    assert {row["task"] for row in report.tables["leaderboard"].rows} == {"moods", "topics"}
    assert report.to_csv().startswith("task,run,model")
    assert "All choices, task by task" in report.to_html()
    assert "All choices, task by task" in report.to_markdown()


def test_a_run_is_not_compared_with_itself(folders):
    with pytest.raises(RunError, match="is named twice"):
        read_comparison([folders["plain"], folders["plain"]], None, "html")
