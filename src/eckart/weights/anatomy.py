"""The weight matrices of a decoder: each one a view of a parameter, whatever the architecture calls
it.

Nothing above this module knows an architecture's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from eckart.errors import EditError, ModelError
from eckart.records import ATTENTION, PARTS
from eckart.weights.architectures import Rule, cut, projections, rules_of
from eckart.weights.loading.config import MERGE_IT, UNQUANTISED, quantised

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PACKED_MODULES = re.compile(
    r"4bit|8bit|quant(?!izable)|gptq|awq|wqlinear|hqq|fp8|marlin|exllama", re.IGNORECASE
)
Aliases = Mapping[tuple[str, int], list[str]]


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight matrix of one layer, seen as (out_features, in_features): a view, not a copy.

    Arguments:
        name: `q k v o gate up down fc_in fc_out`, of an expert with its number: `gate[3]`,
            `gate[shared]`.
        layer: 0-based.
        path: the parameter's name in the model.
        parameter: what holds the matrix; fused, it holds other matrices too.
        rows: (m,), which output rows of the parameter are this matrix's; None for all of them.
        expert: which matrix of a 3-D parameter (experts, m, n); None for a 2-D parameter.
        transposed: the parameter is stored (in, out), as GPT-2's Conv1D does.
        tied: other names of the same parameter; a change here shows there.
        steps: of the parameter's shape: how far apart the numbers lie that a quantisation could
            have put in each place; None where there was none.
    """

    name: str
    layer: int
    path: str
    parameter: nn.Parameter = field(repr=False)
    rows: Int[Tensor, " m"] | None = field(default=None, repr=False)
    expert: int | None = None
    transposed: bool = False
    tied: tuple[str, ...] = ()
    steps: Tensor | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """The name without an expert's number."""
        return self.name.partition("[")[0]

    @property
    def part(self) -> str:
        """`attn` or `mlp`."""
        return "attn" if self.kind in ATTENTION else "mlp"

    @property
    def fused(self) -> bool:
        """Whether the parameter's rows also hold other matrices."""
        return self.rows is not None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) = (out_features, in_features)."""
        m, n = self._whole().shape
        return (m if self.rows is None else len(self.rows), n)

    @property
    def key(self) -> str:
        """The path and the name: what tells this matrix from every other of its model."""
        return f"{self.path}:{self.name}"

    @property
    def label(self) -> str:
        """What messages call the matrix, such as
        `layer 3 q (model.layers.3.self_attn.q_proj.weight)`."""
        return f"layer {self.layer} {self.name} ({self.path})"

    @torch.no_grad()
    def read(self) -> Float[Tensor, "m n"]:
        """Return a contiguous copy of the matrix, in its own dtype, on its own device; a ModelError
        where the parameter has no values: it is on the meta device, or offloaded."""
        self._check_values()
        matrix = self._whole()
        if self.rows is not None:
            return matrix[self.rows].contiguous()
        return matrix.clone(memory_format=torch.contiguous_format)

    @property
    def spacing(self) -> Float[Tensor, "m n"] | None:
        """The steps of this matrix alone."""
        return None if self.steps is None else self.of(self.steps)

    def of(self, values: Tensor) -> Float[Tensor, "m n"]:
        """Return this matrix of other values of the parameter's shape, such as its gradient."""
        return replace(self, parameter=nn.Parameter(values, requires_grad=False)).read()

    @torch.no_grad()
    def write_(self, matrix: Float[Tensor, "m n"]) -> None:
        """Set the matrix in place, cast to the parameter's dtype; bytes of the same dtype stay what
        they are. A ModelError for another shape, or where there are no values to overwrite."""
        self._check_values()
        if tuple(matrix.shape) != self.shape:
            raise ModelError(
                f"{self.label} has shape {self.shape}; {tuple(matrix.shape)} does not fit"
            )
        target = self._whole()
        if self.rows is None:
            target.copy_(matrix)
        else:
            target[self.rows] = matrix.to(target)

    def _whole(self) -> Tensor:
        """Return the parameter's matrix, (out, in), fused ones and all."""
        matrix = (
            self.parameter.detach() if self.expert is None else self.parameter.detach()[self.expert]
        )
        return matrix.T if self.transposed else matrix

    def _check_values(self) -> None:
        if self.parameter.is_meta:
            raise ModelError(
                f"{self.label} is on the meta device: it was offloaded, or never loaded; "
                "load the model with its weights, without a device map that offloads"
            )


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Every weight matrix of a decoder, layer by layer.

    Arguments:
        model: the live model that the matrices are views of.
        model_type: the decoder's, from its config.
        layers: one tuple of matrices a layer, in the order of `eckart.records.PARTS["all"]`.
        blocks: the decoder layers themselves, one module a layer.
        parameters: how many numbers the whole model holds, tied ones once.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=16))
    >>> anatomy = Anatomy.of(model)
    >>> [(weight.name, weight.shape) for weight in anatomy.select(0, "mlp")]
    [('fc_in', (32, 8)), ('fc_out', (8, 32))]
    >>> anatomy.select(-1, "v")[0].label
    'layer 1 v (transformer.h.1.attn.c_attn.weight)'
    """

    model: PreTrainedModel = field(repr=False)
    model_type: str
    layers: tuple[tuple[Weight, ...], ...] = field(repr=False)
    blocks: tuple[nn.Module, ...] = field(repr=False)
    parameters: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Anatomy:
        """Take a model apart; the table first, then its structure.

        Arguments:
            model: a decoder-only model, also one on the meta device; the language model of a
                multi-modal one.

        Raises:
            ModelError: the model is quantised, is an encoder-decoder, or holds matrices of unknown
                meaning.
        """
        config = _decoder_config(model)
        prefix, blocks = _decoder_layers(
            model, config.model_type, getattr(config, "num_hidden_layers", None)
        )
        aliases = _aliases(model)
        layers = (
            _weights(block, f"{prefix}.{i}", i, config, aliases) for i, block in enumerate(blocks)
        )
        numbers = sum(parameter.numel() for parameter in model.parameters())
        return cls(model, config.model_type, tuple(layers), tuple(blocks), numbers)

    def layer_index(self, layer: int) -> int:
        """Return a layer's 0-based number, a negative one counted from the last; an EditError where
        the model has no such layer."""
        n = len(self.layers)
        if not -n <= layer < n:
            raise EditError(
                f"no layer {layer}: the model has {n} layers, 0 to {n - 1} (or {-n} to -1)"
            )
        return layer % n

    def select(self, layer: int, part: str) -> tuple[Weight, ...]:
        """Return the matrices of a layer that a part names; of a mixture of experts, every
        expert's. An EditError lists the layers or parts that there are, where it is none of
        them."""
        if part not in PARTS:
            raise EditError(f"no part '{part}'; the parts are {', '.join(PARTS)}")
        weights = self.layers[self.layer_index(layer)]
        selected = tuple(weight for weight in weights if weight.kind in PARTS[part])
        if not selected:
            kinds = ", ".join(dict.fromkeys(weight.kind for weight in weights))
            raise EditError(
                f"layer {layer} of this {self.model_type} has no '{part}'; it has {kinds}"
            )
        return selected


def _decoder_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Return the settings of the part of the model that writes text, or refuse the model."""
    config, kind = model.config, model.config.model_type
    if config.is_encoder_decoder:
        raise ModelError(
            f"model type '{kind}' is an encoder-decoder; load a decoder-only language model"
        )
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is not None:
        raise ModelError(f"this '{kind}' model {quantised(quantisation)}")
    try:
        return config.get_text_config(decoder=True)
    except ValueError as error:
        raise ModelError(
            f"model type '{kind}' has several text models ({error}); load one of them"
        ) from None


