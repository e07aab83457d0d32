"""The page in a browser: what a person moves, reads and asks, by keyboard and on a phone."""

import csv
import json
from threading import Event

import pytest
from browsing import chromium, faults, serious
from served import ask, explorer_of, interrupt, opened, serving, settled

from eckart import Edit, evaluate
from eckart.cli.explore.explorer import StoppedError

EVIL = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Rows and labels that a page must not take for its own HTML."""
    path = tmp_path_factory.mktemp("data") / "evil.csv"
    words = ["the", "food", "is", "good", "bad", "best", "town", "view"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict"])
        for i in range(120):
            text = " ".join(words[(i * step) % 8] for step in (1, 3, 5, 7, 11))
            writer.writerow([f"{EVIL} {text} {i}", ["<b>", "<i>"][i % 2]])
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def explorer(model, evil, tmp_path):
    rows, guard = tmp_path / "other.csv", tmp_path / "guard.yaml"
    rows.write_text(evil.read_text().replace("<img", "so <img"))
    guard.write_text(f"name: other\ndata: {rows}\ntemplate: '{{{{ review }}}}?'\nlabel: verdict\n")
    return explorer_of(model, evil, tmp_path / "run", guard=(str(guard),))


@pytest.fixture
def address(explorer):
    with serving(explorer) as where:
        yield where


@pytest.fixture
def page(browser, address):
    tab = opened(browser, address, viewport={"width": 1280, "height": 900})
    yield tab
    tab.close()


def moved(page, rate, number=0):
    """Give an edit a rate, as a person does who types it."""
    page.fill(f"#exact-{number}", str(rate))
    settled(page)
    page.wait_for_selector(f"#cuts figure:nth-child({2 + number})")


def seen(page):
    """Return the accuracies that stand on the page, the unpruned model's first."""
    return [text.split(",")[0] for text in page.locator(".interval .value").all_inner_texts()]


def evaluated(explorer, *texts):
    # With a model of its own: the page's is at work in another thread.
    name, task = explorer.evaluator.model.name, explorer.evaluator.task
    found = evaluate(name, task, [Edit.parse(text) for text in texts], dtype="float32")
    return [f"{score.accuracy:.4f}" for score in (found.before, found.score)]


def test_a_person_moves_a_rate_composes_asks_and_tests(page, explorer, address):
    assert len(seen(page)) == 1
    assert page.locator("#test").is_disabled()
    page.focus("#rate-0")
    for _ in range(18):  # by keyboard, to 0.9
        page.keyboard.press("ArrowRight")
    settled(page)
    page.wait_for_selector("#cuts figure")
    assert page.input_value("#exact-0") == "0.9"
    assert seen(page) == evaluated(explorer, "2:mlp:0.9")
    assert "1 edit looked at on these" in page.inner_text("#looks")
    assert page.locator("#cuts figure").count() == 3
    assert "keeps rank" in page.locator("#cuts figcaption").first.inner_text()
    page.wait_for_selector("#guarded >> text=KL from the unpruned model")
    (harm,) = ask(address, "guard", edits=["2:mlp:0.9"])[1]["tasks"]
    cells = page.locator("#guarded tbody tr >> nth=-1").locator("td").all_inner_texts()
    both = [f"{harm[model]:.4f}" for model in ("unpruned", "clipped")]
    assert cells[:3] == [*both, harm["verdict"]]

    page.click("#add")
    page.select_option("#part-1", "attn")
    moved(page, 0.5, number=1)
    assert seen(page) == evaluated(explorer, "2:mlp:0.9", "1:attn:0.5")
    found = ask(address, "look", edits=["1:attn:0.5", "2:mlp:0.9"])[1]
    says = f"{found['verdict'].capitalize()}: {found['gain']}\n{found['sure']}."
    assert page.inner_text("#verdict") == says
    assert "--edit 1:attn:0.5 --edit 2:mlp:0.9" in page.inner_text("#command")
    assert "eckart.evaluate(" in page.inner_text("#python")

    page.fill("#fields textarea", "the food is good")
    page.click("#ask")
    page.wait_for_selector(".answer:nth-child(2)")
    both, fields = ["1:attn:0.5", "2:mlp:0.9"], {"review": "the food is good"}
    said = ask(address, "text", edits=both, fields=fields)[1]
    chances = page.locator(".answer >> nth=1").locator(".chance span:last-child").all_inner_texts()
    assert chances == [f"{chance:.3f}" for chance in said[1]["probabilities"].values()]

    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#test")
    page.wait_for_selector("#sealed >> text=made by hand, after 2 edits")
    assert page.locator("#test").is_disabled()
    kept = json.loads((explorer.folder / "result.json").read_text())
    assert kept["edits"] == ["1:attn:0.5", "2:mlp:0.9"]
    assert ask(address, "test", edits=["2:mlp:0.5"])[0] == 422
    page.reload()
    settled(page)
    assert "made by hand" in page.inner_text("#sealed")
    assert page.said == []
    assert all(url.startswith((address, "data:")) for url in page.asked)


