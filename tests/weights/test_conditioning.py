"""Spectra: measured once, known by the bytes that they are of."""

from dataclasses import replace

import pytest
import torch
from families import build

from eckart.errors import EditError
from eckart.runs import RunStore
from eckart.weights import spectrum as measuring
from eckart.weights.anatomy import Anatomy
from eckart.weights.conditioning import MatrixSpectrum
from eckart.weights.spectrum import matrices, measure, spectra


@pytest.fixture
def anatomy():
    return Anatomy.of(build("llama"))


@pytest.fixture
def measured(monkeypatch):
    """The labels of the matrices that are measured."""
    real, labels = measuring._measure, []
    monkeypatch.setattr(
        measuring, "_measure", lambda w, *rest: (labels.append(w.label), real(w, *rest))[1]
    )
    return labels


def test_which_matrices(anatomy):
    assert len(matrices(anatomy)) == 21
    assert [(w.layer, w.name) for w in matrices(anatomy, "attn", [2, -3, -1, 2])] == [
        (layer, name) for layer in (0, 2) for name in "qkvo"
    ]
    with pytest.raises(EditError, match="no layer 3"):
        matrices(anatomy, "attn", [3])


def test_a_store_remembers(anatomy, measured, tmp_path):
    with RunStore(tmp_path, {}) as store:
        first = spectra(matrices(anatomy), store=store)
        assert len(measured) == 21
        assert spectra(matrices(anatomy), store=store) == first
        assert len(measured) == 21
    assert first == spectra(matrices(anatomy)) == [measure(weight) for weight in matrices(anatomy)]


@pytest.mark.parametrize("change", ["number", "dtype"])
def test_another_checkpoint_of_the_same_names_is_measured_anew(anatomy, measured, tmp_path, change):
    weight = matrices(anatomy, "q", [1])[0]
    with RunStore(tmp_path, {}) as store:
        before = spectra([weight], store=store)[0]
        if change == "number":
            with torch.no_grad():
                weight.parameter[3, 4] += 1
        else:
            weight.parameter.data = weight.parameter.data.bfloat16()
        after = spectra([weight], store=store)[0]
    assert len(measured) == 2
    assert after == measure(weight) != before


def test_what_storage_made_is_told_and_survives_json(anatomy):
    weight = matrices(anatomy, "up", [0])[0]
    fine = measure(weight)
    assert fine.resolved
    coarse = replace(fine, shape=(4, 4), sigma_max=1.0, sigma_min=1e-3, rank=4, rounding=2e-3)
    assert not coarse.resolved
    assert coarse.to_json()["resolved"] is False
    for spectrum in (fine, coarse):
        assert MatrixSpectrum.from_json(spectrum.to_json()) == spectrum
    assert not replace(coarse, sigma_min=1e-17, rank=3, rounding=0.0).resolved
