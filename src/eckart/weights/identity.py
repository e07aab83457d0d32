"""The identity of a model: whatever of it a number depends on, in one hash.

A trial's key (`Scorer.key`) holds, and so a trial is computed anew where one of these is another:

- of the model, as `identify` hashes it: every tensor of its weights, its configuration, its
  tokenizer, code that is not transformers' own, an attention that is not the default one, rotary
  frequencies and adapters changed in memory, the digest of a GGUF file;
- the dtype that it computes in; in half precision the most tokens in a batch, on which the last
  bits depend;
- of the task (`Task.digest`): kind, labels, template, joins, instruction, and the demonstrations as
  they are shown;
- of the rows (`Scorer.digest`): ids, prompts as they are read (shortened or left out, where asked
  for), candidates, labels, and their order;
- the edits, the scoring, and the scoring's version.

What must not change it: paths and names, the number of threads, the device, and in float32 the size
of a batch. What nothing here can see: hooks and plain attributes that a caller puts on a live
model's modules.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAMES = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation")
"""Configuration values that no number depends on, or that a key holds apart: the dtype, and the
attention below."""
REMOTE = "transformers_modules"
"""The package into which transformers puts code that a model's repository brings."""
LIBRARIES = frozenset({"eckart", "torch", "transformers", "tokenizers"})
PROBE = " Was it <s>good</s>,\n<|endoftext|> or 10 times b\u00e4d?"
"""A text on which settings of a tokenizer show that its own file does not hold."""
SAMPLE = 512
"""How many numbers of each tensor are looked at where a change is to be noticed cheaply."""

Stamp = tuple[Any, ...]