def test_a_test_that_was_stopped_is_taken_up_from_the_page(browser, model, evil, tmp_path):
    explorer = explorer_of(model, evil, tmp_path / "run")
    interrupt(explorer, [Edit.parse("2:mlp:0.9")])
    with serving(explorer) as address:
        tab = opened(browser, address)
        assert "The test of 2:mlp:0.9 was begun" in tab.inner_text("#sealed")
        moved(tab, 0.5)  # the test is of its own choice all the same
        tab.on("dialog", lambda dialog: dialog.accept())
        tab.click("#test >> text=Go on with this test")
        tab.wait_for_selector("#sealed >> text=made by hand")
        assert json.loads((explorer.folder / "result.json").read_text())["edits"] == ["2:mlp:0.9"]
        assert tab.locator("#test").is_disabled()
        tab.close()


def test_looks_of_other_runs_are_told_before_the_click(browser, model, evil, tmp_path):
    other = explorer_of(model, evil, tmp_path / "other", seed=1)
    other.look([Edit.parse("1:mlp:0.5")], Event())
    with serving(explorer_of(model, evil, tmp_path / "run")) as address:
        tab = opened(browser, address)
        told = "These test rows were looked at before: 1 run beside this one scored 1 edit on"
        assert tab.inner_text("#before").startswith(told)
        tab.close()


def test_a_guard_without_tasks_gives_no_verdict(browser, model, evil, tmp_path, monkeypatch):
    explorer, held = explorer_of(model, evil, tmp_path / "run"), Event()
    guarded = explorer.guarded
    monkeypatch.setattr(explorer, "guarded", lambda *asked: held.wait(20) and guarded(*asked))
    with serving(explorer) as address:
        tab = opened(browser, address)
        moved(tab, 0.9)
        assert tab.inner_text("#guarded") == "Reading the guard's text 'neutral'…"
        held.set()
        tab.wait_for_selector("#guarded >> text=KL from the unpruned model")
        names = tab.locator("#guarded thead th").all_inner_texts()
        assert names == ["unpruned", "clipped", "change, 95% interval"]
        moved_by = ask(address, "guard", edits=["2:mlp:0.9"])[1]["text"]["divergence"]
        *models, change = tab.locator("#guarded tbody tr >> nth=1").locator("td").all_inner_texts()
        assert models == ["–", "–"]
        assert change.startswith(f"{moved_by:.4f}")
        tab.close()


def test_what_is_of_another_rate_is_marked_and_not_tested(page, explorer, monkeypatch):
    moved(page, 0.9)
    assert page.locator("#test").is_enabled()
    held, look = Event(), explorer.look
    monkeypatch.setattr(explorer, "look", lambda *asked: held.wait(20) and look(*asked))
    page.fill("#exact-0", "0.5")
    for _ in range(2):
        assert page.locator("#test").is_disabled()
        assert page.locator("body.old").count() == 1
        told = [page.inner_text(f"#{part}") for part in ("verdict", "command", "python")]
        assert told == ["Reading…", "", ""]
        page.wait_for_timeout(400)  # now it is being read
    held.set()
    settled(page)
    assert "2:mlp:0.5" in page.inner_text("#command")
    assert page.locator("#test").is_enabled()
    page.fill("#exact-0", "5")
    assert page.inner_text("#verdict") == "A rate is at least 0 and less than 1."
    assert page.locator("#test").is_disabled()


