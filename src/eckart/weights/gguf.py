"""GGUF files: a model, its tokenizer and its settings in one file, mostly quantised.

transformers reads them (`from_pretrained(folder, gguf_file=...)`) and dequantises every weight. It
leaves out, without a word, a tensor that it has no name for; so the file's own list of tensors is
gone through here, and one that would be left out refuses the file. The same tables of transformers'
loader read a tensor at a time: names, and what it undoes of llama.cpp's layout, such as the rows of
q and k that a Llama-like file has in another order.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from eckart.errors import ModelError
from eckart.weights.loading.accounts import refuse_other_shapes
from eckart.weights.loading.failures import explained, first_line
from eckart.weights.loading.files import FLOATS
from eckart.weights.loading.gguf import (
    check_magic,
    converted,
    families,
    known_splits,
    locate,
    mend_,
    parsed_once,
    plain,
    read_file,
)

BLOCK = {"Q2_K": 16, "Q3_K": 16, "Q6_K": 16}
"""How many neighbours in a row share a step; 32 of every type that is not named."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, of which nothing is read before it is asked for; `name` is what the model was
    asked for by."""

    name: str
    path: Path

    @classmethod
    def of(cls, name: str) -> GgufFile | None:
        """Find the GGUF file that a model's name means; None where it means none. A ModelError
        where it is not there, several are meant, or it is no GGUF file."""
        path = locate(name)
        if path is None:
            return None
        check_magic(name, path)
        return cls(name, path)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the file, as hexadecimal digits."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def types(self) -> dict[str, int]:
        """How many tensors are stored in each type, the most frequent first."""
        return dict(Counter(t.tensor_type.name for t in self._reader.tensors).most_common())

    @property
    def origin(self) -> str:
        """The file by its digest, and its tensors by their types, as trials keep them."""
        return f"GGUF sha256 {self.digest}: {self._counted}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about the weights and the tokenizer."""
        weights = (
            f"the weights are those of {self.path.name}, dequantised; of its tensors are"
            f" {self._counted}"
        )
        split = self._field("tokenizer.ggml.pre")
        if self._field("tokenizer.ggml.model") != "gpt2" or split in (None, *known_splits()):
            return (weights,)
        tokenizer = (
            f"{self.path.name} asks for text to be split as '{split}' splits it, for which"
            " transformers has no rule: it is split as GPT-2 does, and a few rows may have other"
            " tokens than the model was trained on"
        )
        return (weights, tokenizer)

    @property
    def _counted(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.types.items())

    @property
    def family(self) -> str:
        """What llama.cpp calls the architecture."""
        return str(self._field("general.architecture"))

    def config(self) -> Any:
        """Return the model's configuration, made of the file's settings; a ModelError where the
        file is damaged, or of a family that transformers does not read."""
        self._check_family()
        with self._alone() as folder:
            config = AutoConfig.from_pretrained(folder, gguf_file=self.path.name)
        # The file's title, which nothing depends on.
        config.__dict__.pop("_model_name_or_path", None)
        config._name_or_path = self.name
        self._refuse_settings()
        mend_(config, self._setting)
        return config

    def model(self, dtype: torch.dtype, device_map: Any = None) -> Any:
        """Load the model with every weight dequantised; a ModelError as for `config`, or where the
        file holds tensors that would be left out, or too few of them."""
        config = self.config()
        with self._alone() as folder:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=self.path.name,
                config=config,
                dtype=dtype,
                device_map=device_map,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, and refused by name
                **_dequantised(),
            )
        model, report = loaded
        self._refuse_unaccounted(model, report)
        _forget_quantisation(model)
        model.config._name_or_path = model.name_or_path = self.name
        return model

    def tokenizer(self) -> Any:
        """Return the tokenizer that the file holds; a ModelError where it holds none, or one that
        transformers does not read."""
        kind = self._field("tokenizer.ggml.model")
        if kind is None or self._field("tokenizer.ggml.tokens") is None:
            raise ModelError(
                f"'{self.name}' holds no tokenizer (tokenizer.ggml.model, tokenizer.ggml.tokens),"
                " and no other is taken for it; take a file that was converted with its vocabulary"
            )
        try:
            with self._alone() as folder:
                tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=self.path.name)
        except Exception as error:  # the package tokenizers raises nothing more particular
            raise ModelError(
                f"'{self.name}' holds a tokenizer of the kind '{kind}' that transformers does not"
                f" read ({first_line(error.__cause__ or error)}); take the model's folder with"
                " safetensors instead"
            ) from error
        tokenizer.name_or_path = self.name
        return tokenizer

    def tensors(self, model: Any) -> GgufTensors:
        """Return the file's tensors as parameters of a model, with or without weights."""
        return GgufTensors(self, self._reader, model)

    @property
    def _reader(self) -> Any:
        stat = self.path.stat()
        return read_file(self.name, str(self.path), stat.st_size, stat.st_mtime_ns)

    def _field(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        return None if field is None else field.contents()

    def _setting(self, key: str) -> Any:
        return self._field(f"{self.family}.{key}")

    def _refuse_settings(self) -> None:
        """Refuse settings that no configuration of transformers' would be given."""
        said = {key: self._setting(key) for key in ("attention.causal", "rope.scaling.type")}
        if said["attention.causal"] is False:
            raise ModelError(
                f"'{self.name}' is of an encoder (attention.causal is false); give a decoder-only"
                " language model"
            )
        if said["rope.scaling.type"] not in (None, "none", "linear"):
            raise ModelError(
                f"'{self.name}' scales rotary positions (rope.scaling.type:"
                f" {said['rope.scaling.type']}), which transformers does not read from GGUF; take"
                " the model's folder with safetensors"
            )
        if self.family == "llama" and self._setting("attention.head_count_kv") is None:
            raise ModelError(
                f"'{self.name}' lacks llama.attention.head_count_kv, without which transformers"
                " leaves the rows of q and k in another order; convert the model anew"
            )

    def _check_family(self) -> None:
        read = families()
        if plain(self.family) not in map(plain, read):
            raise ModelError(
                f"'{self.name}' is of the family '{self.family}'; the decoders that transformers"
                f" reads from GGUF are {', '.join(read)}: take the model's folder with safetensors"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[str]:
        """Give a folder in which the file lies alone: no tokenizer, adapter or setting beside it
        may have a say."""
        with (
            tempfile.TemporaryDirectory(prefix="eckart-gguf-") as folder,
            explained(self.name),
            parsed_once(self._reader),
            contextlib.redirect_stderr(io.StringIO()),  # bars that no setting turns off
        ):
            (Path(folder) / self.path.name).symlink_to(self.path.resolve())
            yield folder

    def _refuse_unaccounted(self, model: Any, report: Mapping[str, Any]) -> None:
        """Refuse a file that is not, tensor by tensor, the model that was made from it."""
        refuse_other_shapes(self.name, report)
        missing = sorted(map(str, report["missing_keys"]))
        if missing:
            raise ModelError(
                f"'{self.name}' lacks {len(missing)} tensor(s) that its settings ask for, such as"
                f" {missing[0]}; it is incomplete, or its family is not read as it was written"
            )
        unused = [*map(str, report["unexpected_keys"]), *self.tensors(model).left_out]
        if unused:
            raise ModelError(
                f"'{self.name}' holds {len(unused)} tensor(s) that transformers would leave out,"
                f" such as {unused[0]}: {_cause(unused)}; take the model's folder with safetensors"
            )


@dataclass(frozen=True)
class GgufTensors:
    """The tensors of a GGUF file as the parameters of a model, with or without weights, read one at
    a time."""

    file: GgufFile
    reader: Any
    model: Any

    @property
    def left_out(self) -> list[str]:
        """The tensors that the model has no place for."""
        if not self.one_for_one:
            return []  # the loading report has them
        names = self._names
        return [
            t.name
            for t in self.reader.tensors
            if t.name not in names and t.name.removesuffix(".weight") not in names
        ]

    @property
    def one_for_one(self) -> bool:
        """Whether transformers' loader takes a family's tensors one by one, by a table of names."""
        return plain(self.file.family) not in map(plain, converted())

    def covers(self, paths: Iterable[str]) -> bool:
        """Whether every one of these parameters is a tensor of its own."""
        return self.one_for_one and all(path in self._places for path in paths)

    def tensor(self, path: str) -> Any:
        """Return the tensor that is a parameter, as gguf's reader gives it; a ModelError where none
        is."""
        if not self.covers([path]):
            raise ModelError(
                f"'{self.file.name}' holds no one tensor that is {path}, as where experts' gate and"
                " up projections lie apart, and cannot be patched there; export the model's folder"
                " with safetensors"
            )
        return self._places[path]

    def read(self, path: str) -> Tensor:
        """Return a parameter, dequantised, in float32 and in the model's orientation."""
        tensor = self._places[path]
        return self._turned(self._dequantised(tensor), tensor.name)

    def laid_out(self, path: str, numbers: Tensor) -> np.ndarray:
        """Return a parameter's numbers in the order and the shape that its tensor has in the file:
        what `read` undoes, done again. A ModelError where that is not a matter of order alone."""
        tensor = self._places[path]
        shape = tuple(reversed(tensor.shape.tolist()))
        counted = np.arange(numbers.numel()).reshape(shape)
        places = self._turned(counted, tensor.name)
        found = np.empty(shape, dtype=np.float32)
        found.reshape(-1)[places.reshape(-1).numpy()] = numbers.reshape(-1).numpy()
        if not torch.equal(self._turned(found, tensor.name), numbers):
            raise ModelError(
                f"{tensor.name} of '{self.file.name}' is not {path} in another order, and cannot be"
                " written; export the model's folder with safetensors"
            )
        return found

    def steps(self, path: str) -> Tensor:
        """Return how far apart the numbers lie that the quantisation could have put in each place
        of a parameter; zeros where nothing was quantised.

        Neighbours in a row share a step: it is their smallest distance, save where no two of them
        lie on neighbouring steps, as of Q8_0, which has 255 of them for 32 numbers; its largest
        number is 127 of them.
        """
        tensor = self._places[path]
        numbers = self._dequantised(tensor)
        kind = tensor.tensor_type.name
        if kind in FLOATS:
            return torch.zeros(numbers.shape)
        blocks = np.sort(numbers.reshape(-1, BLOCK.get(kind, 32)), axis=1)
        gaps = np.diff(blocks, axis=1)
        gaps[gaps <= 1e-6 * np.abs(blocks).max(axis=1, keepdims=True)] = np.inf
        step = gaps.min(axis=1, keepdims=True)
        step[np.isinf(step)] = 0
        if kind == "Q8_0":
            step = np.abs(blocks).max(axis=1, keepdims=True) / 127
        return self._turned(np.broadcast_to(step, blocks.shape).reshape(numbers.shape), tensor.name)

    @cached_property
    def _processor(self) -> Any:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        kind: Any = TENSOR_PROCESSORS.get(self.file.family, TensorProcessor)
        return kind(config=self.model.config.to_dict())

    @cached_property
    def _names(self) -> dict[str, str]:
        """The model's name of each tensor, by the file's."""
        from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

        with explained(self.file.name), parsed_once(self.reader):
            return get_gguf_hf_weights_map(self.model, self._processor)

    @cached_property
    def _places(self) -> dict[str, Any]:
        tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        return {path: tensors[name] for name, path in self._names.items() if name in tensors}

    def _dequantised(self, tensor: Any) -> np.ndarray:
        from gguf import dequantize

        with explained(self.file.name):
            return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    def _turned(self, numbers: np.ndarray, name: str) -> Tensor:
        """Undo what llama.cpp's converter did to the order of a tensor's numbers."""
        return torch.from_numpy(np.array(self._processor.process(numbers, name=name).weights))


def _dequantised() -> dict[str, Any]:
    """Return what says that no weight may stay packed, where transformers can keep them so."""
    packed = getattr(transformers, "GgufConfig", None)
    return {} if packed is None else {"quantization_config": packed(dequantize=True)}


def _forget_quantisation(model: Any) -> None:
    """Take away the mark of a quantised model: its weights are dense numbers now."""
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "quantization_method"),
        (model, "is_quantized"),
        (model, "hf_quantizer"),
    ):
        holder.__dict__.pop(name, None)


def _cause(unused: list[str]) -> str:
    if any("rope" in name for name in unused):
        return "factors of rotary positions, without which long texts are read otherwise"
    return "the family's other tensors, or another version of it"
