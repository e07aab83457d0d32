"""One evaluation: ours, lm-evaluation-harness, and a loop over plain transformers, on the same rows
and weights.

All three read the same tokens, which is asserted, and their log-likelihoods are compared. Ours is
timed on all rows, rendering and tokenising included. The peers are timed on a few of them, at their
best batch size, and scaled: their cost is the same for each row. lm-eval is used as its
multiple_choice tasks use it, and shares the logits of labels of one token; its own `auto` finds a
batch size for a GPU's memory, and the search is not counted. It takes the log-softmax in the
model's dtype: in bfloat16 a log-likelihood near -10 is a multiple of 1/16 nat, and labels can tie.

pip install "lm-eval[hf]"
python benchmarks/peers.py --shape 135m --rows 1000 --shots 10
python benchmarks/peers.py --shape llama-2-7b --dtype bfloat16 --device cuda --rows 8000 --peer-rows
256
"""

from __future__ import annotations

import copy
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from algorithm1 import compared
from common import TOLERANCE, machine, matmul_rate, show, synchronise
from setting import arguments, setting

from eckart.scoring.evaluator import Evaluator
from eckart.scoring.requests import Requests, build_requests
from eckart.tasks import Task
from eckart.tasks.prompts import Prompt
from eckart.weights.models import LoadedModel, Tokenizer

SIZES = (1, 8, 32, 64)
UNSEEN = "ÿ"
"""The byte 0xff, which no text encodes to: padding and end of text for peers that need some."""

Prompts = Sequence[Prompt]
Way = Callable[[Prompts], np.ndarray]
"""Returns the log-likelihood of every label of every prompt."""
Encode = Callable[[str, str], tuple[Sequence[int], Sequence[int]]]
"""Returns the tokens of a context, and those of a label after it."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one of them found, and how long all rows take."""

    who: str
    batch: str
    seconds: float
    values: np.ndarray


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--peer-rows",
        type=int,
        default=32,
        help="rows that the peers are timed on, so their largest batch",
    )
    options = parser.parse_args()
    model, task = setting(options)
    prompts = task.prompts("validation")[: options.peer_rows]
    print(machine())
    rate = matmul_rate(options.device, getattr(torch, options.dtype))
    print(f"{options.dtype} matrix product: {rate / 1e9:,.0f} Gflop/s")
    own = ours(model, task)
    found = [own, *harness(model, prompts), *loop(model, prompts)]
    rows = len(task.validation)
    show(
        f"{options.shape}, {options.dtype}, {options.shots} shots, {rows} rows; peers timed on"
        f" {len(prompts)} of them and scaled",
        ["who", "batch size", "seconds", "ratio", "same predictions", "largest difference, nats"],
        [line(reading, own, rows / len(prompts), options) for reading in found],
    )


def line(reading: Reading, own: Reading, scale: float, options: Namespace) -> list[str]:
    """Return a reading as a line of the table: a peer's time scaled to all rows, and its values
    beside ours."""
    if reading is own:
        return [own.who, own.batch, f"{own.seconds:,.2f}", "1", "", ""]
    seconds = scale * reading.seconds
    agreement = compared(own.values[None], reading.values[None], TOLERANCE[options.dtype])
    return [
        reading.who,
        reading.batch,
        f"{seconds:,.1f}",
        f"{seconds / own.seconds:,.1f}",
        *agreement,
    ]


def ours(model: LoadedModel, task: Task) -> Reading:
    """Evaluate all rows from nothing, after a device's first calls on two others."""
    Evaluator(model, task)([], "test")
    evaluator = Evaluator(model, task)
    seconds, trial = timed(lambda: evaluator([], "validation"))
    assert trial.score is not None
    batch = f"{evaluator.prepare('validation').reader.budget} tokens"
    return Reading("ours", batch, seconds, np.array(trial.score.log_likelihoods))


