"""The guard: what an edit does to a text and to tasks that did not choose it."""

import csv
import json
from dataclasses import replace

import pytest
from families import build, tiny_tokenizer

from eckart import Edit, Task, search, sweep
from eckart.errors import EckartError, RunError, TaskError
from eckart.reports.page import Report
from eckart.runs import GUARD, RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.scorer import Scorer
from eckart.scoring.text import GuardText, TextScorer
from eckart.selection.guard import Guard
from eckart.selection.guarded import Guarded
from eckart.selection.plan import GuardOptions
from eckart.statistics.harm import TextHarm, harm
from eckart.statistics.paired import compare
from eckart.statistics.scores import TextReading
from eckart.weights.models import load_model

EDITS = (Edit(1, "mlp", 0.9),)
TASK = {"text_column": "review", "label_column": "note", "name": "notes", "shots": 2}


@pytest.fixture(scope="module")
def searched(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=2)


@pytest.fixture(scope="module")
def other(table) -> Task:
    return Task.load(data=table, **TASK)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The good food is in the town, and the view is the best. " * 12)
    return path


@pytest.fixture
def scorer(searched) -> Evaluator:
    return Evaluator(load_model(build("llama"), tokenizer=tiny_tokenizer()), searched)


def test_it_says_what_plain_trials_say(scorer, other, text):
    found = Guard(scorer, text, [other], margin=2).look(EDITS)
    alone = Evaluator(scorer.model, other)
    before, after = alone((), "test"), alone(EDITS, "test")
    (task,) = found.tasks
    assert (task.unpruned, task.clipped) == (before.score.accuracy, after.score.accuracy)
    assert task.change == compare(before.score, after.score)
    assert task.setting.shots == 2
    read = TextScorer(scorer.model, GuardText.load(text)).score([(), EDITS], "all")
    plain = {trial.edits: trial.score for trial in read}
    assert found.text.divergence == pytest.approx(plain[EDITS].divergence)
    assert found.to_json()["tasks"][0]["verdict"] == harm(task.change, 2)
    assert "KL from the unpruned model" in str(found)
    assert "notes:" in str(found)


def test_what_a_run_knows_is_not_read_again(scorer, other, text, tmp_path, monkeypatch):
    with RunStore(tmp_path / "run", {"kind": "search"}) as store:
        first = Guard(scorer, text, [other]).look(EDITS, store)
        assert len(list(store.trials())) == 4
        monkeypatch.setattr(Scorer, "_clipped", None)  # nothing may be clipped any more
        assert Guard(scorer, text, [other]).look(EDITS, store) == first


def test_matrices_are_factored_once(scorer, other, text, monkeypatch):
    from eckart.weights.linalg import Factor

    made = []
    real = Factor.of.__func__
    monkeypatch.setattr(
        Factor, "of", classmethod(lambda cls, *a, **k: made.append(1) or real(cls, *a, **k))
    )
    list(scorer.score([(), EDITS], "test"))
    factored = len(made)
    Guard(scorer, text, [other]).look(EDITS)
    assert factored > 0
    assert len(made) == factored


def test_the_searched_task_guards_nothing(scorer, searched, text):
    with pytest.raises(TaskError, match=r"guard task '.*is the task that edits are chosen for"):
        Guard(scorer, text, [searched])


def test_a_task_is_named_once(scorer, other, text):
    with pytest.raises(TaskError, match="named twice"):
        Guard(scorer, text, [other, other])


def task_file(folder, columns, rows, **said) -> str:
    data = folder / "rows.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    lines = {"name": "other", "data": data.name, "template": '"{{ text }}:"', "shots": 0} | said
    path = folder / "other.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return str(path)


ROWS = [[f"some text {i}", ["good", "bad"][i % 2]] for i in range(40)]


@pytest.mark.parametrize(
    ("columns", "said", "why"),
    [
        (["words", "label"], {"label": "label"}, "text"),
        (["text", "label"], {"label": "verdict"}, "verdict"),
    ],
)
def test_a_task_with_other_columns_is_refused_by_its_name(
    scorer, text, tmp_path, columns, said, why
):
    with pytest.raises(EckartError, match=f"guard task '.*other.yaml': .*{why}") as error:
        Guard(scorer, text, [task_file(tmp_path, columns, ROWS, **said)])
    assert "\n" not in str(error.value)


def test_a_task_that_the_model_cannot_read_is_refused_before_anything_is_read(
    searched, text, tmp_path
):
    model = build("llama")
    model.config.max_position_embeddings = 200
    scorer = Evaluator(load_model(model, tokenizer=tiny_tokenizer()), searched)
    rows = [["some text " * 100 + str(i), label] for i, (_, label) in enumerate(ROWS)]
    name = task_file(tmp_path, ["text", "label"], rows, label="label")
    with pytest.raises(TaskError, match=r"guard task .* reads at most 200"):
        Guard(scorer, text, [name])


