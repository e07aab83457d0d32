"""A report: its numbers in every format, what it refuses, and the page in a browser."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from browsing import chromium, faults, noting
from made_runs import Made

import eckart
from eckart.analysis.findings import find
from eckart.errors import RunError
from eckart.published import record, sizes
from eckart.records import Edit
from eckart.reports.claims import exact_interval, paired_bounds, published_table
from eckart.reports.page import FORMATS, Report, published_page
from eckart.reports.provenance import progress
from eckart.reports.table import Column, Table
from eckart.runs import RunStore, read_run
from eckart.statistics.paired import mcnemar_exact
from eckart.statistics.power import Design
from eckart.sweeps.grid import Sweep

EVIL = (
    '<script>document.title = "broken in"</script> "><img src=x onerror=alert(1)> | `$x_1$` film {}'
)


def planted(setting, edit):
    return 0.2 if edit == Edit(6, "mlp", 0.9) else 0.0


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(gain=planted, text=EVIL, labels=("<i>bad</i>", "good"), rows=60)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("run") / "sweep")


def test_every_format_has_the_same_numbers(folder):
    report = Report.of(read_run(folder))
    cells = json.loads(FORMATS["json"](report))["tables"]["cells"]
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == len(cells) == 13
    found = find(read_run(folder))
    for row, cell in zip(rows, cells, strict=True):
        edit = Edit(cell["layer"], cell["part"], cell["rate"]) if cell["part"] else None
        (condition,) = found.conditions
        measured = found.measured(condition, edit, "test")
        assert float(row["test_accuracy"]) == cell["test_accuracy"] == measured.mean
        if edit:
            assert (
                float(row["test_interval_low"])
                == cell["test_interval"][0]
                == measured.gain.interval[0]
            )
    text = report.to_markdown()
    (choice,) = found.choices
    assert f"{100 * choice.gain.mean:+.2f}" in text
    assert report.summary[0].replace("(", "").split(" changes ")[0] in text
    assert "12 edits beside" in report.summary[0]


def test_the_page_is_one_file_that_asks_for_nothing(folder):
    page = Report.of(read_run(folder)).to_html()
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page
    assert "&lt;i&gt;bad&lt;/i&gt;" in page
    assert '<p class="count">13 rows</p>' in page


def test_long_tables_say_what_they_leave_out(tmp_path):
    made = Made(layers=tuple(range(70)), rates=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), seeds=(0,), rows=12)
    report = Report.of(made.run())
    pictures = replace(report, pictures=())
    assert "Showing 400 of 421 rows; all are in the CSV and the JSON." in pictures.to_html()
    assert report.to_csv().count("\n") == 422


def test_the_python_door_writes_a_file(folder, tmp_path):
    path = eckart.report(folder, tmp_path / "report.md", format="md", figures=tmp_path / "figures")
    assert path.read_text().startswith("# Sweep: tiny on moods")
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert {
        "outcomes-4-sum.png",
        "accuracy-by-rate-4-sum.svg",
        "gains-4-sum.pdf",
        "validation-and-test.png",
    } <= names


def test_an_unfinished_search_says_so(tmp_path):
    run = Made(test="none", seeds=(0,), layers=(3,), rates=(0.5,)).run()
    report = Report.of(
        replace(run, settings={"kind": "search", "task": "moods", "rates": [0, 0.5], "layer": None})
    )
    assert report.summary[0].startswith("This search is unfinished: 2 of 3 trials are there.")
    assert report.provenance.command == "eckart search made/tiny --task moods --rates 0,0.5"
    assert "unknown" in report.provenance.versions.values()


@pytest.mark.parametrize(("kept", "missing"), [("all", 0), ("unpruned", 1), ("none", 1)])
def test_a_search_whose_choice_is_not_tested_is_unfinished(tmp_path, kept, missing):
    run = Made(seeds=(0,), layers=(3,), rates=(0.5,), gain=lambda *_: 0.2).run(tmp_path)
    trials = {
        key: trial
        for key, trial in run.trials.items()
        if trial.split == "validation" or kept == "all" or (kept == "unpruned" and not trial.edits)
    }
    settings = {"kind": "search", "task": "moods", "rates": [0, 0.5], "layer": None}
    stopped = replace(run, settings=settings, trials=trials)
    there, wanted = progress(stopped)
    assert wanted - there == missing
    said = Report.of(stopped).summary[0]
    assert said.startswith("This search is unfinished") == bool(missing)
    (tmp_path / "result.json").write_text("{}")  # which it writes last
    there, wanted = progress(stopped)
    assert (wanted - there) == (missing if kept == "none" else 0)


def test_a_search_is_run_again_with_its_whole_plan():
    settings = {
        "kind": "search",
        "task": "moods",
        "shots": 4,
        "seed": 0,
        "seeds": [0, 1],
        "layer": "gradient",
        "screen_rows": [64, "digest"],
        "templates": ["own", "brief"],
        "race": 0.05,
        "controls": True,
    }
    run = replace(Made(test="none").run(), settings=settings)
    assert Report.of(run).provenance.command == (
        "eckart search made/tiny --task moods --shots 4 --layer gradient --screen-rows 64 --race"
        " --controls --seeds 0,1 --templates own,brief"
    )


def test_a_search_wants_every_rate_and_a_race_what_it_read():
    rates = (0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
    run = Made(seeds=(0,), layers=(3,), rates=rates, test="none").run()
    settings = {"kind": "search", "rates": [0, *rates]}
    two = replace(run, settings=settings, trials=dict(list(run.trials.items())[:2]))
    assert progress(two) == (2, 9)
    assert progress(replace(two, settings={**settings, "race": 0.05})) == (2, 3)


def swept(made: Made, **study):
    """A made run with the settings that a real sweep of it would have."""
    task = {"task": "moods", "name": "moods", "metric": "accuracy", **study.pop("task", {})}
    said = {
        "models": list(made.models),
        "tasks": [task],
        "layers": list(made.layers),
        "parts": list(made.parts),
    }
    sweep = Sweep.of({**said, "rates": list(made.rates), "test": made.test, **study}, "the study")
    layers = {part: list(made.layers) for part in made.parts}
    facts = {name: {"layers": layers, "spectra": []} for name in made.models}
    return replace(made.run(), settings=sweep.settings, models=facts)


def test_without_shots_one_seed_is_a_whole_sweep():
    run = swept(Made(shots=(0, 4), seeds=(0, 1)), shots=[0, 4], seeds=[0, 1])
    drawn = {key: t for key, t in run.trials.items() if t.setting.shots or t.setting.seed == 0}
    assert progress(replace(run, trials=drawn)) == (78, 78)


@pytest.mark.parametrize("seeds", [(), (0, 1)])
@pytest.mark.parametrize("task", [{}, {"task": None, "digest": "of a task in memory"}])
def test_a_half_sweep_is_half_whatever_draws_its_demonstrations(seeds, task):
    run = swept(Made(seeds=seeds or (0,)), task=task, **({"seeds": list(seeds)} if seeds else {}))
    whole = 26 * (len(seeds) or 1)
    assert progress(run) == (whole, whole)
    assert progress(replace(run, trials=dict(list(run.trials.items())[:5]))) == (5, whole)


def test_an_unfinished_sweep_says_how_much_is_there():
    run = swept(Made(gain=planted), seeds=[0, 1, 2])
    assert not Report.of(run).provenance.warnings
    some = dict(list(run.trials.items())[:50])
    report = Report.of(replace(run, trials=some))
    assert report.summary[0].startswith("This sweep is unfinished: 50 of 78 trials are there.")
    assert "choices" in report.tables
    page = replace(report, pictures=()).to_html()
    first = re.search(r'class="warning">([^<]*)', page)
    assert first.group(1) == report.summary[0]


def test_failures_are_told_first():
    run = Made().run()
    key = next(key for key, trial in run.trials.items() if trial.edits)
    failed = replace(
        run.trials[key], score=None, status="failed", error="the logits are not numbers"
    )
    report = Report.of(replace(run, trials={**run.trials, key: failed}))
    assert report.summary[0].startswith("1 of 78 trials failed")
    assert report.tables["failures"].to_json()[0]["error"] == "the logits are not numbers"


def test_a_spectrum_is_a_table_and_a_figure(tmp_path):
    values = {
        "layer": 0,
        "name": "q",
        "path": "0.q",
        "shape": [4, 4],
        "sigma_max": 8.0,
        "sigma_min": 2.0,
    }
    rest = {
        "rank": 4,
        "condition_number": 4.0,
        "rounding": 0.0,
        "singular": False,
        "resolved": True,
    }
    with RunStore(tmp_path, {"kind": "spectrum"}) as store:
        store.keep_spectrum("q", {**values, **rest})
        singular = {
            "layer": 1,
            "path": "1.q",
            "condition_number": None,
            "singular": True,
            "resolved": False,
        }
        store.keep_spectrum("q1", {**values, **rest, **singular})
    report = Report.of(read_run(tmp_path))
    assert [row["says"] for row in report.tables["spectra"].rows] == ["", "singular, rank 4"]
    assert [picture.name for picture in report.pictures] == ["condition-numbers"]
    assert report.to_csv().splitlines()[1].split(",")[1:4] == ["0", "q", "4 x 4"]
    assert "Condition numbers" in report.to_html()
    (said,) = report.summary
    assert said.startswith("Of 2 matrices, q of layer 1 is the worst conditioned: it is singular")
    assert "percentage points" not in report.to_html()


def test_every_table_of_a_report_is_on_its_page(folder):
    report = replace(Report.of(read_run(folder)), pictures=())
    more = Table("more", "Is there more?", "A note.", (Column("a", "a"),), [{"a": "yes"}])
    for page in (
        replace(report, tables={**report.tables, "more": more}).to_html(),
        report.to_html(),
    ):
        assert '<a href="#cells">Everything that was tried</a>' in page
        assert page.index('id="choices"') < page.index('id="seeds"') < page.index('id="cells"')
        assert ('<h2 id="more">Is there more?</h2>' in page) == ("A note." in page)
    assert "Is there more?" in replace(report, tables={"more": more}).to_html()


def test_many_verdicts_say_what_they_leave_out():
    made = Made(
        tasks=tuple(f"task {i}" for i in range(30)), seeds=(0,), layers=(1,), rates=(0.5,), rows=12
    )
    page = replace(Report.of(made.run()), pictures=()).to_html()
    assert "Showing 24 of 30; all are in the table of choices." in page


def test_a_formula_in_the_data_is_a_text_in_the_csv():
    column = Column("task", "task")
    texts = ["=1+1", "+1", "-1", "@sum", "plain", "a=b"]
    table = Table(
        "t",
        "t",
        "",
        (column, Column("gain", "gain", "points")),
        [{"task": t, "gain": -0.5} for t in texts],
    )
    lines = table.to_csv().splitlines()[1:]
    assert lines == ["'=1+1,-0.5", "'+1,-0.5", "'-1,-0.5", "'@sum,-0.5", "plain,-0.5", "a=b,-0.5"]


def test_a_column_is_left_out_only_where_all_rows_agree():
    columns = (*(Column(key, key) for key in ("same", "some", "none")), Column("n", "n", "count"))
    table = Table(
        "t", "t", "", columns, [{"same": "a", "some": "chosen", "n": 1}, {"same": "a", "n": 1}]
    )
    assert [column.key for column in table.narrow().columns] == ["some", "n"]
    assert [column.key for column in table.narrow(["same"]).columns] == ["same", "some", "n"]


def test_an_empty_run_is_reported_as_empty(tmp_path):
    RunStore(tmp_path, {"kind": "spectrum"}).__exit__()
    report = Report.of(read_run(tmp_path))
    assert report.summary == ("The run holds nothing yet.",)
    assert "holds nothing" in report.to_html()
    with pytest.raises(RunError, match="no table to write"):
        report.to_csv()


def test_the_papers_model_stands_beside_the_paper():
    run = Made(models=("EleutherAI/gpt-j-6b",), tasks=("cb:released",), seeds=(0,)).run()
    rows = Report.of(run).tables["published"].rows
    assert [row["source"] for row in rows] == ["Table 7", "authors' log"]
    assert [row["run_outcome"] for row in rows] == ["cannot tell"] * 2


def test_the_published_record_is_whole_and_bounded():
    table = published_table()
    assert len(table.rows) == len(record()) == 28 + 36
    row = next(
        r for r in table.rows if (r["model"], r["task"], r["part"]) == ("gpt-j-6b", "cb", "mlp")
    )
    assert (row["n"], row["baseline_interval"]) == (56, exact_interval(32, 56))
    for row in table.rows:
        assert row["least_p"] <= row["most_p"]
        n, divisor = sizes(row["task"])
        assert abs(row["test_baseline"] * divisor - round(row["test_baseline"] * divisor)) < (
            0.02 if n < 1000 else 6
        )


@pytest.mark.parametrize(("before", "after", "n"), [(3, 6, 8), (5, 5, 7), (6, 2, 8), (0, 4, 4)])
def test_the_bounds_are_those_of_all_possible_pairs(before, after, n):
    possible = [
        mcnemar_exact(fixed, fixed - after + before)
        for fixed in range(n - before + 1)
        if 0 <= fixed - after + before <= before
    ]
    assert paired_bounds(before, after, n) == (min(possible), max(possible))


def test_the_published_page_in_every_format():
    for name in FORMATS:
        assert "gpt-j-6b" in published_page(name)
    assert "Mi" in published_page("html")


def test_the_python_door_refuses_what_the_command_line_does(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Report, "of", None)  # before anything is computed
    for path, says in {
        tmp_path / "no" / "report.html": "there is no folder",
        tmp_path: "it is a folder",
        folder / "run.sqlite": "is the run itself",
    }.items():
        with pytest.raises(RunError, match=says):
            eckart.report(folder, path)


def test_a_format_that_there_is_not(folder):
    with pytest.raises(
        RunError, match="no report format 'doc'; the formats are html, md, csv, json"
    ):
        eckart.report(folder, format="doc")


@pytest.fixture
def page(folder, tmp_path):
    """The report in a browser, and what it said and asked for."""
    with chromium() as browser:
        path = eckart.report(folder, tmp_path / "report.html")
        opened = noting(browser, viewport={"width": 1280, "height": 900})
        opened.on("dialog", lambda dialog: opened.said.append(dialog.message))
        opened.goto(path.as_uri())
        yield opened


def test_the_page_in_a_browser(page):
    assert page.title() == "sweep: moods, better"
    column = "#cells ~ .scroll"
    head = page.locator(f"{column} >> nth=0").locator("th", has_text="test: gain, points")
    index = head.evaluate("th => th.cellIndex")
    cells = page.locator(f"{column} >> nth=0").locator(f"tbody tr td:nth-child({index + 1})")
    for order in (False, True):
        head.click()
        values = [float(text) for text in cells.all_inner_texts() if text]
        assert values == sorted(values, reverse=order)
        assert cells.all_inner_texts()[-1] == ""  # the unpruned model has no gain, and stays last
    assert "<script>document.title" in page.locator("td.text").first.inner_text()
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.said == []
    assert all(url.startswith(("file:", "data:")) for url in page.asked)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page, scheme):
    page.emulate_media(color_scheme=scheme)
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in faults(page)] == []


def test_rows_that_turned_are_filtered_and_searched(page):
    entry = page.locator("#flips ~ details").first
    rows = entry.locator(".sortable tbody tr:visible")
    every = rows.count()
    turned, label = (entry.locator("select").nth(place) for place in (0, 1))
    label.select_option("good")
    assert 0 < rows.count() < every
    assert {*rows.locator("td:nth-child(4)").all_inner_texts()} == {"good"}
    assert entry.locator("output").inner_text() == f"{rows.count()} shown"
    turned.select_option("broken")
    assert rows.count() == 0, "the planted edit breaks no row"
    turned.select_option("fixed")
    name = rows.first.locator("td:nth-child(2)").inner_text()
    entry.get_by_role("searchbox").fill(name.upper())
    assert name in rows.locator("td:nth-child(2)").all_inner_texts()
    assert rows.count() < every


def test_a_word_is_explained_where_it_stands_by_keyboard(page):
    word = page.locator(".answers .word", has_text="points").first
    word.focus()
    page.keyboard.press("Enter")
    meaning = page.locator("#word-points")
    assert meaning.is_visible()
    assert "Percentage points" in meaning.inner_text()
    page.keyboard.press("Escape")
    assert not meaning.is_visible()


def test_the_first_screen_answers(folder, tmp_path):
    first = Report.of(read_run(folder)).opening
    (choice,) = find(read_run(folder)).choices
    said = dict(first.answers)
    assert first.title.startswith(f"It got better: {100 * choice.gain.mean:+.2f} points")
    assert first.title.endswith("by clipping the MLP of layer 6 at rate 0.9")
    asked = "Did it help? By how much? How sure? What else changed? Which rows? What now?"
    assert " ".join(said) == asked
    assert "most frequent label" in said["By how much?"]
    assert "the smallest 90% of its singular values are set to 0." in said["By how much?"]
    assert said["How sure?"].startswith(
        "Quite sure that it is better than the unpruned model: 95% interval"
    )
    assert "of this one comparison" in said["How sure?"]
    assert "--guard" in said["What else changed?"]
    eckart.report(folder, tmp_path / "page.html")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_fixed_less_broken_is_the_gain(seeds):
    run = Made(gain=planted, seeds=seeds).run()
    (choice,) = find(run).choices
    told = re.search(r"([\d.]+) fixed, ([\d.]+) broken of (\d+) rows", answers(run)["Which rows?"])
    fixed, broken, rows = map(float, told.groups())
    assert (fixed - broken) / rows == pytest.approx(choice.gain.mean, abs=0.1 / rows)


def answers(run):
    return dict(Report.of(run).opening.answers)


def test_a_rate_says_how_many_singular_values_go():
    shapes = {"up": [48, 32], "gate": [48, 32], "down": [32, 40], "q": [32, 32]}
    rest = {"sigma_max": 8.0, "sigma_min": 2.0, "condition_number": 4.0, "singular": False}
    spectra = {
        f"6.{name}": {**rest, "layer": 6, "name": name, "path": name, "shape": shape}
        | {"rank": 32, "rounding": 0.0, "resolved": True}
        for name, shape in shapes.items()
    }
    small = Made(gain=planted, shots=(0,), seeds=(0,), layers=(6,), rates=(0.9,))
    facts = {"spectra": list(spectra), "layers": {"mlp": [6]}, "condition_numbers": {}}
    run = replace(small.run(), spectra=spectra, models={"made/tiny": facts})
    assert "set to 0 (29 of 32 in gate, up and down)." in answers(run)["By how much?"]


def test_one_draw_is_no_licence():
    run = Made(gain=lambda *_: 0.3, seeds=(0,), layers=(6,), rates=(0.9,)).run()
    first = Report.of(run).opening
    assert first.outcome == "gain"
    assert first.cautions[0].startswith("One draw of demonstrations alone")
    assert "where a coin would share them evenly" in dict(first.answers)["How sure?"]


def test_what_learned_nothing_is_said_first_of_several_draws_too():
    first = Report.of(Made(base=0.5, layers=(6,), rates=(0.9,)).run()).opening
    assert first.title.startswith("The model learned nothing here. ")
    assert first.cautions[0].startswith(
        "The model learned nothing here, as far as accuracy on n = "
    )


def test_a_gain_that_beats_nothing_free_is_no_licence():
    low = Made(gain=lambda *_: 0.3, base=0.25, layers=(6,), rates=(0.9,)).run()
    first = Report.of(low).opening
    assert first.outcome == "cannot tell"
    assert first.title.startswith("Better than unpruned, +")
    assert first.title.endswith("; but not shown to beat always answering the most frequent label")
    said = dict(first.answers)
    assert said["Did it help?"].startswith("Not shown")
    assert said["What now?"].startswith("Do not use this yet")
    assert "export" not in said["What now?"]


def test_what_cannot_be_told_says_how_many_rows_would_do():
    small = Made(gain=lambda *_: 0.08, shots=(0,), seeds=(0,), layers=(6,), rates=(0.9,))
    (choice,) = find(small.run()).choices
    assert choice.conclusion == "cannot tell"
    rows = int(re.search(r"`--split-sizes 79,(\d+)`", answers(small.run())["What now?"])[1])
    design = Design((choice.fixed + choice.broken) / choice.gain.rows)
    told = [design.power(choice.gain.mean, n) >= 0.8 for n in (choice.gain.rows, rows)]
    assert told == [False, True]


def test_several_choices_say_over_how_many_p_is_adjusted():
    run = Made(gain=planted, tasks=("moods", "topics", "words"), layers=(6,), rates=(0.9,)).run()
    first = Report.of(run).opening
    assert first.title.startswith("3 choices: 1 better, 2 cannot tell")
    assert "adjusted for all 3 choices" in dict(first.answers)["How sure?"]


def test_a_caution_stands_whole_on_a_phones_first_screen(tmp_path):
    made = Made(gain=lambda *_: 0.3, seeds=(0,), layers=(6,), rates=(0.9,))
    path = eckart.report(made.write(tmp_path / "run"), tmp_path / "page.html")
    with chromium() as browser:
        page = noting(browser, viewport={"width": 390, "height": 844})
        page.goto(path.as_uri())
        box = page.locator(".warning").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844


@pytest.mark.parametrize("width", [360, 1280])
def test_long_names_without_a_space_stay_on_the_page(tmp_path, width):
    labels = ("l" * 3000, "other")
    made = Made(labels=labels, models=("m" * 60,), rows=30)
    made.gain = lambda setting, edit: 0.2
    path = eckart.report(made.write(tmp_path / "run"))
    with chromium() as browser:
        page = noting(browser, viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_confusions_count_every_row_before_and_after(folder):
    (entry,) = Report.of(read_run(folder)).flipped
    for table in entry.confusions:
        total = sum(row[key] for row in table.rows for key in ("0", "1"))
        assert total == 3 * 59


def test_a_heading_stands_over_a_table_on_every_sheet(page, tmp_path):
    page.locator("#cells ~ .scroll tbody >> nth=0").evaluate(
        "body => { for (let i = 0; i < 99; i++) body.append(body.rows[1].cloneNode(true)) }"
    )
    sheets = tmp_path / "sheets.pdf"
    page.pdf(path=sheets, prefer_css_page_size=True)
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on this machine")
    printed = subprocess.run(["pdftotext", sheets, "-"], capture_output=True, text=True, check=True)
    full = [sheet for sheet in printed.stdout.split("\f") if sheet.count("mlp") > 10]
    assert len(full) > 1
    assert all("Holm" in "".join(sheet.split()) for sheet in full)
    assert all({"mlp", "0.5"} <= {*sheet.split()} for sheet in full)


def test_nothing_sticks_out_of_a_sheet(page):
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 within its margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
