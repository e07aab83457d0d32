"""What the evaluation benchmarks share: random models of known shapes, a tokenizer, and rows like
SST-2's."""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from eckart.scoring.evaluator import Evaluator
from eckart.scoring.forward.packed import pack, plan_packs
from eckart.tasks import Task
from eckart.weights.models import LoadedModel, load_model

RATES = (0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
"""Eight candidates, as in the paper's protocol."""
LLAMA, GPT = hf.LlamaConfig, hf.GPT2Config
TIED = {"tie_word_embeddings": True}
SHAPES = {
    "8m": lambda: LLAMA(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        **TIED,
    ),
    "135m": lambda: LLAMA(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        **TIED,
    ),
    "gpt2": GPT,
    "llama-2-7b": lambda: LLAMA(vocab_size=32000, max_position_embeddings=4096),
    "gpt-j-6b": hf.GPTJConfig,
}


def arguments(description: str, **defaults: object) -> argparse.ArgumentParser:
    """Return the options that every evaluation benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, help="of the random model")
    parser.add_argument("--dtype", help="float32 or bfloat16")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--rows", type=int, help="validation rows")
    parser.add_argument("--shots", type=int, help="demonstrations")
    parser.add_argument(
        "--data", type=Path, help="SST-2 as parquet (sentence, label); made-up phrases by default"
    )
    parser.set_defaults(
        **{
            "shape": "135m",
            "dtype": "float32",
            "device": "cpu",
            "rows": 1000,
            "shots": 10,
            **defaults,
        }
    )
    return parser


def random_model(shape: str, dtype: str, device: str) -> hf.PreTrainedModel:
    """Return a model of a shape with random weights, made on its device in its dtype."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            return hf.AutoModelForCausalLM.from_config(SHAPES[shape]()).eval()
    finally:
        torch.set_default_dtype(before)


def sentences(data: Path | None) -> tuple[list[str], list[int]]:
    """Return texts and labels: SST-2's own, or 70,000 phrases of 1 to 40 words by Zipf's law."""
    if data is not None:
        table = pq.read_table(data).to_pydict()
        return table["sentence"], table["label"]
    draw = random.Random(0)
    words = [
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9)))
        for _ in range(12_000)
    ]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    lengths = [min(40, max(1, round(draw.lognormvariate(1.9, 0.8)))) for _ in range(70_000)]
    return [" ".join(draw.choices(words, weights, k=length)) for length in lengths], [
        draw.randint(0, 1) for _ in lengths
    ]


def tokenizer(texts: list[str], size: int) -> hf.PreTrainedTokenizerFast:
    """Train a byte-level BPE on the rows, as GPT-2's is made, of at most the model's vocabulary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([*texts[:30_000], *[" pos neg text: sentiment:"] * 500], trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=bpe)


def setting(options: argparse.Namespace, test_rows: int = 2) -> tuple[LoadedModel, Task]:
    """Return the model and the task that the options name."""
    texts, labels = sentences(options.data)
    model = random_model(options.shape, options.dtype, options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("sentence", "label"), *zip(texts, labels, strict=True)])
        task = Task.load(
            data=path,
            text_column="sentence",
            label_column="label",
            template="text: {{ sentence }}\nsentiment:",
            labels={0: "neg", 1: "pos"},
            shots=options.shots,
            split_sizes=[options.rows, test_rows],
        )
    return load_model(model, tokenizer=tokenizer(texts, model.config.vocab_size)), task


def computed_tokens(evaluator: Evaluator, split: str = "validation") -> tuple[int, int]:
    """Return how many tokens the prefix has, and how many distinct ones the rows of a split add to
    it."""
    reader = evaluator.prepare(split).reader
    rows = reader.requests.rows
    packs = ([rows[index] for index in batch] for batch in plan_packs(rows, reader.budget))
    distinct = sum(
        len(pack(each, [()] * len(each), torch.device("cpu"))[0].tokens) for each in packs
    )
    return len(reader.requests.prefix), distinct
