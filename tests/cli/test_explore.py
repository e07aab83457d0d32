"""The explorer, without a page: what a look says, what is stopped, and the one look at the test
rows."""

import json
from dataclasses import replace
from threading import Event

import pytest
from drivers import driven, needs_fork
from served import explorer_of, interrupt

import eckart as package
from eckart import EckartError, Edit, report
from eckart.cli.explore.explorer import StoppedError, Watch
from eckart.reports.page import read_report
from eckart.scoring.evaluator import Evaluator
from eckart.statistics.gain import sentence
from eckart.weights.edits import clip


@pytest.fixture
def explorer(model, table, tmp_path):
    made = explorer_of(model, table, tmp_path / "run")
    yield made
    made.close()


@pytest.fixture(scope="module")
def other_task(table, tmp_path_factory):
    """A task that no edit is chosen for, of rows of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "notes.csv").write_text(table.read_text().rstrip().replace("\n", "\nso "))
    return task_file(folder / "notes.yaml", folder / "notes.csv")


def task_file(path, data, template="{{ review }} note", label="note"):
    path.write_text(
        f"name: notes\ndata: {data}\ntemplate: '{template}'\nlabel: {label}\nshots: 1\n"
    )
    return path


@pytest.fixture
def guarded(model, table, other_task, tmp_path):
    made = explorer_of(model, table, tmp_path / "run", guard=(str(other_task),))
    yield made
    made.close()


def edits(*texts):
    return [Edit.parse(text) for text in texts]


@pytest.mark.parametrize(
    "texts", [(), ("1:mlp:0.75",), ("0:q:0.5", "1:mlp:0.9:largest"), ("1:all:0.99",)]
)
def test_a_look_is_an_evaluation(explorer, model, texts):
    explorer.look(edits("1:attn:0.5"), Event())  # states of other looks are at hand
    found = explorer.look(edits(*texts), Event())
    same = package.evaluate(
        model, explorer.evaluator.task, edits(*texts), dtype="float32"
    ).to_json()
    for name in ("accuracy", "confusion", "interval", "n", "edits", "comparison"):
        assert found.get(name) == same.get(name), name
    turned = found["turned"]
    caution = found["caution"]
    assert not caution or ("clipped" if texts else "shows: unpruned") in caution
    if texts:
        fixed, broken = (sum(row["kind"] == kind for row in turned) for kind in ("fixed", "broken"))
        assert (fixed, broken) == (same["comparison"]["fixed"], same["comparison"]["broken"])
        assert all(row["before"] != row["after"] for row in turned)
        gained = printed(found)[0].comparison
        assert f"{found['gain']} ({found['sure']})" == sentence(gained, "accuracy")


def test_some_rows_alone_are_looked_at_and_the_command_says_so(model, table, tmp_path, eckart):
    explorer = explorer_of(model, table, tmp_path / "run", rows=7)
    found = explorer.look(edits("1:mlp:0.75"), Event())
    assert found["n"] == 7
    words = found["elsewhere"]["command"].replace("'", "").split()
    assert "--port" not in words
    assert not any(word.startswith(("--out", "--rows", "--open")) for word in words)
    ended = eckart(*words[1:], "--json")
    assert json.loads(ended.out)["accuracy"] == found["accuracy"]
    assert printed(found)[0].score.accuracy == found["accuracy"]


def printed(found):
    """Return what the Python of a look prints."""
    values = []
    exec(found["elsewhere"]["python"], {"print": values.append})
    return values


@pytest.mark.parametrize(
    "text", ["1:mlp:0.75", "1:mlp:0.75:random", "0:q:0.5:largest", "1:mlp:drop"]
)
def test_the_cut_is_what_clipping_does(explorer, text):
    cuts = explorer.evaluator.cuts(edits(text))
    with clip(explorer.evaluator.model.model, edits(text)) as clipped:
        for cut, done in zip(cuts, clipped, strict=True):
            assert (cut.weight.name, cut.rank) == (done.name, done.rank)
            assert cut.gone_energy == pytest.approx(1 - done.kept_energy)
    drawn = explorer.look(edits(text), Event())["cuts"]
    assert [sum(each["kept"]) for each in drawn] == [cut.rank for cut in cuts]


def test_what_nobody_waits_for_is_stopped_and_leaves_the_model_as_it_was(explorer, monkeypatch):
    before = explorer.look((), Event())["accuracy"]
    stop = Event()
    monkeypatch.setattr(explorer.evaluator, "outcomes", lambda *_: stop.set() or _read(explorer))
    with pytest.raises(StoppedError):
        explorer.look(edits("1:mlp:0.9"), stop)
    monkeypatch.undo()
    found = explorer.look(edits("1:mlp:0.5"), Event())
    assert found["unpruned"]["accuracy"] == before
    assert [one["edits"] for one in found["looks"]] == [[], ["1:mlp:0.5"]]


def _read(explorer):
    with explorer.evaluator.progress("rows", 1) as advance:
        advance(1)


def test_the_test_rows_are_looked_at_once(explorer, eckart):
    for rate in (0.5, 0.9):
        explorer.look(edits(f"1:mlp:{rate}"), Event())
    assert explorer.about(Event())["tested"] is None
    assert eckart("report", explorer.folder).out.startswith("No choice was tested yet.")
    assert not explorer.folder.joinpath("report.png").exists()
    assert "<b>No choice was tested yet</b>" in (explorer.folder / "report.html").read_text()
    with pytest.raises(EckartError, match="nothing is clipped"):
        explorer.test((), Event())
    explorer.guarded(edits("1:mlp:0.5"), Event())
    choice = edits("1:mlp:0.9", "0:attn:0.5")
    found = explorer.test(choice, Event())
    assert "made by hand, after 2 edits had been looked at on validation" in " ".join(found["says"])
    assert explorer.test(choice, Event()) == found == explorer.about(Event())["tested"]
    with pytest.raises(EckartError, match=r"looked at already, for 0:attn:0\.5, 1:mlp:0\.9"):
        explorer.test(edits("1:mlp:0.5"), Event())

    ended = eckart("report", explorer.folder)
    assert ended.status == 0, ended.err
    assert "made by hand" in ended.out
    assert explorer.folder.joinpath("report.png").stat().st_size > 10_000
    page = read_report(explorer.folder, None, "html")
    places = "the attention of layer 0 at rate 0.5 and the MLP of layer 1 at rate 0.9"
    assert page.opening.title.endswith(places)
    assert len(page.opening.answers) == 6
    assert (
        ended.out.count("What else 0:attn:0.5, 1:mlp:0.9 did") == ended.out.count("What else") == 1
    )
    assert "1 trials clip several" not in ended.out
    rows = eckart("predict", explorer.folder, "--text", "the food is good", "--format", "jsonl")
    assert json.loads(rows.out)["prediction"] in ("good", "bad")
    kept = json.loads((explorer.folder / "result.json").read_text())
    same = explorer.evaluator.evaluate(choice, "test").to_json()
    assert kept["test"]["clipped"]["accuracy"] == same["accuracy"]
    assert kept["by_hand"] == {"looks": 2}
    assert kept["guard"]["text"]["name"] == "neutral"


def test_a_test_that_was_stopped_goes_on_with_its_own_choice(explorer, model, table):
    choice = edits("1:mlp:0.9")
    interrupt(explorer, choice)
    again = explorer_of(model, table, explorer.folder).about(Event())
    assert (again["tested"], again["begun"]) == (None, ["1:mlp:0.9"])
    with pytest.raises(EckartError, match=r"looked at already, for 1:mlp:0\.9"):
        explorer.test(edits("1:mlp:0.5"), Event())
    assert explorer.test(choice, Event()) == explorer.about(Event())["tested"]


def test_a_choice_that_fails_on_the_test_rows_leaves_them_to_another(explorer, monkeypatch):
    real = Evaluator.answer

    def failing(self, *asked):
        for trial in real(self, *asked):
            failed = trial.split == "test" and trial.edits
            lost = {"status": "failed", "score": None, "error": "no probability"}
            yield replace(trial, **lost) if failed else trial

    monkeypatch.setattr(Evaluator, "answer", failing)
    with pytest.raises(EckartError, match="the test set cannot be scored: no probability"):
        explorer.test(edits("1:mlp:0.9"), Event())
    monkeypatch.undo()
    assert explorer.about(Event())["begun"] == []
    assert explorer.test(edits("1:mlp:0.5"), Event())["edits"] == ["1:mlp:0.5"]


@pytest.mark.parametrize("left", [None, "{", "[]", '{"edits": []}'])
def test_a_result_that_is_damaged_is_written_again(explorer, eckart, left):
    found = explorer.test(edits("1:mlp:0.9"), Event())
    result = explorer.folder / "result.json"
    result.unlink() if left is None else result.write_text(left)
    about = explorer.about(Event())
    assert (about["tested"], about["begun"]) == (None, ["1:mlp:0.9"])
    assert eckart("report", explorer.folder).out.startswith("A choice was looked at on the test")
    assert explorer.test(edits("1:mlp:0.9"), Event()) == found


def test_looks_of_other_runs_at_the_test_rows_are_told_before_ones_own(explorer, model, table):
    assert explorer.about(Event())["looked_at_before"] == ""
    other = explorer_of(model, table, explorer.folder.with_name("other"), seed=1)
    other.look(edits("1:mlp:0.5"), Event())  # another draw: its validation rows are tested here
    told = explorer.about(Event())["looked_at_before"]
    assert told.startswith("These test rows were looked at before: 1 run beside this one scored 1")
    explorer.test(edits("1:mlp:0.9"), Event())
    other.look(edits("1:mlp:0.9"), Event())
    assert explorer.about(Event())["looked_at_before"] == told
    assert told in report(explorer.folder, format="md").read_text()


def test_a_run_goes_on(explorer, model, table):
    explorer.look(edits("1:mlp:0.5"), Event())
    again = explorer_of(model, table, explorer.folder)
    assert [one["edits"] for one in again.about(Event())["looks"]] == [[], ["1:mlp:0.5"]]
    with pytest.raises(EckartError, match="was made with other settings"):
        explorer_of(model, table, explorer.folder, shots=4)


def test_a_text_and_the_guard(explorer):
    both = explorer.text(edits("1:mlp:0.9"), {"review": "the food is good"}, Event())
    assert [one["model"] for one in both] == ["unpruned", "clipped"]
    for one in both:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert isinstance(one["continues"], str)
    assert [one["model"] for one in explorer.text((), {"review": "no"}, Event())] == ["model"]
    with pytest.raises(EckartError, match="your text cannot be read: it is without an input"):
        explorer.text((), {"review": " "}, Event())
    found = explorer.guarded(edits("1:mlp:0.9"), Event())
    assert found["text"]["divergence"] > 0
    assert found["says"].startswith("What else 1:mlp:0.9 did")
    assert explorer.guarded((), Event()) == {}


def test_guard_tasks_are_read_once_per_edit_beside_the_unpruned_model(
    guarded, eckart, model, own_task, other_task
):
    found = guarded.guarded(edits("1:mlp:0.9"), Event())
    words = ("--dtype", "float32", "--guard", "--guard-task", other_task)
    own = (*own_task[:-1], "2", "--edit", "1:mlp:0.9")
    same = json.loads(eckart("evaluate", model, *own, *words, "--json").out)["guard"]
    assert {name: found[name] for name in same} == same
    (harm,) = found["tasks"]
    assert harm["task"] == guarded.about(Event())["guard"]["tasks"][0]
    assert harm["verdict"] in found["says"]
    guarded.guard._tasks[0].answer = None  # what was read is not read again
    assert guarded.guarded(edits("1:mlp:0.9"), Event()) == found
    look = guarded.look(edits("1:mlp:0.9"), Event())
    assert look["elsewhere"]["command"].endswith("--edit 1:mlp:0.9 --guard")
    assert str(printed(look)[1]) == found["says"]
    (alone,) = printed(guarded.look((), Event()))
    assert alone.score.accuracy == look["unpruned"]["accuracy"]


@pytest.mark.parametrize("template", ["{{ review }}", "Review: {{ row.review | upper }}?"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_guard_that_would_read_sealed_rows_is_refused(
    eckart, model, table, own_task, tmp_path, template, moved
):
    data = table
    if moved:  # with other ids: the rows stand the other way round
        names, *rows = table.read_text().splitlines()
        data = tmp_path / "moved.csv"
        data.write_text("\n".join([names, *reversed(rows)]))
    leak = task_file(tmp_path / "leak.yaml", data, template, "verdict")
    ended = eckart("explore", model, *own_task, "--guard-task", leak, "--out", "run")
    assert ended.status == 2
    (said,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "guard task 'notes' has 25 of the 25 test rows of 'reviews' among its own" in said
    assert "give it a file of other rows, or leave it out" in said
    assert not (tmp_path / "run").exists()


def test_a_guard_that_nobody_waits_for_is_stopped(guarded, monkeypatch):
    stop = Event()
    check = Watch.check

    def leaving(watch, rows=0):
        if watch.what.startswith("test"):  # the guard's task: the text was read by now
            stop.set()
        check(watch, rows)

    monkeypatch.setattr(Watch, "check", leaving)
    with pytest.raises(StoppedError):
        guarded.guarded(edits("1:mlp:0.9"), stop)
    assert guarded.guarded(edits("1:mlp:0.9"), Event())["tasks"]


@needs_fork
def test_ctrl_c_ends_it_at_once_and_says_where_the_run_is(model, own_task, tmp_path):
    run = tmp_path / "run"
    found = driven("explore_ends.py", tmp_path / "begun", model, *own_task, "--out", run)
    assert found["status"] == 130
    assert found["seconds"] < 3  # half a second on a free machine; the batch takes a minute
    said = "interrupted; what was finished is kept, and the same command goes on from there:"
    assert f"{said} {run}" in " ".join(found["told"]).replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "words"), [("1:mlp:drop", "(drop)"), ("1:mlp:0.9:random", "(0.9:random)")]
)
def test_what_is_cut_otherwise_is_reported_as_what_it_is(explorer, text, words):
    explorer.look(edits("1:mlp:0.5:largest"), Event())
    explorer.test(edits(text), Event())
    page = read_report(explorer.folder, None, "html")
    assert page.opening.title.endswith(f"the MLP of layer 1 {words}")
    assert text in {row["part"] for row in page.tables["cells"].rows if "part" in row}
    assert "controls" not in page.tables
    assert "smallest" not in dict(page.opening.answers)["By how much?"]
