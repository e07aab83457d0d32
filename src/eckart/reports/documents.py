"""JSON documents about a model."""

from __future__ import annotations

from typing import Any

from eckart.weights.anatomy import Anatomy, Weight


def anatomy_document(name: str, anatomy: Anatomy) -> dict[str, Any]:
    """Return a model's layers and matrices as JSON values.

    Arguments:
        name: hub id or path.
        anatomy: of a model, which may be on the meta device.
    """
    in_layers = {id(w.parameter): w.parameter.numel() for layer in anatomy.layers for w in layer}
    return {
        "model": name,
        "model_type": anatomy.model_type,
        "parameters": anatomy.parameters,
        "matrix_parameters": sum(in_layers.values()),
        "layers": [
            {"layer": index, "matrices": [_matrix(weight) for weight in layer]}
            for index, layer in enumerate(anatomy.layers)
        ],
    }


def _matrix(weight: Weight) -> dict[str, Any]:
    return {
        "name": weight.name,
        "part": weight.part,
        "shape": list(weight.shape),
        "fused": weight.fused,
        "tied": bool(weight.tied),
        "tied_to": list(weight.tied),
        "path": weight.path,
    }
