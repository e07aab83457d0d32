"""The explorer's page, served as the verb serves it, and opened in a browser."""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from threading import Event
from unittest.mock import patch

import pytest
from browsing import noting

from eckart import Task
from eckart.cli.explore.elsewhere import Elsewhere
from eckart.cli.explore.explorer import Explorer, StoppedError
from eckart.cli.explore.server import listening, page_of
from eckart.scoring.evaluator import Evaluator
from eckart.selection.plan import GuardOptions
from eckart.tasks.spec import DrawnTask
from eckart.weights.models import load_model
from eckart.weights.options import ModelOptions, ReadingOptions


def explorer_of(model, table, folder, rows=400, guard=(), **said) -> Explorer:
    own = {"data": str(table), "text_column": "review", "label_column": "verdict", "shots": 2}
    said = DrawnTask.of({**own, **said}, "the test")
    evaluator = Evaluator(load_model(model, dtype="float32"), Task.of(said))
    words = ("explore", str(model), "--data", str(table), "--text-column", "review")
    words = (*words, "--label-column", "verdict", "--shots", "2", "--dtype", "float32")
    guarding = GuardOptions(guard_task=guard, guard=True)
    elsewhere = Elsewhere(
        (*words, "--port", "0", "--open", f"--out={folder}", "--row", str(rows)),
        str(model),
        said,
        None,
        ReadingOptions(),
        ModelOptions(dtype="float32"),
        guarding,
    )
    return Explorer(evaluator, elsewhere, guarding, folder, rows)


@contextmanager
def serving(explorer):
    """Serve a page in a thread, and give its address."""
    with listening("127.0.0.1", 0) as bound:
        address, server, desk = page_of(explorer, bound)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()
            assert desk.close(60)


def interrupt(explorer, choice):
    """Stop a test of a choice between the test rows and its result."""
    stop = Event()
    stopped = patch.object(explorer.guard, "look", lambda *_: stop.set() or explorer.watch.check())
    with stopped, pytest.raises(StoppedError):
        explorer.test(choice, stop)


def ask(address, what, **said):
    """Return the status and the answer to what a tab asks."""
    request = urllib.request.Request(
        f"{address}ask/{what}",
        json.dumps({"tab": "one", **said}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def opened(browser, address, **how):
    """Return a page, once the unpruned model was read, that notes what it said and asked for."""
    page = noting(browser, **how)
    page.goto(address)
    settled(page)
    return page


def settled(page):
    """Wait until a look has ended."""
    page.wait_for_selector("body:not(.busy):not(.old) #verdict:not(:empty)")
