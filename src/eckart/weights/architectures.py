"""The meaning of a decoder layer's parameters: by its model type in `architectures.yaml`, or by its
structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import PreTrainedConfig

from eckart.errors import ModelError


@dataclass(frozen=True)
class Rule:
    """What `architectures.yaml` says of a parameter: which matrices its output rows are, in what
    order."""

    names: tuple[str, ...]
    each: str | None = None
    transposed: bool = False
    expert: str | None = None

    @classmethod
    def parse(cls, value: str | list[str] | dict[str, Any]) -> Rule:
        if isinstance(value, dict):
            return cls(**{**value, "names": tuple(value["names"])})
        return cls(names=(value,) if isinstance(value, str) else tuple(value))


@cache
def table() -> Mapping[str, Mapping[str, Rule]]:
    """Return the rules of every model type in `architectures.yaml`, by a parameter's name in its
    layer."""
    entries = _data()["architectures"]
    return {
        kind: {path: Rule.parse(value) for path, value in rules.items()}
        for kind, rules in entries.items()
    }


@cache
def _data() -> dict[str, Any]:
    return yaml.safe_load(
        files("eckart.weights").joinpath("architectures.yaml").read_text(encoding="utf-8")
    )


def rules_of(block: nn.Module, layer: int, config: PreTrainedConfig) -> Mapping[str, Rule]:
    """Return what a layer's parameters are, by their names in it; a ModelError where the model type
    is not in the table, and a name and a shape do not tell."""
    known = table()
    kind = config.model_type
    return known[kind] if kind in known else _structure(block, layer, config)


def projections(block: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Give every parameter of a layer that is, or may hold, a projection: no vectors, no norms
    (Cohere's has a row a head), no biases (an expert's has a row an expert)."""
    for path, parameter in block.named_parameters(remove_duplicate=False):
        owner, _, leaf = path.rpartition(".")
        norm = "norm" in owner.rpartition(".")[2]
        if parameter.ndim >= 2 and not norm and not leaf.endswith("bias"):
            yield path, parameter


def cut(rule: Rule, out: int, path: str, config: PreTrainedConfig) -> dict[str, Tensor]:
    """Return which of a fused parameter's output rows belong to which matrix.

    The rows are equal groups, and each group holds a piece of every matrix. One group: the matrices
    stand one below the other. A group for each key head: its query heads, the key head, the value
    head.
    """
    heads, key_heads = _heads(out, path, config) if "q" in rule.names else (1, 1)
    shares = [heads if name == "q" else key_heads for name in rule.names]
    if out % sum(shares):
        raise ModelError(
            f"{path} has {out} output rows, which {' and '.join(rule.names)} do not share evenly"
        )
    groups = {None: 1, "key_head": key_heads, "row": out // sum(shares)}[rule.each]
    sizes = [out // groups * share // sum(shares) for share in shares]
    pieces = torch.arange(out).reshape(groups, -1).split(sizes, dim=1)
    return {name: piece.reshape(-1) for name, piece in zip(rule.names, pieces, strict=True)}


def _heads(out: int, path: str, config: PreTrainedConfig) -> tuple[int, int]:
    """Return how many query heads and key heads a fused parameter of `out` rows holds.

    Configs name the number of key heads in many ways, and some hold one that is not used; the shape
    says it.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads, rest = divmod(out - heads * size, 2 * size)
    if rest or key_heads < 1 or heads % key_heads:
        raise ModelError(
            f"{path} has {out} output rows, which are not {heads} query heads of {size} rows and as"
            " many key heads as value heads; the config does not fit the weights"
        )
    return heads, key_heads


def _structure(block: nn.Module, layer: int, config: PreTrainedConfig) -> dict[str, Rule]:
    """Read off their names and shapes what a layer's matrices are, or say which cannot be read."""
    known = {
        ending: name for name, endings in _data()["common_names"].items() for ending in endings
    }
    found: dict[str, str] = {}
    for path, parameter in projections(block):
        owner, _, leaf = path.rpartition(".")
        steps = owner.split(".")
        name = known.get(".".join(steps[-2:])) or known.get(steps[-1])
        # A reader of the hidden states has their width as its input, a writer as its output.
        width = parameter.shape[0 if name in ("o", "down", "fc_out") else -1]
        linear = leaf == "weight" and isinstance(block.get_submodule(owner), nn.Linear)
        if name is None or not linear or width != getattr(config, "hidden_size", width):
            seen = ", ".join(f"{other} {tuple(p.shape)}" for other, p in projections(block))
            raise ModelError(
                f"model type '{config.model_type}' is not in architectures.yaml, and what {path} is"
                f" cannot be read off its name and shape; layer {layer} holds {seen}"
            )
        found[path] = name
    ungated = {} if "gate" in found.values() else {"up": "fc_in", "down": "fc_out"}
    return {path: Rule((ungated.get(name, name),)) for path, name in found.items()}
