"""The contract of ledgers: what keeps trials, rows and spectra, here or on a worker."""

from dataclasses import replace
from pathlib import Path

import pytest
from samples import trial

from eckart.records import Row, Rows
from eckart.runs import RunStore
from eckart.sweeps.cluster import Remote
from eckart.weights.spectrum import Noted, Spectra

ROWS = Rows(("bad", "good"), (Row("test:0", "the view", 1), Row("test:1", "the food", 0)))
TRIAL = trial("key", rows=ROWS.digest)
SETTING = TRIAL.setting
ELSEWHERE = replace(SETTING, model="the-same-model-by-another-name")
SPECTRUM = {"layer": 0, "sigma_max": 2.0}


def store(folder: Path) -> RunStore:
    return RunStore(folder, {})


def noted(folder: Path) -> Noted:
    return Noted(store(folder))


def remote(folder: Path) -> Remote:
    return Remote()


@pytest.fixture(params=[store, remote], ids=["store", "remote"])
def ledger(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture(params=[store, remote, noted], ids=["store", "remote", "noted"])
def spectra(request, tmp_path) -> Spectra:
    return request.param(tmp_path)


class TestTrials:
    def test_what_is_not_kept_is_not_known(self, ledger):
        assert ledger.trial("key") is None
        assert ledger.keep_same("key", ELSEWHERE) is None

    def test_what_is_kept_is_known_by_its_key(self, ledger):
        ledger.keep(TRIAL)
        ledger.keep(replace(TRIAL, key="other", edits=()))
        known = ledger.trial("key")
        assert replace(known, score=None) == replace(TRIAL, score=None)
        assert known.score.merits == TRIAL.score.merits

    def test_a_failed_trial_is_kept_with_its_cause(self, ledger):
        failed = replace(TRIAL, status="failed", score=None, error="it overflows")
        ledger.keep(failed)
        assert ledger.trial("key") == failed

    def test_the_first_settings_trial_stays_under_the_key(self, ledger):
        ledger.keep(TRIAL)
        ledger.keep_same("key", ELSEWHERE)
        assert ledger.trial("key").setting == SETTING


class TestRows:
    def test_are_known_by_their_digests(self, ledger):
        for _ in range(2):
            ledger.keep_rows(ROWS)
        kept = ledger.rows if isinstance(ledger, Remote) else set(ledger.row_digests())
        assert kept == {ROWS.digest}


class TestSpectra:
    def test_are_known_once_they_are_kept(self, spectra):
        assert isinstance(spectra, Spectra)
        assert spectra.spectrum("q") is None
        spectra.keep_spectrum("q", SPECTRUM)
        assert spectra.spectrum("q") == SPECTRUM
        assert spectra.spectrum("k") is None

    def test_the_last_word_counts(self, spectra):
        spectra.keep_spectrum("q", SPECTRUM)
        spectra.keep_spectrum("q", {**SPECTRUM, "layer": 1})
        assert spectra.spectrum("q")["layer"] == 1


def test_what_a_remote_ledger_was_told_makes_a_store_the_same(tmp_path):
    """A worker's ledger is drained into the driver's: what is then known is known of both."""

    def tell(ledger) -> None:
        ledger.keep_rows(ROWS)
        ledger.keep_spectrum("q", SPECTRUM)
        ledger.keep(TRIAL)
        ledger.keep_same("key", ELSEWHERE)

    there = remote(tmp_path)
    tell(there)
    with store(tmp_path / "drained") as drained, store(tmp_path / "told") as told:
        for method, values in there.drained():
            getattr(drained, method)(*values)
        tell(told)
        assert there.drained() == []
        assert list(drained.trials()) == list(told.trials())
        assert len(list(drained.trials())) == 2
        assert drained.trial("key") == TRIAL
        assert drained.row_digests() == told.row_digests()
        assert drained.spectra() == told.spectra()