def _decoder_layers(
    model: PreTrainedModel, kind: str, depth: int | None
) -> tuple[str, nn.ModuleList]:
    """Return the list of decoder layers and its name: the longest, or the one of the config's
    depth."""
    decoder = set(model.get_decoder().modules())
    packed = sorted({type(m).__name__ for m in decoder if PACKED_MODULES.search(type(m).__name__)})
    if packed:
        raise ModelError(
            f"this '{kind}' model has quantised modules ({', '.join(packed)}); {UNQUANTISED}"
        )
    lists = {
        n: m
        for n, m in model.named_modules()
        if isinstance(m, nn.ModuleList) and m in decoder and len(m)
    }
    candidates = {
        name: blocks
        for name, blocks in lists.items()
        # A list inside a list, such as a layer's experts, is no list of layers.
        if not any(name.startswith(f"{outer}.") for outer in lists)
        and all(any(projections(b)) for b in blocks)
    }
    if not candidates:
        seen = ", ".join(f"{name} ({len(blocks)})" for name, blocks in lists.items()) or "none"
        raise ModelError(
            f"no list of layers with weight matrices in this '{kind}' model; lists seen: {seen}"
        )
    name, blocks = max(candidates.items(), key=lambda item: (len(item[1]) == depth, len(item[1])))
    alike = [f"{n} ({len(b)})" for n, b in candidates.items() if type(b[0]) is type(blocks[0])]
    if len(alike) > 1:
        raise ModelError(
            f"this '{kind}' model has several lists of such layers: {', '.join(alike)}; load one"
            " part"
        )
    return name, blocks