@pytest.mark.parametrize("margin", [-1, float("nan"), float("inf"), 100.1])
def test_a_margin_that_is_none_is_refused(scorer, text, margin):
    with pytest.raises(EckartError, match="guard margin"):
        Guard(scorer, text, margin=margin)
    with pytest.raises(EckartError, match="guard margin"):  # before any model is loaded
        GuardOptions.of({"guard": True, "guard_margin": margin})


class TestASearch:
    """A search that looks at what else its choice does."""

    @pytest.fixture(scope="class")
    @staticmethod
    def asked(searched, other, tmp_path_factory):
        folder = tmp_path_factory.mktemp("searches")
        text = folder / "text.txt"
        text.write_text("The good food is in the town, and the view is the best. " * 12)

        def ask(out: str, **options):
            model = load_model(build("llama"), tokenizer=tiny_tokenizer())
            rates = options.pop("rates", [0.6, 0.9])
            return search(model, searched, layer=2, rates=rates, out=folder / out, **options)

        def guarded(out: str, **options):
            return ask(out, guard=True, guard_text=text, guard_task=[other], **options)

        return ask, guarded, folder

    def test_the_choice_is_what_it_is_without(self, asked):
        ask, guarded, folder = asked
        with_guard, without = guarded("with"), ask("without")
        assert with_guard.rate > 0, "nothing was clipped, so nothing is guarded"
        without = replace(with_timings_of(without, with_guard), looks=with_guard.looks)
        assert replace(with_guard, guarded=None) == without
        document = json.loads((folder / "with" / "result.json").read_text())
        assert document["guard"]["edits"] == [str(with_guard.edit)]
        assert "guard" not in json.loads((folder / "without" / "result.json").read_text())
        assert f"What else {with_guard.edit} did" in str(with_guard)

    def test_a_run_may_be_guarded_later_and_reads_nothing_twice(self, asked, monkeypatch):
        ask, guarded, folder = asked
        ask("later")
        before = read_run(folder / "later")
        found = guarded("later")
        after = read_run(folder / "later")
        assert after.trials == before.trials, "the guard's trials are none of the search's"
        assert after.settings == before.settings
        assert len(after.guarded) == 4
        assert after.margin == 1
        monkeypatch.setattr(Scorer, "_clipped", None)  # nothing may be clipped any more
        assert guarded("later").guarded == found.guarded
        assert Guarded.in_run(after, found.settings["model"], (found.edit,)) == found.guarded

    def test_the_page_says_it(self, asked):
        _, guarded, folder = asked
        found = guarded("page")
        page = Report.of(read_run(folder / "page"))
        assert str(found.guarded) in page.summary
        (text,), (task,) = page.tables["guard"].rows, page.tables["guard_tasks"].rows
        assert (text["on"], text["divergence"]) == ("text.txt", found.guarded.text.divergence)
        harm = found.guarded.tasks[0]
        assert (task["on"], task["shots"], task["verdict"]) == ("notes", 2, harm.verdict)
        assert task["change"] == harm.change.difference
        assert "What else the choices did" in page.to_html()
        assert "| windows |" in page.to_markdown(), "an n has its unit"

    def test_where_nothing_is_clipped_nothing_is_guarded(self, asked):
        _, guarded, folder = asked
        assert guarded("nothing", rates=[0]).guarded is None
        assert read_run(folder / "nothing").guarded == ()


def with_timings_of(result, other):
    """Return a result with the other's times, which differ from run to run."""
    timed = [
        replace(mine, trial=replace(mine.trial, seconds=theirs.trial.seconds))
        for mine, theirs in zip(result.candidates, other.candidates, strict=True)
    ]
    return replace(
        result,
        candidates=tuple(timed),
        baseline=replace(result.baseline, seconds=other.baseline.seconds),
        clipped=replace(result.clipped, seconds=other.clipped.seconds),
    )


def test_a_sweep_looks_at_every_choice_and_once_at_each(searched, other, text, tmp_path):
    model = load_model(build("llama"), tokenizer=tiny_tokenizer())
    path = tmp_path / "other.yaml"
    data = other.source.where
    path.write_text(f"name: notes\ndata: {data}\ntext: review\nlabel: note\nshots: 2\n")

    def swept(**options):
        asked = {"layers": [1, 2], "parts": "mlp", "rates": [0.6, 0.9], "seeds": [0, 1]}
        return sweep(model, searched, **asked, out=tmp_path / "run", **options)

    plain = swept()
    found = swept(guard=True, guard_text=text, guard_task=[str(path)], guard_margin=2)
    assert [replace(line, guarded=None) for line in found.lines] == list(plain.lines)
    chosen = {line.edit for line in found.lines if line.edit}
    assert chosen, "nothing was clipped, so nothing is guarded"
    assert all(line.guarded.margin == 2 for line in found.lines if line.edit)
    assert len(found.run.guarded) == 2 * (1 + len(chosen))
    assert found.run.trials == plain.run.trials
    assert any("guard" in line for line in found.to_json()["lines"])


