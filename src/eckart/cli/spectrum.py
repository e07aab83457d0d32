"""The spectra of a whole model, read from its checkpoint a matrix at a time, and kept as they are
done."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from eckart.cli.console import print_json, progress_bar, say, say_run, show, typed
from eckart.files import home
from eckart.reports.figures import condition_curves, draw_condition_numbers, save_figure
from eckart.reports.results import spectrum_report
from eckart.runs import RunStore
from eckart.weights.conditioning import MatrixSpectrum
from eckart.weights.models import pick_device
from eckart.weights.spectrum import Noted, matrices, spectra
from eckart.weights.stored import StoredWeights

# Any model's spectra may lie in one folder: a matrix is known by its bytes, and a model by those
# that it was made of.
SETTINGS = {"kind": "spectrum"}


def run_spectrum(
    stored: StoredWeights,
    part: str,
    layers: list[int] | None,
    device: str,
    folder: Path,
    figure: Path,
    as_json: bool,
) -> None:
    """Measure a model's matrices, and show, draw and keep what came of it.

    Arguments:
        stored: the checkpoint.
        part, layers: which matrices.
        device: where to compute.
        folder: keeps every spectrum, from which a stopped command goes on, and `result.json`.
        figure: where the condition numbers are drawn.
        as_json: print one JSON document instead of a table.

    Raises:
        EckartError: there is no such part, layer or device, the folder is not usable, or the
            weights are not.
    """
    target, weights = pick_device(device), matrices(stored.anatomy, part, layers)
    say_run(folder)
    with RunStore(folder, SETTINGS, typed()) as store:
        with progress_bar("spectra", len(weights)) as advance:
            noted = Noted(store, partial(_note, store, stored.name))
            found = spectra(stored.read(weights), store=noted, device=target, advance=advance)
        document = _document(stored, folder, figure, found)
        store.write("result.json", json.dumps(document, indent=2) + "\n")
    save_figure(draw_condition_numbers(condition_curves(found), Path(stored.name).name), figure)
    if as_json:
        print_json(document)
        return
    show(spectrum_report(found))
    say(f"figure: {figure}")


def _note(store: RunStore, name: str, matrices: list[str]) -> None:
    """Keep which spectra are a model's as it is now: before, it may have had other weights."""
    folder = home(name)
    store.keep_model(str(folder.resolve()) if folder.exists() else name, {"spectra": matrices})


def _document(
    stored: StoredWeights, folder: Path, figure: Path, found: list[MatrixSpectrum]
) -> dict[str, object]:
    return {
        "model": stored.name,
        "run": str(folder),
        "figure": str(figure),
        "loaded_whole": stored.whole,
        "matrices": [matrix.to_json() for matrix in found],
    }
