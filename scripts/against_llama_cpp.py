"""Read a GGUF file, and one that is patched, with a real llama.cpp build, and hold its answers
beside ours: the label that is most likely, the token that it would say first, and how far the
log-likelihoods are apart.

python scripts/against_llama_cpp.py MODEL.gguf --task sst2 --edit 21:mlp:0.95 --build FOLDER

The build is made once, in FOLDER, of the sources that llama-cpp-python brings (cmake and a C++
compiler are needed; on two cores it takes half an hour), and serves every further run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eckart import Edit, Task
from eckart.exports.dense import export
from eckart.exports.recipe import TYPES
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.requests import Requests, build_requests
from eckart.tasks.prompts import Prompt
from eckart.weights.models import load_model, needed_tokenizer

PACKAGE = "llama-cpp-python==0.3.36"


def main() -> None:
    said = _said()
    llama = bindings(said.build, said.jobs)
    task = Task.load(said.task, data=said.data, shots=said.shots, seed=said.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = {"base": said.model}
        for type_ in said.type:
            out = Path(folder, type_)
            print(export(said.model, out, edits=said.edit, format="gguf", type_=type_).recipe.gguf)
            files[f"patched, {type_}"] = str(out)
        for name, path in files.items():
            print(f"{name}: {compared(llama, path, task, said.rows)}", flush=True)


def bindings(folder: Path, jobs: int) -> Any:
    """Return llama-cpp-python over a build in a folder, made there if it is not."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip"]
    if not any(folder.glob("llama_cpp_python-*/vendor")):
        fetch = [*pip, "download", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*fetch, "--dest", folder, PACKAGE], check=True)
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    source = next(path for path in folder.glob("llama_cpp_python-*") if path.is_dir())
    build = folder / "build"
    if not (build / "bin" / "libllama.so").exists():
        plain = ("TESTS", "TOOLS", "EXAMPLES", "SERVER", "COMMON", "APP")
        # Not for all that the processor names: a virtual machine may not let all of it run.
        without = ["-DGGML_NATIVE=OFF", *(f"-DLLAMA_BUILD_{name}=OFF" for name in plain)]
        where = [
            "-S",
            str(source / "vendor" / "llama.cpp"),
            "-B",
            str(build),
            "-DBUILD_SHARED_LIBS=ON",
        ]
        subprocess.run(["cmake", *where, "-DCMAKE_BUILD_TYPE=Release", *without], check=True)
        make = ["cmake", "--build", str(build), "--target", "llama", "-j", str(jobs)]
        subprocess.run(["nice", *make], check=True)
    needs = folder / "needs"
    if not needs.exists():  # the bindings import it, and nothing here uses it
        subprocess.run([*pip, "install", "-q", "--target", needs, "diskcache"], check=True)
    sys.path[:0] = [str(source), str(needs)]
    os.environ["LLAMA_CPP_LIB_PATH"] = str(build / "bin")
    import llama_cpp  # type: ignore[import-not-found, unused-ignore]

    return llama_cpp


def compared(llama: Any, path: str, task: Task, rows: int) -> str:
    """Say how a file's answers by llama.cpp stand beside ours, on the first test rows."""
    loaded = load_model(path, dtype="float32", device="cpu")
    prompts = Evaluator(loaded, task).fitted("test").prompts[:rows]
    trial = Evaluator(loaded, task)([], f"test[0:{len(prompts)}]")
    score = trial.labelled
    assert score is not None
    tokenizer = needed_tokenizer(loaded)
    requests = build_requests(prompts, tokenizer)
    length = max(map(requests.length, range(len(requests.rows)))) + 2
    there = llama.Llama(path, n_ctx=length, logits_all=True, verbose=False, n_gpu_layers=0)
    theirs, said = read(there, requests.without_prefix())
    ours = np.array(score.log_likelihoods)
    labels, own = theirs.argmax(axis=1), np.array(score.predictions)
    right = np.array(score.labels)
    # The first token that it would say, where it begins one of the labels.
    begins = [[c.tokens[0] for c in choices] for choices in requests.continuations]
    greedy = [first.index(t) if t in first else -1 for first, t in zip(begins, said, strict=True)]
    spoken = [(g, o) for g, o in zip(greedy, own, strict=True) if g >= 0]
    return (
        f"{len(prompts)} rows; likeliest label the same on {(labels == own).sum()}; accuracy"
        f" {(own == right).mean():.2f} here, {(labels == right).mean():.2f} there; log-likelihoods"
        f" differ by up to {np.abs(theirs - ours).max():.3g} nats (mean"
        f" {np.abs(theirs - ours).mean():.2g}); the greedy token begins a label on {len(spoken)},"
        f" and is ours on {sum(g == o for g, o in spoken)}; its own tokenizer gives other tokens on"
        f" {other_tokens(there, tokenizer, prompts)}"
    )


def read(there: Any, requests: Requests) -> tuple[np.ndarray, list[int]]:
    """Return the log-likelihood of each label by llama.cpp, and the token that it says first."""
    rows: list[np.ndarray] = []
    for row in requests.rows:
        there.reset()
        there.eval(list(row))
        logits = there.scores[: len(row)].astype(np.float64)
        peaks = logits.max(axis=1, keepdims=True)
        rows.append(logits - peaks - np.log(np.exp(logits - peaks).sum(axis=1, keepdims=True)))
    found = [
        [sum(rows[c.row][c.start + i, token] for i, token in enumerate(c.tokens)) for c in choices]
        for choices in requests.continuations
    ]
    first = (choices[0] for choices in requests.continuations)
    return np.array(found), [int(rows[c.row][c.start].argmax()) for c in first]


def other_tokens(there: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> int:
    return sum(
        there.tokenize(prompt.context.encode(), add_bos=False)
        != tokenizer(prompt.context).input_ids
        for prompt in prompts
    )


def _said() -> argparse.Namespace:
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("--task", default="sst2")
    options.add_argument("--data")
    options.add_argument("--shots", type=int, default=4)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--edit", type=Edit.parse, action="append", required=True)
    options.add_argument("--type", choices=TYPES, action="append", default=None)
    options.add_argument("--rows", type=int, default=50)
    options.add_argument("--build", type=Path, default=Path("llama-cpp"))
    options.add_argument("--jobs", type=int, default=2)
    said = options.parse_args()
    said.type = said.type or ["f16"]
    return said


if __name__ == "__main__":
    main()
