"""Train the demo's model from nothing on the demo's corpus: one command, one seed, two CPU cores.

python scripts/train_demo.py --out src/eckart/demo/model
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean

import episodes
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from eckart.demo import corpus
from eckart.demo.words import ATTRIBUTES, LABEL_GROUPS

SHOTS = (0, 2, 4, 10)
Row = dict[str, str | int | float]
"""A line of the final table."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Token rows, the places where labels are predicted, the labels' tokens, and what each text
says."""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if not arguments.check:
        make(arguments)
    tokenizer = AutoTokenizer.from_pretrained(arguments.out)
    model = AutoModelForCausalLM.from_pretrained(arguments.out).eval()
    table = evaluate(model, tokenizer, arguments.rows)
    path = arguments.out / "recipe.json"
    recipe = json.loads(path.read_text(encoding="utf-8")) | {"accuracy": table}
    path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    print(f"trained in {recipe['minutes']} minutes, torch {recipe['torch']}\n\n{show(table)}")


def make(arguments: argparse.Namespace) -> None:
    """Train the model and write it, its tokenizer and its recipe."""
    torch.manual_seed(arguments.seed)
    start = time.perf_counter()
    tokenizer = make_tokenizer()
    model = make_model(arguments, tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens", flush=True)
    log = train_(model, tokenizer, arguments)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    recipe = {
        "command": "python scripts/train_demo.py --out src/eckart/demo/model",
        "arguments": {k: v for k, v in vars(arguments).items() if k not in ("out", "check")},
        "parameters": model.num_parameters(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "log": log,
    }
    (arguments.out / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the model")
    parser.add_argument(
        "--check", action="store_true", help="train nothing; only score the model in --out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16, help="episodes a step")
    parser.add_argument(
        "--examples", type=int, default=14, help="labelled texts an episode, after the start"
    )
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=256, help="width of the feed-forward blocks")
    parser.add_argument(
        "--rate", type=float, default=0.01, help="Muon's learning rate; AdamW's is a fifth"
    )
    parser.add_argument("--rows", type=int, default=300, help="test rows a cell of the final table")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which a word with its space, and a field's name with its colon, is
    one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    words = episodes.vocabulary()
    fields = dict.fromkeys(f"{name}:" for pair in episodes.FIELDS for name in pair)
    tokenizer.train_from_iterator([*(f" {word}" for word in words), *words, *fields], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<s>",
        pad_token="<s>",
        model_max_length=512,
    )


def make_model(
    arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.hidden,
            intermediate_size=arguments.inner,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


class Reader(nn.Module):
    """Ask the second layer what each text says; used in training only.

    Without it the model neither reads the texts nor binds labels within this budget: see
    docs/demo-model.md.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        sizes = [1 + len(classes) for classes in ATTRIBUTES.values()]
        width = model.config.hidden_size
        # One set of heads where the label is predicted, another where it stands.
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, n) for n in sizes) for _ in range(2)
        )
        self.norm = nn.RMSNorm(width, elementwise_affine=False)
        self.hidden = torch.empty(0)
        model.model.layers[1].register_forward_hook(self.keep)

    def keep(
        self, _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]
    ) -> None:
        self.hidden = output if isinstance(output, Tensor) else output[0]

    def forward(self, places: Tensor, says: Tensor) -> Tensor:
        """Return the mean log-loss over attributes, at the two places."""
        losses = []
        for offset, heads in enumerate(self.heads):
            seen = self.norm(take(self.hidden, places + offset))
            losses += [
                nn.functional.cross_entropy(head(seen).flatten(0, 1), says[..., i].flatten())
                for i, head in enumerate(heads)
            ]
        return 2 * torch.stack(losses).mean()


def train_(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace
) -> list[str]:
    reader = Reader(model)
    optimizers = make_optimizers(model, reader, arguments.rate)
    totals: list[Tensor] = []
    log = []
    start = time.perf_counter()
    for step, batch in enumerate(itertools.islice(batches(tokenizer, arguments), arguments.steps)):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak"] * schedule(step, arguments.steps)
        totals.append(step_(model, reader, optimizers, batch))
        if (step + 1) % 100 == 0:
            log.append(summary(step + 1, time.perf_counter() - start, totals[-50:]))
            print(log[-1], flush=True)
    return log


def summary(step: int, seconds: float, totals: Sequence[Tensor]) -> str:
    shots = [n for n in (0, 1, 2, 4, 7, 10, 13) if n < len(totals[-1])]
    right = torch.stack([total[shots] for total in totals]).mean(0)
    cells = "  ".join(f"{n}: {value:.2f}" for n, value in zip(shots, right.tolist(), strict=True))
    return f"step {step:5d}  {seconds:5.0f} s  right after n labelled texts  {cells}"


