"""Rates that leave the same rank of every matrix are one edit."""

import pytest
from families import build, save_family, tiny_tokenizer

from eckart import Anatomy, search
from eckart.records import Edit
from eckart.selection.alike import alike_rates, apart
from eckart.sweeps.cost import expected_trials
from eckart.sweeps.files import read_study
from eckart.sweeps.sources import Sources, settle
from eckart.sweeps.sweep import run_sweep

# Of 32 singular values 3, 1, 1 and 1 stay.
RATES = [0.9, 0.95, 0.99, 0.995]
SAID = (
    "rates 0.95, 0.99 and 0.995 leave the same rank of every matrix of {}: they are one edit,"
    " tried and counted once, as 0.95"
)


def test_two_rates_are_one_edit_only_where_every_matrix_keeps_the_same_rank():
    anatomy = Anatomy.of(build("llama"))
    edits = [Edit(layer, part, rate) for layer in (0, 1) for part in ("k", "mlp") for rate in RATES]
    each = ("k:0.9", "mlp:0.9", "mlp:0.95")  # k has 16 singular values
    different = [f"{layer}:{edit}" for layer in (0, 1) for edit in each]
    assert [str(edit) for edit in apart(anatomy, edits)] == different
    assert alike_rates(anatomy, edits)[1:] == [SAID.format("mlp")]
    assert not alike_rates(anatomy, apart(anatomy, edits))


@pytest.mark.parametrize("how", [{}, {"race": True}])
def test_a_search_tries_them_once_and_says_so(task, how):
    found = search(
        build("llama"),
        task,
        rates=RATES,
        layer=1,
        tokenizer=tiny_tokenizer(),
        dtype="float32",
        **how,
    )
    assert [candidate.rate for candidate in found.candidates] == [0, 0.9, 0.95]
    assert found.tried() == "2 clipping rates"
    assert SAID.format("mlp") in found.notes


def test_a_greedy_search_counts_them_once(task):
    found = search(
        build("llama"),
        task,
        rates=RATES,
        layer=1,
        strategy="greedy",
        minutes=1e-9,
        tokenizer=tiny_tokenizer(),
    )
    assert list(map(str, found.course.candidates)) == ["1:mlp:0.9", "1:mlp:0.95"]
    assert SAID.format("mlp") in found.notes


def test_a_sweep_tries_them_once_and_says_so_once_a_model(mood, tmp_path):
    model = str(save_family("llama", tmp_path / "tiny"))
    said = {
        "models": [model],
        "data": str(mood),
        "label_column": "label",
        "layers": "0,1",
        "parts": "mlp",
        "rates": "0.9,0.95,0.99,0.995",
        "shots": "0",
        "split_sizes": "30,30",
        "test": "all",
    }
    sources, told = Sources(), []
    grid = settle(read_study(None, said), sources)
    expected = expected_trials(grid, tmp_path / "run", sources)
    result = run_sweep(grid, tmp_path / "run", sources, tell=told.append)
    tried = {trial.edits for trial in result.run.trials.values() if not trial.split.is_part}
    assert {edit.rate for (edit,) in tried - {()}} == {0.9, 0.95}
    assert expected == 2 * len(tried)
    assert [line for line in told if "one edit" in line] == [f"tiny: {SAID.format('mlp')}"]
