"""Runs that the code before the refactoring made: today's reads them, reports them, and goes on
with them.

`freeze.py --runs` makes them anew. Do that only where old runs are given up on purpose.
"""

import csv
import json
import re
import shutil
import sqlite3
import struct
from contextlib import closing

import pytest

import eckart
from frozen.door import MODEL, command
from frozen.kept import frozen, same, steady, wording
from frozen.made import COMMANDS, RUNS, contents, lay_out

RECKONED = re.compile(r"^(?:tokens of|validation|test)\b.*\bdone|\b[1-9]\d* trials", re.MULTILINE)
"""What a search or a sweep says when it has read rows."""


@pytest.mark.parametrize("name", COMMANDS)
def test_reported(desk, name):
    run = lay_out(name, desk)
    before = contents(run)
    ended = command("report", run, "--json")
    assert ended.status == 0, ended.err
    eckart.report(run, desk / "cells.csv", format="csv")
    eckart.report(run, desk / "all.json", format="json")
    document = steady(json.loads(ended.out), desk)
    same(
        document,
        steady(json.loads((desk / "all.json").read_text(encoding="utf-8")), desk),
        "all.json",
    )
    frozen(
        f"reports/{name}", {"document": document, "cells": steady(_cells(desk / "cells.csv"), desk)}
    )
    assert contents(run) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_reported_in_words(desk, name):
    """Renew this wherever a wording was changed on purpose; the numbers are frozen above."""
    page = eckart.report(lay_out(name, desk), desk / "page.md", format="md").read_text(
        encoding="utf-8"
    )
    assert command("report", name).status == 0
    assert (desk / name / "report.html").stat().st_size > 1000
    shown = re.split(r"^## (?:Versions|Cost)$", page, flags=re.MULTILINE)[0]
    frozen(
        f"texts/report-{name}", [re.sub(r"\| [\d.]+ \|$", "| @ |", s) for s in wording(shown, desk)]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_gone_on_with(desk, name):
    """The same command reads no row, decomposes no matrix, and leaves every byte of what is
    kept."""
    run = lay_out(name, desk)
    _mark_spectra(run)
    before = contents(run)
    ended = command(*COMMANDS[name], name)
    assert ended.status == 0, ended.err
    assert not RECKONED.search(ended.err), ended.err
    assert contents(run) == before


@pytest.mark.parametrize("name", ["search", "race"])
def test_gone_on_with_wherever_the_model_lies(desk, name):
    shutil.copytree(RUNS / name, desk / name)
    before = contents(desk / name)
    ended = command(*COMMANDS[name], name)
    assert ended.status == 0, ended.err
    assert not RECKONED.search(ended.err), ended.err
    assert contents(desk / name)["trials"].keys() == before["trials"].keys()


@pytest.mark.parametrize(("name", "lost"), [("search", 2), ("race", 3), ("sweep", 7)])
def test_gone_on_with_where_it_was_cut_off(desk, name, lost):
    """What is there stays as it is, and what is missing comes out as it was."""
    run = lay_out(name, desk)
    whole = contents(run)
    # Spread over all, so that some of every kind are lost.
    gone = list(whole["trials"])[:: len(whole["trials"]) // lost][:lost]
    _forget(run, "trials", gone)
    ended = command(*COMMANDS[name], name)
    assert ended.status == 0, ended.err
    assert RECKONED.search(ended.err), ended.err
    _all_there_again(whole, contents(run), "trials", gone)


def test_a_spectrum_that_was_cut_off(desk):
    run = lay_out("spectrum", desk)
    whole = contents(run)
    gone = list(whole["spectra"])[::4]
    _forget(run, "spectra", gone)
    ended = command(*COMMANDS["spectrum"], "spectrum")
    assert ended.status == 0, ended.err
    _all_there_again(whole, contents(run), "spectra", gone)


def test_from_python(desk):
    """`eckart.search` goes on with what the command line began."""
    run = lay_out("search", desk)
    before = contents(run)
    task = eckart.Task.load("short.yaml", shots=0)
    eckart.search(str(MODEL), task, rates=[0.5, 0.9], dtype="float32", out=run)
    assert contents(run) == before


@pytest.mark.parametrize("name", ["search", "race"])
def test_another_rate_is_another_run(desk, name):
    run = lay_out(name, desk)
    before = contents(run)
    rates = COMMANDS[name].index("--rates") + 1
    ended = command(*COMMANDS[name][:rates], "0.5,0.75", *COMMANDS[name][rates + 1 :], name)
    assert ended.status == 2
    frozen(f"texts/refused-{name}", wording(ended.err, desk))
    assert contents(run) == before


def _cells(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _number(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mark_spectra(run):
    """Change what is kept of each spectrum: who decomposes a matrix again takes that back."""
    with closing(sqlite3.connect(run / "run.sqlite")) as database:
        database.execute(
            """UPDATE spectra SET spectrum = replace(spectrum, '"sigma_max": ', '"sigma_max": 1')"""
        )
        database.commit()


def _forget(run, table, keys):
    key = {"trials": "key", "spectra": "matrix"}[table]
    with closing(sqlite3.connect(run / "run.sqlite")) as database:
        database.executemany(f"DELETE FROM {table} WHERE {key} = ?", [[k] for k in keys])
        database.commit()


def _all_there_again(whole, now, table, gone):
    for name, rows in whole.items():
        assert now[name].keys() == rows.keys(), name
        for key, row in rows.items():
            if name == table and key in gone:
                same(_read(*row), _read(*now[name][key]), key)
            else:
                assert now[name][key] == row, f"{name} {key}"


def _read(text, numbers=None):
    """Return a row of the run as values: JSON, and float64 beside it."""
    values = [] if numbers is None else [x for (x,) in struct.iter_unpack("<d", numbers)]
    return [steady(json.loads(text)), values]