def make_optimizers(
    model: LlamaForCausalLM, reader: Reader, rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding, the norms and the reader."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in (*model.parameters(), *reader.parameters()) if id(p) not in chosen]
    return [
        torch.optim.Muon([{"params": matrices, "peak": rate}], weight_decay=0.01),
        torch.optim.AdamW(
            [{"params": rest, "peak": rate / 5}], betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def schedule(step: int, steps: int) -> float:
    """Warm up for fifty steps, hold, fall to nothing over the last 40%."""
    return min((step + 1) / 50, 1.0, (steps - step) / (0.4 * steps))


def batches(tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> Iterator[Batch]:
    """Start with short episodes of few words for the first 30% of the run, then draw on all
    words."""
    short = episodes.training_episodes(arguments.seed, examples=8, ease=1.0)
    full = episodes.training_episodes(arguments.seed + 1, examples=arguments.examples)
    for step in itertools.count():
        source = short if step < 0.3 * arguments.steps else full
        yield encode(tokenizer, list(itertools.islice(source, arguments.batch)))


def encode(tokenizer: PreTrainedTokenizerFast, batch: Sequence[episodes.Episode]) -> Batch:
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    tokens = tokenizer([e.render() for e in batch], padding=True, return_tensors="pt")["input_ids"]
    ends = torch.stack([(row == newline).nonzero().flatten()[1::2] for row in tokens])
    says = torch.tensor([[said(text) for text, _ in episode.rows] for episode in batch])
    return tokens, ends - 2, tokens.gather(1, ends - 1), says


def said(text: str) -> list[int]:
    """Return the class of each attribute, from 1; 0 where the text says nothing of it."""
    read = episodes.reading(text)
    return [
        1 + list(classes).index(read[name]) if name in read else 0
        for name, classes in ATTRIBUTES.items()
    ]


def step_(
    model: LlamaForCausalLM,
    reader: Reader,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
) -> Tensor:
    """Take one step; return the share of right labels after 0, 1, ... labelled texts."""
    tokens, places, labels, says = batch
    logits = model.lm_head(take(model.model(tokens).last_hidden_state, places))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()) + reader(
        places, says
    )
    loss.backward()
    nn.utils.clip_grad_norm_((*model.parameters(), *reader.parameters()), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return (logits.argmax(-1) == labels).float().mean(0)


def take(hidden: Tensor, places: Tensor) -> Tensor:
    return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))


@torch.inference_mode()
def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int) -> list[Row]:
    """Score every demo task: its own words at several shots, its words rotated, and all rows of
    words."""
    table = []
    for name, task in corpus.tasks().items():
        right = partial(accuracy, model, tokenizer, name)
        words = list(task.labels.values())
        turned = [*words[1:], words[0]]
        row: Row = {"task": name, "classes": len(words), "n": n}
        row |= {f"{shots} shots": right(words, words, shots, n) for shots in SHOTS}
        row["rotated: as before"] = right(turned, words, SHOTS[-1], n)
        row["rotated: as shown"] = right(turned, turned, SHOTS[-1], n)
        every = [list(group[: len(words)]) for group in LABEL_GROUPS]
        for shots in (SHOTS[0], SHOTS[-1]):
            row[f"all words, {shots} shots"] = mean(
                right(some, some, shots, n // 6) for some in every
            )
        table.append(row)
    return table


def accuracy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    shown: Sequence[str],
    expected: Sequence[str],
    shots: int,
    n: int,
) -> float:
    """Return the share of test rows that get the expected word of their class.

    Arguments:
        name: the demo task.
        shown: the word of each class in the demonstrations; every row has demonstrations of its
            own.
        expected: the word of each class that counts as right.
        shots: number of demonstrations.
        n: number of test rows.
    """
    rng = Random(f"demonstrations/{name}/{shots}")
    train, test = labelled(name, "train", 400), labelled(name, "test", n)
    prompts = []
    for text, _ in test:
        rows = tuple((body, shown[cls]) for body, cls in balanced(rng, train, len(shown), shots))
        prompts.append(episodes.Episode(("text", "label"), rows).render() + f"text: {text}\nlabel:")
    tokens = [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in shown]
    predicted = [
        p for at in range(0, n, 50) for p in best(model, tokenizer, prompts[at : at + 50], tokens)
    ]
    return sum(shown[p] == expected[cls] for p, (_, cls) in zip(predicted, test, strict=True)) / n


def labelled(name: str, split: corpus.Split, n: int) -> list[tuple[str, int]]:
    """Return a task's texts with the index of their class."""
    task = corpus.tasks()[name]
    texts = [row["text"] for row in corpus.rows(name, split, n)]
    return [
        (text, list(task.labels).index(episodes.reading(text)[task.attribute])) for text in texts
    ]


def balanced(
    rng: Random, train: Sequence[tuple[str, int]], classes: int, shots: int
) -> list[tuple[str, int]]:
    """Draw demonstrations in which the classes are as even as they can be, in random order."""
    order = rng.sample(range(classes), classes)
    drawn = [
        rng.choice([row for row in train if row[1] == order[i % classes]]) for i in range(shots)
    ]
    return rng.sample(drawn, len(drawn))


def best(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    tokens: Sequence[int],
) -> list[int]:
    encoded = tokenizer(list(prompts), padding=True, return_tensors="pt")
    last = encoded["attention_mask"].sum(1) - 1
    hidden = take(model.model(encoded["input_ids"]).last_hidden_state, last[:, None])
    return model.lm_head(hidden)[:, 0, tokens].argmax(-1).tolist()


def show(table: Sequence[Row]) -> str:
    head = list(table[0])
    lines = [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in table
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    main()