def _aliases(model: PreTrainedModel) -> dict[tuple[str, int], list[str]]:
    """Return the names of every parameter, keyed by the memory that it occupies."""
    names: dict[tuple[str, int], list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(_memory(parameter), []).append(name)
    return names


def _memory(parameter: nn.Parameter) -> tuple[str, int]:
    """Return what two names share if they mean the same numbers: an address, or without one the
    object."""
    address = parameter.data_ptr() if type(parameter) is nn.Parameter else 0
    return (str(parameter.device), address or id(parameter))


def _weights(
    block: nn.Module, prefix: str, layer: int, config: PreTrainedConfig, aliases: Aliases
) -> tuple[Weight, ...]:
    """Return one layer's matrices, in the order of the vocabulary, experts by number."""
    kind = config.model_type
    rules = rules_of(block, layer, config)
    weights: list[Weight] = []
    for inner, parameter in projections(block):
        path = f"{prefix}.{inner}"
        if inner not in rules:
            raise ModelError(
                f"{path} {tuple(parameter.shape)} is not a matrix that a '{kind}' is known to have;"
                f" if it is an adapter's, {MERGE_IT}"
            )
        tied = tuple(other for other in aliases[_memory(parameter)] if other != path)
        weights += [
            replace(view, layer=layer, tied=tied)
            for view in _views(parameter, rules[inner], path, config)
        ]
    names = [weight.name for weight in weights]
    if len(set(names)) < len(names):
        twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
        raise ModelError(
            f"layer {layer} of this '{kind}' model has several matrices that seem to be {twice}"
        )
    return tuple(sorted(weights, key=lambda weight: PARTS["all"].index(weight.kind)))


def _views(
    parameter: nn.Parameter, rule: Rule, path: str, config: PreTrainedConfig
) -> Iterator[Weight]:
    """Give every matrix that a parameter holds."""
    if rule.names == ("router",):
        return
    if type(parameter) is not nn.Parameter or parameter.dtype not in FLOATING:
        stored = f"{type(parameter).__name__} of {parameter.dtype}"
        raise ModelError(f"{path} is stored as {stored}, and so quantised; {UNQUANTISED}")
    out = parameter.shape[-1 if rule.transposed else -2]
    cuts = cut(rule, out, path, config) if len(rule.names) > 1 else {rule.names[0]: None}
    for expert in [None] if parameter.ndim == 2 else range(len(parameter)):
        number = rule.expert if expert is None else expert
        for kind, rows in cuts.items():
            name = kind if number is None else f"{kind}[{number}]"
            yield Weight(name, 0, path, parameter, rows, expert, rule.transposed)
