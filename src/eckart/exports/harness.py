"""The model that lm-evaluation-harness calls `eckart`: one of the hub's, or of a folder, with
edits.

`python -m eckart.exports.harness` is its own command line, which then knows the model; from Python,
`register` tells it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any, NoReturn

from eckart.errors import EckartError, EditError, how_to_install
from eckart.exports.recipe import Recipe
from eckart.records import Edit

NAME = "eckart"
JOINED_BY = "+"
"""Stands between edits: a comma ends a model argument of lm-evaluation-harness."""


def parse_edits(text: str) -> list[Edit]:
    """Read edits as model arguments have them; an EditError where they are none.

    >>> parse_edits("26:mlp:0.95+25:attn:0.5")
    [Edit(layer=26, part='mlp', rate=0.95), Edit(layer=25, part='attn', rate=0.5)]
    """
    return [Edit.parse(edit) for edit in str(text).split(JOINED_BY)]


def register() -> None:
    """Let lm-evaluation-harness know the model, so that `simple_evaluate(model="eckart")` finds
    it."""
    from lm_eval.api.registry import model_registry, register_model

    if NAME not in model_registry:
        register_model(NAME)(_model_class())


def _model_class() -> type[Any]:
    """Return the class, whose base is of a package that need not be there."""
    from lm_eval.models.huggingface import HFLM

    from eckart.weights.edits import clip_

    class Clipped(HFLM):  # type: ignore[misc]
        """Its own loader's model, clipped in place.

        Arguments:
            pretrained: a hub id or a folder.
            edits: what is clipped, such as `26:mlp:0.95`; several are joined by `+`.
            recipe: `eckart.json`, or the folder of one, whose base model and edits these are.
            options: those of its model `hf`: dtype, batch_size, trust_remote_code, ...
        """

        def __init__(
            self, pretrained: Any = None, edits: str = "", recipe: str = "", **options: Any
        ) -> None:
            if recipe:
                read = Recipe.read(recipe)
                pretrained, edits = pretrained or read.model, JOINED_BY.join(read.edits)
                options = {"revision": read.revision or "main", **options}
            if not edits:
                raise EditError(
                    "no edits for lm-evaluation-harness's model 'eckart': give them as"
                    " edits=26:mlp:0.95 or recipe=FOLDER, or take its model 'hf'"
                )
            chosen = parse_edits(edits)
            super().__init__(pretrained, **options)
            clip_(self.model, chosen)

    return Clipped


def main() -> None:
    """Run lm-evaluation-harness's command line with the model `eckart` among its own."""
    if find_spec("lm_eval") is None:
        _end(f"lm-evaluation-harness is not installed: {how_to_install('lm-eval')}")
    from lm_eval.__main__ import cli_evaluate

    register()
    try:
        cli_evaluate()
    except EckartError as error:
        _end(str(error))


def _end(said: str) -> NoReturn:
    print(f"error: {said}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
