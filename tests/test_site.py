"""The site builds without a warning, has no link that leads nowhere, asks nobody outside, and Axe
finds nothing serious on it."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsing import chromium, faults, noting, serious

ROOT = Path(__file__).parents[1]
MAIN = ("index", "tutorial", "howto/csv", "reference/commands", "reference/python", "search")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return out


def test_every_link_of_the_site_leads_somewhere_inside_it(site):
    pages = {page: page.read_text(encoding="utf-8") for page in site.resolve().rglob("*.html")}
    marks = {
        page.resolve(): set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()
    }
    lost = []
    for page, text in pages.items():
        if page.name == "404.html":
            continue
        for link in map(unescape, re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            if re.match(r"https?:|mailto:|data:|javascript:", link):
                continue
            path, _, mark = link.partition("#")
            target = (
                (page.parent / unquote(path.partition("?")[0])).resolve()
                if path
                else page.resolve()
            )
            known = mark in ("", "__skip", "__comments") or unquote(mark) in marks.get(target, ())
            if not (target.exists() and known):
                lost.append(f"{page.relative_to(site.resolve())}: {link}")
    assert lost == []


def test_the_reference_has_every_verb_and_every_public_name(site):
    import eckart
    from eckart.cli.app import app

    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f">eckart {command.name or command.callback.__name__}<" in commands
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert {name for name in eckart.__all__ if f'.{name}"' not in python} == set()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_nobody_outside_is_asked(site, browser, scheme):
    page = noting(browser, color_scheme=scheme)
    for name in MAIN:
        page.goto((site / f"{name}.html").as_uri())
        shown = page.locator("body").get_attribute("data-md-color-scheme")
        assert shown == {"light": "default", "dark": "slate"}[scheme]
        found = {
            fault["id"]: [node["html"] for node in fault["nodes"]][:3]
            for fault in serious(faults(page))
        }
        assert found == {}, name
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def found(page, words: str) -> list[str]:
    """Return the pages that a search shows, the first first."""
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.wait_for_selector(".md-search-result__link", timeout=20_000)
    page.wait_for_timeout(1000)
    links = page.locator(".md-search-result__item > .md-search-result__link")
    return [link.get_attribute("href").partition("?")[0] for link in links.all()]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("McNemar", ""),
        ("I have a CSV", "howto/csv.html"),
        ("Is this gain real?", "howto/gain.html"),
        ("Add an architecture", "howto/architecture.html"),
    ],
)
def test_the_search_answers_without_a_network_and_finds_a_page_by_its_title(
    site, browser, words, first
):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    assert found(page, words)[0].endswith(first)
    page.close()
