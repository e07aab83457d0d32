"""Loading a model of functions: a folder, a training's folder, a live model, or one that comes with
the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eckart.errors import ModelError
from eckart.files import home
from eckart.paper.functions.models import (
    FunctionModel,
    InContextModel,
    LinearAttentionModel,
    without_bars,
)
from eckart.paper.functions.training import STATE, kept_models
from eckart.weights.loading.accounts import load_accounted
from eckart.weights.loading.files import Checkpoint, check_source
from eckart.weights.loading.live import check_evaluation_mode
from eckart.weights.models import LoadedModel, pick_device

SHIPPED = Path(__file__).with_name("trained")
"""The models that come with the package, a folder each."""
KINDS: dict[str, type[Any]] = {"gpt2": InContextModel, "linear_attention": LinearAttentionModel}


def load_function_model(source: str | Path | FunctionModel, device: str = "cpu") -> FunctionModel:
    """Load a model of functions, in evaluation mode.

    Arguments:
        source: a folder as `save_pretrained` wrote it; a training's folder, of which the last kept
            model is meant; the name of one that comes with the package (`shipped_models`); or a
            live model, which stays where it is.
        device: see `load_model`.

    Raises:
        ModelError: there is no such model, it is incomplete or damaged, or it is no model of
            functions; or a live one is in training mode.
    """
    if isinstance(source, InContextModel | LinearAttentionModel):
        check_evaluation_mode(source)
        return source
    target, folder = pick_device(device), _find_folder(str(home(source)))
    model = _load_folder(folder)
    model.to(target)  # type: ignore[arg-type]
    return model.eval()  # type: ignore[no-untyped-call]


def loaded_model(source: str | Path | FunctionModel, device: str = "cpu") -> LoadedModel:
    """Load a model of functions as a search or a sweep takes it, called what it was asked for
    by."""
    model = load_function_model(source, device)
    name = type(model).__name__ if source is model else str(source)
    return LoadedModel(model, tokenizer=None, name=name, live=True)


def function_of(model: FunctionModel) -> str:
    """Return the class of functions that a model was trained on; `linear` where its configuration
    does not say."""
    return getattr(model.config, "function", "linear")


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))


def training_models(source: str | Path) -> dict[int, Path]:
    """Return the models of a training's folder, by the number of steps; a ModelError where it is no
    training's, or no model was kept yet."""
    folder = home(source)
    if not _is_training(folder):
        raise ModelError(
            f"'{source}' is no training's folder (no {STATE}); give the --out of `eckart functions"
            " train`"
        )
    kept = kept_models(folder)
    if not kept:
        raise ModelError(
            f"training '{source}' has not come to its first checkpoint; let the same command go on"
        )
    return kept


def _is_training(folder: Path) -> bool:
    return (folder / STATE).is_file() or bool(kept_models(folder))


def _find_folder(source: str) -> Path:
    if Path(source).exists():
        if _is_training(Path(source)):
            return list(training_models(source).values())[-1]
        check_source(source)
        return Path(source)
    if source not in shipped_models():
        names = ", ".join(shipped_models()) or "none"
        raise ModelError(
            f"no model '{source}': there is no such folder, and the models that come with the"
            f" package are {names}"
        )
    return SHIPPED / source


def _load_folder(folder: Path) -> FunctionModel:
    checkpoint = Checkpoint(str(folder))
    kind = KINDS.get(checkpoint.config.get("model_type", ""))
    if kind is None or "dimension" not in checkpoint.config:
        raise ModelError(
            f"model '{folder}' is no model of functions (its config.json has no dimension, or"
            f" another model_type than {' or '.join(KINDS)}); give what `eckart functions train`"
            " wrote"
        )
    with without_bars():
        model: FunctionModel = load_accounted(checkpoint, kind)
    return model
