"""A browser for the tests of pages, and what they ask of one."""

import shutil
from contextlib import contextmanager

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium():
    """Give a browser; the test is skipped where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def noting(browser, **how):
    """Return an empty page that notes what it says and whom it asks."""
    page = browser.new_page(**how)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    return page


def faults(page):
    """Return what Axe finds on a page; the test is skipped where there is no Axe."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    return axe.Axe().run(page).response["violations"]


def serious(found):
    """Return those of Axe's findings that shut somebody out."""
    return [fault for fault in found if fault["impact"] in ("serious", "critical")]
