"""The verb `theory check`: its table, its document, and how it ends."""

import json
import subprocess
import sys

import pytest

from eckart.paper.theory import inequalities
from eckart.paper.theory.claims import Claims


def test_the_table_has_every_statement(eckart):
    ended = eckart("theory", "check", "--instances", "20")
    assert ended.status == 0, ended.err
    for word in (
        "Lemma 1",
        "Theorem 1",
        "Theorem 2",
        "Eq. (20)",
        "Example 4",
        "holds",
        "false",
        "20 instances each",
    ):
        assert word in ended.out
    assert "FAILED" not in ended.out


def test_the_document(eckart):
    ended = eckart("theory", "check", "--instances", "30", "--seed", "5", "--json")
    document = json.loads(ended.out)
    assert ended.status == 0
    assert (document["instances"], document["seed"], document["failed"]) == (30, 5, 0)
    fields = {"statement", "reference", "kind", "instances", "residual", "verdict"}
    assert all(set(check) == fields for check in document["checks"])
    assert {check["kind"] for check in document["checks"]} == {"identity", "inequality", "slip"}


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_statement_that_fails_ends_with_1_and_one_line(eckart, monkeypatch, how):
    claims = Claims("inequality")
    claims("two is at most one", "Eq. (0)")(lambda x: x.scale + 1)
    monkeypatch.setattr(inequalities, "claims", claims)
    ended = eckart("theory", "check", "--instances", "20", *how)
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert "1 of" in ended.err
    assert "Eq. (0), two is at most one (residual" in ended.err
    assert "FAILED" in ended.out


@pytest.mark.parametrize("wrong", [["--instances", "3"], ["--seed", "-1"], ["--instances", "many"]])
def test_wrong_options_are_refused(eckart, wrong):
    ended = eckart("theory", "check", *wrong)
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1


def test_the_verb_needs_neither_torch_nor_transformers():
    program = (
        "import sys; from eckart.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    arguments = ["theory", "check", "--instances", "20"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip().endswith("[]")