def harness(model: LoadedModel, prompts: Prompts) -> list[Reading]:
    """Return lm-evaluation-harness's fastest reading; none where it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        print(f'lm-eval is left out ({error}): pip install "lm-eval[hf]"')
        return []
    logging.getLogger("lm_eval").setLevel(
        logging.ERROR
    )  # it warns of every model that is not a name
    make = partial(HFLM, pretrained=model.model, tokenizer=padding(model.tokenizer))
    requests = build_requests(prompts, model.tokenizer).without_prefix()
    lm = make()
    check_tokens(lm._encode_pair, prompts, requests)
    assert max(map(len, requests.rows)) <= lm.max_length  # it would cut off what is longer
    ways = {
        str(size): partial(likelihoods, make(batch_size=size)) for size in sizes(model, requests)
    }
    if model.model.device.type != "cpu":
        searching = make(batch_size="auto")
        likelihoods(searching, prompts)
        size = searching.batch_sizes[0]
        ways[f"auto: {size}"] = partial(likelihoods, make(batch_size=size))
    return fastest("lm-eval", ways, prompts)


def likelihoods(lm: Any, prompts: Prompts) -> np.ndarray:
    """Ask lm-eval for every label after every prompt, as a multiple_choice task does."""
    from lm_eval.api.instance import Instance

    instances = [
        Instance("loglikelihood", {}, (prompt.context, label), index)
        for prompt in prompts
        for index, label in enumerate(prompt.continuations)
    ]
    found = lm.loglikelihood(instances, disable_tqdm=True)
    return np.array([value for value, _ in found]).reshape(len(prompts), -1)


def loop(model: LoadedModel, prompts: Prompts) -> list[Reading]:
    """Return the fastest reading of a user's own loop."""
    tokenizer = padding(model.tokenizer)
    requests = build_requests(prompts, model.tokenizer).without_prefix()
    encode = partial(tokenizer, add_special_tokens=False)
    check_tokens(
        lambda text, label: (tokenizer(text)["input_ids"], encode(label)["input_ids"]),
        prompts,
        requests,
    )
    ways = {
        str(size): partial(padded, model.model, tokenizer, size) for size in sizes(model, requests)
    }
    return fastest("transformers", ways, prompts)


@torch.inference_mode()
def padded(model: Any, tokenizer: Tokenizer, size: int, prompts: Prompts) -> np.ndarray:
    """Run padded batches through the whole model; read the labels, of one token each, where a row
    ends."""
    words = tokenizer(list(prompts[0].continuations), add_special_tokens=False)["input_ids"]
    values = []
    for start in range(0, len(prompts), size):
        texts = [prompt.context for prompt in prompts[start : start + size]]
        batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        batch = batch.to(model.device)
        last = batch["attention_mask"].sum(-1) - 1
        logits = model(**batch).logits[torch.arange(len(texts), device=model.device), last]
        values.append(logits.float().log_softmax(-1)[:, [word for (word,) in words]].double().cpu())
    return torch.cat(values).numpy()


def fastest(who: str, ways: dict[str, Way], prompts: Prompts) -> list[Reading]:
    """Return the fastest reading of those that fit into memory, each warmed up by two rows."""
    readings = []
    for batch, way in ways.items():
        try:
            way(prompts[:2])
            readings.append(Reading(who, batch, *timed(partial(way, prompts))))
        except torch.OutOfMemoryError:
            print(f"{who}: no memory for batches of {batch}")
    print(
        f"{who}: "
        + ", ".join(f"{found.seconds:.2f} s in batches of {found.batch}" for found in readings)
    )
    return sorted(readings, key=lambda found: found.seconds)[:1]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds a call takes, a GPU's queued work included, and what it returns."""
    synchronise()
    start = time.perf_counter()
    result = function()
    synchronise()
    return time.perf_counter() - start, result


def sizes(model: LoadedModel, requests: Requests) -> list[int]:
    """Return batch sizes to try: on a CPU, where too many logits would end the process, those that
    have room."""
    rows, config = len(requests.continuations), model.model.config
    found = sorted({min(size, rows) for size in SIZES})
    if model.model.device.type != "cpu":
        return found
    logits = max(map(len, requests.rows)) * config.vocab_size * 4
    room = psutil.virtual_memory().available // 4  # the logits, and their log-softmax
    return [size for size in found if size == 1 or size * logits < room]


def padding(tokenizer: Tokenizer) -> Any:
    """Return a copy of a tokenizer that has a token for padding."""
    found = copy.deepcopy(tokenizer)
    found.pad_token = found.eos_token = UNSEEN
    return found


def check_tokens(encode: Encode, prompts: Prompts, requests: Requests) -> None:
    """Assert that a peer reads our tokens before every label, and scores ours."""
    for prompt, choices in zip(prompts, requests.continuations, strict=True):
        for label, choice in zip(prompt.continuations, choices, strict=True):
            own = requests.rows[choice.row][: choice.start + 1], choice.tokens
            assert tuple(map(tuple, encode(prompt.context, label))) == own, (prompt.id, label)


if __name__ == "__main__":
    main()