class Identity:
    """A model's fingerprint: taken when it is asked for, and anew when the model has changed in
    memory since; with the digest of the one file that all of it is from, if it is."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, file: str = ""
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._file = file
        self._known: tuple[Stamp, str] | None = None
        self._sample: str | None = None

    @property
    def fingerprint(self) -> str:
        """See `identify`."""
        now = self._stamp()
        if self._known is None or self._known[0] != now:
            self._known = (now, identify(self._model, self._tokenizer, self._file))
        return self._known[1]

    def renew(self) -> None:
        """Take the fingerprint anew when it is next asked for."""
        self._known = None

    def look(self) -> str:
        """Return the fingerprint, taken anew where some of the numbers have changed by ways that
        leave no trace."""
        sample = _sampled(self._model)
        if self._sample not in (None, sample):
            self.renew()
        self._sample = sample
        return self.fingerprint

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Say that a block brings back every byte that it changes: nothing is hashed again for
        it."""
        before = self._stamp()
        try:
            yield
        finally:
            if self._known is not None and self._known[0] == before:
                self._known = (self._stamp(), self._known[1])

    def _stamp(self) -> Stamp:
        """Return what changes with the weights, the configuration or the vocabulary, without
        reading the weights."""
        tensors = self._model.state_dict().values()
        places = tuple(
            (t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors if not t.is_meta
        )
        size = 0 if self._tokenizer is None else len(self._tokenizer)
        return (*places, _configuration(self._model), _attention(self._model), size)


def identify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    file: str = "",
    read: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> str:
    """Return a hash of weights, configuration, tokenizer, code, and the digest of the one file that
    all of it is from: models that score alike by construction share it. `read` gives the tensors
    of a model that has none in memory."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_configuration(model).encode())
    digest.update(tokenizer_text(tokenizer).encode())
    for name, held in sorted(model.state_dict().items()):
        tensor = read(name, held)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    # Only where there is something to say, so that an ordinary model keeps the fingerprint that it
    # always had.
    for what, said in {
        "attention": _attention(model),
        "frequencies": _frequencies(model),
        "adapters": _adapters(model),
        "code": _code(model, tokenizer),
        "file": file,
    }.items():
        if said:
            digest.update(f"{what} {said}".encode())
    return digest.hexdigest()


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes, which on the CPU are not copied."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _configuration(model: PreTrainedModel) -> str:
    values = {name: value for name, value in model.config.to_dict().items() if name not in NAMES}
    return json.dumps(values, sort_keys=True, default=str)


def _sampled(model: PreTrainedModel) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in model.state_dict().values():
        flat = tensor.detach().flatten()
        digest.update(raw_bytes(flat[:: max(1, flat.numel() // SAMPLE)]))
    return digest.hexdigest()


def _attention(model: PreTrainedModel) -> str:
    """Return which attention the caller has chosen, where it is not the one that transformers
    would."""
    chosen = getattr(model.config, "_attn_implementation", None)
    usual = "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"
    return "" if chosen in (None, usual) else str(chosen)


def _frequencies(model: PreTrainedModel) -> str:
    """Return a hash of rotary frequencies that are no longer what the configuration made them.

    They are in no file. Where their scaling depends on the text's length, the forward itself
    changes them.
    """
    digest, changed = hashlib.blake2b(digest_size=16), False
    buffers = dict(model.named_buffers())
    for name, found in sorted(buffers.items()):
        made = buffers.get(name.removesuffix("inv_freq") + "original_inv_freq")
        if (
            made is None
            or made.is_meta
            or not name.endswith("inv_freq")
            or _by_length(model, name)
            or torch.equal(found, made)
        ):
            continue
        changed = True
        digest.update(name.encode())
        digest.update(raw_bytes(found))
    return digest.hexdigest() if changed else ""


def _by_length(model: PreTrainedModel, name: str) -> bool:
    kind = getattr(model.get_submodule(name.rpartition(".")[0]), "rope_type", "default")
    kinds = kind.values() if isinstance(kind, dict) else [kind]
    return any("dynamic" in str(one) or "longrope" in str(one) for one in kinds)


def _adapters(model: PreTrainedModel) -> str:
    """Return how adapters that lie in memory take part; their weights are among the model's."""
    layers = [
        {
            name: str(getattr(module, name, None))
            for name in ("scaling", "active_adapters", "disable_adapters", "merged_adapters")
        }
        for module in model.modules()
        if type(module).__module__.startswith("peft.") and hasattr(module, "scaling")
    ]
    return json.dumps(layers) if layers else ""


def tokenizer_text(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return what a tokenizer does, as text."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _slow_tokenizer_text(tokenizer)
    text: str = backend.to_str()
    if (
        backend.padding is not None or backend.truncation is not None
    ):  # left by whoever used it last
        backend = Backend.from_str(text)
        backend.no_padding()
        backend.no_truncation()
        text = backend.to_str()
    plain, own = backend.encode(PROBE).ids, tokenizer(PROBE, verbose=False)["input_ids"]
    return text if own == plain else f"{text} {own}"


def _slow_tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the vocabulary, the files beside it (merges, a model of pieces), and what is added to
    it."""
    files = [getattr(tokenizer, name, None) for name in getattr(tokenizer, "vocab_files_names", {})]
    contents = [
        hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for file in files
        if isinstance(file, str) and Path(file).is_file()
    ]
    added = {
        str(token): repr(known)
        for token, known in getattr(tokenizer, "added_tokens_decoder", {}).items()
    }
    ids = tokenizer(PROBE, verbose=False)["input_ids"]
    return json.dumps(
        [tokenizer.get_vocab(), type(tokenizer).__name__, contents, added, ids], sort_keys=True
    )


def _code(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return a hash of code that reads the rows and is no library's; nothing where there is
    none."""
    kinds = {
        *map(type, model.modules()),
        type(model.config),
        *([type(tokenizer)] if tokenizer is not None else []),
    }
    own = {kind for one in kinds for kind in one.__mro__ if not _of_a_library(kind.__module__)}
    remote = {kind.__module__ for kind in own if kind.__module__.startswith(REMOTE)}
    texts = {_module_text(name) for name in _reached(remote)}
    texts |= {_class_text(kind) for kind in own if kind.__module__ not in remote}
    if not texts:
        return ""
    return hashlib.sha256("\0".join(sorted(texts)).encode(errors="replace")).hexdigest()


def _of_a_library(name: str) -> bool:
    """Say whether a module comes with Python or was installed."""
    top = name.partition(".")[0]
    if top in LIBRARIES or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    paths = sysconfig.get_paths()
    return file is not None and any(
        Path(file).is_relative_to(paths[kind]) for kind in ("purelib", "platlib")
    )


def _reached(names: set[str]) -> set[str]:
    """Return these modules, and those of the same repositories that they import."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        found.add(name)
        left |= _imported(name) - found
    return found


def _imported(name: str) -> set[str]:
    """Return the modules beside it that a module imports: what comes of them, a number say, may not
    tell its origin."""
    package = name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(_module_text(name))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), package
            ).rstrip(".")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {one for one in found if one in sys.modules and one.startswith(REMOTE)}


def _module_text(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    if not file or not Path(file).is_file():
        return ""
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _class_text(kind: type) -> str:
    """Return a class's source; where none is at hand, as of one typed into a shell, its compiled
    code."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = {name: f for name, f in vars(kind).items() if isinstance(f, FunctionType)}
        return repr([(name, _code_text(f.__code__)) for name, f in sorted(functions.items())])


def _code_text(code: CodeType) -> str:
    consts = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, consts))