def test_a_sweep_refuses_what_guards_itself(searched, text, table, tmp_path):
    path = tmp_path / "same.yaml"
    path.write_text(
        f"name: {searched.name}\ndata: {table}\ntext: review\nlabel: verdict\nshots: 2\n"
    )
    model = load_model(build("llama"), tokenizer=tiny_tokenizer())
    with pytest.raises(EckartError, match="is the task that edits are chosen for"):
        sweep(model, searched, layers=[0], guard=True, guard_text=text, guard_task=[str(path)])


def test_what_holds_something_else_under_the_same_name_is_refused(
    scorer, searched, other, text, tmp_path
):
    def guarded(task):
        plan = {
            "layer": 1,
            "rates": [0.9],
            "guard": True,
            "guard_text": text,
            "out": tmp_path / "r",
        }
        return search(scorer.model, searched, guard_task=[task], **plan)

    guarded(other)
    guarded(other.redrawn(seed=5, shots=1))  # another draw is another setting
    content = text.read_text()
    text.write_text(content.replace("good", "view"))
    with pytest.raises(RunError, match=r"text\.txt' holds something else"):
        guarded(other)
    text.write_text(content)
    with pytest.raises(RunError, match="'notes, 2 shots, seed 0' holds something else"):
        guarded(replace(other, test=other.test[::-1]))
    guarded(other)


def test_a_sweep_refuses_another_guard_of_the_same_name(scorer, searched, text, tmp_path):
    grid = {"layers": [1], "parts": ["mlp"], "rates": [0.9], "guard": True, "guard_text": text}
    sweep(scorer.model, searched, **grid, out=tmp_path / "run")
    text.write_text(text.read_text() + "And more.")
    with pytest.raises(RunError, match=r"text\.txt' holds something else"):
        sweep(scorer.model, searched, **grid, out=tmp_path / "run")


def test_a_run_that_holds_two_texts_of_one_name_is_not_read(scorer, text, tmp_path):
    with RunStore(tmp_path / "run", {"kind": "search"}) as store:
        for content in (text.read_text(), text.read_text().replace("good", "view")):
            text.write_text(content)
            guard = Guard(scorer, text)
            guard.look(EDITS, store)
        names = [each.full_name for each in guard.read]
        store.keep_note(
            GUARD, {"margin": 1, "names": names}
        )  # as it was before contents were noted
    with pytest.raises(RunError, match="two results for one trial"):
        read_run(tmp_path / "run")


def test_line_ends_are_no_part_of_a_text(tmp_path):
    for name, end in (("unix", b"\n"), ("windows", b"\r\n")):
        (tmp_path / name).write_bytes(end.join([b"The good food.", b"", b"In the town."]))
    assert GuardText.load(tmp_path / "unix").text == GuardText.load(tmp_path / "windows").text


def test_a_perplexity_beyond_numbers_is_null():
    before = TextReading.of([10, 10], [20.0, 21.0], [0.0, 0.0])
    after = TextReading.of([10, 10], [9e3, 9e3], [5.0, 5.0])
    said = Guarded(EDITS, 1, TextHarm.of(before, after), "some", ()).to_json()
    assert json.loads(json.dumps(said, allow_nan=False))["text"]["ratio"] is None


def test_a_model_that_is_moved_while_the_guard_reads_keeps_its_trials(
    scorer, searched, other, text, tmp_path, monkeypatch
):
    folder = tmp_path / "here"
    scorer.model.model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    how = {"layer": 2, "rates": [0.6, 0.9], "dtype": "float32", "out": tmp_path / "run"}
    how |= {"guard": True, "guard_text": text, "guard_task": [other]}
    whole = search(folder, searched, **{**how, "out": tmp_path / "whole"})
    assert whole.rate  # something is clipped
    monkeypatch.setattr(RunStore, "keep", _stopping(RunStore.keep))
    with pytest.raises(KeyboardInterrupt):
        search(folder, searched, **how)
    monkeypatch.undo()
    moved = folder.rename(tmp_path / "there")
    assert search(moved, searched, **how).guarded.text == whole.guarded.text
    run = read_run(tmp_path / "run")
    (name,) = {t.setting.model for t in (*run.trials.values(), *run.guarded)}
    assert Guarded.in_run(run, name, whole.guarded.edits).text == whole.guarded.text


def _stopping(keep):
    """Stop at the clipped model's reading of the text."""

    def stopping(store, trial):
        if trial.edits and trial.setting.task.startswith("(text)"):
            raise KeyboardInterrupt
        keep(store, trial)

    return stopping