def test_rows_that_turned_are_text_and_are_filtered(page):
    page.select_option("#part-0", "all")
    page.evaluate("document.getElementById('layer-0').value = 1")
    page.dispatch_event("#layer-0", "input")
    moved(page, 0.99)
    rows = page.locator("#turned li")
    assert rows.count() > 3
    assert EVIL in rows.first.inner_text()
    assert page.title().startswith("tiny-llama on")
    assert page.locator("#seen img, #seen td b, #seen td i").count() == 0
    kinds = page.locator("#turned .tag").all_inner_texts()
    assert {"fixed", "broken"} <= {*kinds}
    for kind in ("fixed", "broken"):
        page.select_option("#kind", kind)
        assert page.locator("#turned .tag").all_inner_texts() == [kind] * kinds.count(kind)
    page.select_option("#kind", "")
    page.select_option("#label", "<b>")
    told = page.locator("#turned .turn").all_inner_texts()
    assert all(text.endswith("right: <b>") for text in told)
    page.fill("#words", "no such words")
    assert rows.count() == 0


def test_two_tabs_do_not_mix(page, browser, address, explorer):
    other = opened(browser, address)
    moved(page, 0.9)
    moved(other, 0.5)
    moved(page, 0.95)
    assert seen(other) == evaluated(explorer, "2:mlp:0.5")
    assert seen(page) == evaluated(explorer, "2:mlp:0.95")
    assert "2:mlp:0.5" in other.inner_text("#command")
    other.close()


def test_a_closed_tab_stops_the_work_that_it_asked_for(browser, address, explorer, monkeypatch):
    begun, ended = Event(), Event()

    def look(edits, stop):
        begun.set()
        ended.set() if stop.wait(20) else None
        raise StoppedError

    tab = opened(browser, address)
    monkeypatch.setattr(explorer, "look", look)
    tab.fill("#exact-0", "0.9")
    tab.wait_for_timeout(400)
    assert begun.wait(5)
    assert not ended.is_set()
    tab.close()
    assert ended.wait(5)


def test_what_is_wrong_is_said_beside_the_form(page):
    page.click("#add")
    page.evaluate("document.getElementById('layer-1').value = 2")
    page.dispatch_event("#layer-1", "input")
    page.fill("#exact-1", "0.5")
    page.fill("#exact-0", "0.9")
    page.wait_for_selector("#status.wrong >> text=is named twice")
    page.click("#remove-1")
    settled(page)
    page.wait_for_selector("#status:not(.wrong)")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_it_is_for_everybody(browser, address, width, scheme):
    size = {"width": width, "height": 800}
    # Axe is put into the page, which lets nothing in by itself.
    tab = opened(browser, address, viewport=size, color_scheme=scheme, bypass_csp=True)
    moved(tab, 0.9)
    tab.click("#add")
    moved(tab, 0.5, number=1)
    tab.fill("#fields textarea", "good")
    tab.click("#ask")
    tab.wait_for_selector(".answer:nth-child(2)")
    tab.wait_for_selector("#guarded >> text=KL from the unpruned model")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert [
        (e["id"], e["nodes"][0]["html"], e["nodes"][0]["failureSummary"])
        for e in serious(faults(tab))
    ] == []
    tab.close()


def test_every_control_is_reached_without_a_mouse(page):
    moved(page, 0.9)
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = {"layer-0", "part-0", "cut-0", "rate-0", "exact-0", "add", "clear", "test"}
    assert wanted | {"kind", "label", "words", "field-0", "ask", "command"} <= reached
