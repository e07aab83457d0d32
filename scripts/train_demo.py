"""Train the demo's model from nothing on the demo's corpus: one command, one seed, two CPU cores.

    python scripts/train_demo.py --out src/eckart/demo/model
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eckart.demo import corpus

IGNORED = -100


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    tokenizer = make_tokenizer()
    model = make_model(arguments, tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train_(model, tokenizer, arguments)
    model.half().save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    minutes = (time.perf_counter() - start) / 60
    table = evaluate(model.float().eval(), tokenizer, arguments.rows)
    record(arguments, model, table, minutes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32, help="episodes a step")
    parser.add_argument("--examples", type=int, default=14, help="labelled texts an episode")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=256, help="width of the feed-forward blocks")
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate of Muon; AdamW's is a fifth")
    parser.add_argument("--rows", type=int, default=300, help="test rows a cell of the final table")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which a word with its leading space, or a field with its colon, is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = corpus.vocabulary()
    fields = {f"{name}:" for pair in corpus.FIELDS for name in pair}
    tokenizer.train_from_iterator([f" {word}" for word in words] + [word for word in words] + sorted(fields), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>", model_max_length=512
    )


def make_model(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
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


def train_(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> None:
    optimizers = make_optimizers(model, arguments.rate)
    data = batches(tokenizer, arguments)
    running = torch.zeros(arguments.examples, 2)
    start = time.perf_counter()
    for step in range(arguments.steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak"] * schedule(step, arguments.steps)
        running += step_(model, optimizers, *next(data))
        if (step + 1) % 100 == 0:
            right, loss = (running / 100 / arguments.batch).T
            shown = " ".join(f"{right[shots].item():.2f}" for shots in (0, 1, 2, 4, 7, arguments.examples - 1))
            print(
                f"step {step + 1:5d}  {time.perf_counter() - start:6.0f} s  loss {loss.mean().item():.3f}  right at 0, 1, 2, 4, 7, "
                f"{arguments.examples - 1} shots: {shown}",
                flush=True,
            )
            running.zero_()


def make_optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon([{"params": matrices, "peak": rate}], lr=rate, weight_decay=0.01),
        torch.optim.AdamW([{"params": rest, "peak": rate / 5}], lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step: int, steps: int) -> float:
    """Warm up for a hundred steps, hold, fall to nothing over the last 40%."""
    return min((step + 1) / 100, 1.0, (steps - step) / (0.4 * steps))


def batches(tokenizer: PreTrainedTokenizerFast, arguments: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield token rows, and where each label's prediction is made, and the label's token."""
    easy = corpus.training_episodes(arguments.seed, examples=arguments.examples, ease=1.0)
    full = corpus.training_episodes(arguments.seed + 1, examples=arguments.examples, ease=0.2)
    for step in itertools.count():
        source = easy if step < arguments.steps * 0.2 else full
        yield encode(tokenizer, list(itertools.islice(source, arguments.batch)))


def encode(tokenizer: PreTrainedTokenizerFast, episodes: list[corpus.Episode]) -> tuple[Tensor, Tensor, Tensor]:
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    rows = tokenizer([episode.render() for episode in episodes], padding=True, return_tensors="pt")["input_ids"]
    ends = torch.stack([(row == newline).nonzero().flatten()[1::2] for row in rows])
    return rows, ends - 2, rows.gather(1, ends - 1)


def step_(
    model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], rows: Tensor, places: Tensor, labels: Tensor
) -> Tensor:
    """Take one step on the labels' log-loss; return how often each was right and its loss, summed over episodes."""
    hidden = model.model(rows).last_hidden_state
    logits = model.lm_head(hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1])))
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    losses.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.stack([(logits.argmax(-1) == labels).sum(0), losses.detach().sum(0)], dim=1)


if __name__ == "__main__":
    main()
