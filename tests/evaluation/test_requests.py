"""The scoring contract: what is encoded, where it is split, what is scored."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from eckart.errors import ModelError, TaskError
from eckart.evaluation.fitting import fed_lengths
from eckart.evaluation.requests import Encoder, build_requests, common_prefix, context_window
from eckart.tasks.prompts import Prompt
from families import build, tiny_tokenizer


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that merges across spaces, so that a boundary between prompt and label can vanish."""
    pieces = ["<unk>", *"abcdefghijklmnopqrstuvwxyz :▁", ": ", ": p", "go", "goo", "good"]
    merges = [(":", " "), (": ", "p"), ("g", "o"), ("go", "o"), ("goo", "d")]
    tokenizer = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>")
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def scored(prompt: Prompt, tokenizer) -> list[str]:
    """Return the text that is scored for each continuation."""
    requests = build_requests([prompt], tokenizer)
    for c in requests.continuations[0]:
        row = requests.prefix + requests.rows[c.row]
        start = len(requests.prefix) + c.start
        assert row[start + 1 : start + len(c.tokens)] == c.tokens[:-1], (
            "the row feeds the tokens that it scores"
        )
    return ["".join(tokenizer.convert_ids_to_tokens(c.tokens)) for c in requests.continuations[0]]


def test_context_and_continuation_are_encoded_together_and_split_at_one_place():
    # ": p" is one token, so the label's first letter sits in a token that begins inside the prompt
    assert scored(Prompt("a", "it was:", (" pos", " neg"), 0), merging_tokenizer()) == [": pos", ": neg"]


def test_labels_that_share_their_first_token_are_scored_whole():
    tokenizer = tiny_tokenizer()
    found = scored(Prompt("a", "the", (" good", " good bad", " goods"), 0), tokenizer)
    assert [text.replace("Ġ", " ") for text in found] == [" good", " good bad", " goods"]


@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_stands_once_in_front(add_bos):
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    encoder = Encoder(tokenizer)
    bos = tokenizer.bos_token_id
    assert [ids.count(bos) for ids in encoder(["the food", "<bos>the food"])] == (
        [1, 1] if add_bos else [0, 1]
    )


def test_what_a_tokenizer_puts_at_the_end_is_left_out():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    (ids,) = Encoder(tokenizer)(["the"])
    assert ids[0] == 0
    assert 1 not in ids


def test_an_empty_prompt_is_scored_after_bos_and_refused_without_one():
    prompt = Prompt("test:3", "", (" good", " bad"), 0)
    assert build_requests([prompt], tiny_tokenizer(add_bos=True)).rows == ((0,),)
    with pytest.raises(ModelError, match="row test:3 has no token before its label"):
        build_requests([prompt], tiny_tokenizer())


def test_a_prompt_that_is_too_long_is_named():
    long = Prompt("train:17", "the food is good " * 30, (" good", " bad"), 0)
    short = Prompt("train:16", "the food", (" good", " bad"), 0)
    with pytest.raises(
        TaskError, match=r"row train:17 is \d+ tokens long .* at most 64; .*--truncate-demonstrations"
    ):
        build_requests([short, long], tiny_tokenizer(), window=64)


def test_the_window_holds_what_is_fed_and_not_the_last_scored_token():
    tokenizer = tiny_tokenizer()
    prompt = Prompt("a", "the food is", (" good",), 0)
    whole = len(tokenizer("the food is good")["input_ids"])
    assert fed_lengths([prompt], Encoder(tokenizer)) == [whole - 1]
    build_requests([prompt], tokenizer, window=whole - 1)
    with pytest.raises(TaskError):
        build_requests([prompt], tokenizer, window=whole - 2)


def test_the_prefix_never_swallows_a_scored_position():
    same = [Prompt(str(i), "the food is", (" good", " bad"), 0) for i in range(3)]
    requests = build_requests(same, tiny_tokenizer())
    assert all(requests.rows)
    assert all(c.start >= 0 for found in requests.continuations for c in found)


def test_subset_and_written_out_prefix_ask_for_the_same():
    prompts = [
        Prompt(str(i), f"the food is {word}", (" good", " bad and bad"), 0) for i, word in enumerate("abc")
    ]
    requests = build_requests(prompts, tiny_tokenizer())
    part = requests.subset([2]).without_prefix()
    assert part.rows == build_requests(prompts[2:], tiny_tokenizer()).without_prefix().rows
    assert part.continuations == build_requests(prompts[2:], tiny_tokenizer()).without_prefix().continuations


@pytest.mark.parametrize(
    ("rows", "expected"), [([(1, 2)], (1, 2)), ([(1, 2), (1,)], (1,)), ([(1,), (2,)], ()), ([], ())]
)
def test_common_prefix(rows, expected):
    assert common_prefix(rows) == expected


def test_context_windows_by_their_several_names():
    assert context_window(build("gpt2").config) == 2048
    assert context_window(build("llama").config) == 2048
    assert context_window(build("bloom").config) is None


def test_spaces_before_a_label_stay_with_the_label():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert scored(Prompt("a", "the", (" good", " bad"), 0), tokenizer) == ["Ġgood", "Ġbad"]


def test_labels_that_a_tokenizer_cannot_tell_apart_are_refused():
    tokenizer = merging_tokenizer()
    with pytest.raises(TaskError, match="'É' and 'Ü' are the same tokens"):
        build_requests([Prompt("a", "it was:", (" É", " Ü"), 0)], tokenizer)
