"""The table: every statement is as it is said to be, on any instances; and one that is not would be
found."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eckart import EckartError
from eckart.paper.theory import checks, identities, slips
from eckart.paper.theory.checks import failures, run_checks
from eckart.paper.theory.claims import Claims, Instances, difference, excess, falls


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_statement_is_as_it_is_said_to_be(seed):
    found = run_checks(instances=200, seed=seed)
    assert failures(found) == []
    for check in found:
        if check.kind == "slip":
            assert (check.instances, check.verdict) == (1, "false")
            assert check.residual > 0.1
        else:
            assert (check.instances, check.verdict) == (200, "holds")
            assert check.residual <= 1e-10
    assert len({check.statement for check in found}) == len(found) > 50


def test_the_same_seed_gives_the_same_table():
    assert run_checks(50, seed=3) == run_checks(50, seed=3)
    assert run_checks(50, seed=3) != run_checks(50, seed=4)


def test_every_slip_of_the_design_is_in_the_table():
    places = {check.reference for check in run_checks(20) if check.verdict == "false"}
    assert {"Theorem 1", "Eq. (20)", "Example 1 (**)", "Theorem 2"} <= places


def test_what_is_equal_only_nearly_fails(monkeypatch):
    claims = Claims("identity")
    claims("one is a little more than one", "Eq. (0)")(
        lambda x: difference(np.full(len(x.h), 1 + 1e-9), np.ones(len(x.h)))
    )
    monkeypatch.setattr(identities, "claims", claims)
    (failed,) = failures(run_checks(20))
    assert (failed.statement, failed.verdict) == ("one is a little more than one", "FAILED")


def test_a_residual_that_is_no_number_fails(monkeypatch):
    claims = Claims("inequality")
    claims("nothing", "Eq. (0)")(lambda x: np.full(len(x.h), np.nan))
    monkeypatch.setattr(identities, "claims", claims)
    (failed,) = failures(run_checks(20))
    assert failed.to_json()["residual"] is None


def test_a_slip_without_a_counter_example_fails(monkeypatch):
    claims = Claims("slip")
    claims("true, after all", "Eq. (0)")(lambda: 0.0)
    monkeypatch.setattr(slips, "claims", claims)
    assert [check.statement for check in failures(run_checks(20))] == ["true, after all"]


def test_a_mistake_in_the_mathematics_is_found(monkeypatch):
    """Drop the test token's own key from the softmax: the dual is no longer Eq. (2)."""
    right = identities.softmax_dual
    monkeypatch.setattr(
        identities,
        "softmax_dual",
        lambda v, k, q, others, s=1.0: right(v, k, q, others[..., :0], s),
    )
    assert "Eq. (2), (12)" in {check.reference for check in failures(run_checks(20))}


def test_residuals():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 5.0]])
    assert difference(a, b).tolist() == [0.0, 1 / np.sqrt(34)]
    assert excess(np.array([1.0, 3.0]), np.array([2.0, 2.0])).tolist() == [-0.5, 0.5]
    nearly_nothing = difference(
        np.array([[1.0], [1.0], [2e-15]]), np.array([[1.0], [1.0], [1e-15]])
    )
    assert nearly_nothing.max() < 1e-14
    assert difference(np.zeros((2, 1)), np.zeros((2, 1))).tolist() == [0, 0]
    assert falls(np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 2.0]])).tolist() == [-0.25, 0.5]


def test_instances_are_of_the_size_that_is_asked_for():
    drawn = Instances.draw(np.random.default_rng(0), batch=7, d=3, n=4)
    assert drawn.demonstrations.shape == (7, 3, 4)
    assert drawn.gradients.shape == (7, 9, 4)
    grads = drawn.gradients.mean(axis=-1).reshape(7, 3, 3)
    np.testing.assert_allclose(grads, drawn.path.steps[:, 0], rtol=1e-9)
    assert replace(drawn, shots=1).shots == 1


@pytest.mark.parametrize(("instances", "seed"), [(9, 0), (100, -1)])
def test_too_few_instances_are_refused(instances, seed):
    with pytest.raises(EckartError, match=f"{instances} instances with seed {seed}"):
        run_checks(instances, seed)


def test_instances_are_spread_over_all_sizes():
    assert sum(checks._parts(1003)) == 1003
    assert min(checks._parts(1003)) == 100


def test_the_page_shows_the_table_that_is_printed():
    page = (Path(__file__).parents[3] / "docs" / "theory.md").read_text(encoding="utf-8")
    assert [check.statement for check in run_checks(20) if check.statement not in page] == []


def test_the_theory_needs_no_torch():
    heavy = "{'torch', 'transformers', 'matplotlib'}"
    program = f"import sys, eckart.paper.theory.checks; print({heavy} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"
