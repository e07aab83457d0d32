"""The scoring contract: what is encoded, where it is split, what is scored."""

import json

import pytest
from families import VOCAB, build, save_family, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import eckart
from eckart.errors import ModelError, TaskError
from eckart.scoring.encoding import Encoder, common_prefix, differently_encoded, shared_text
from eckart.scoring.fitting import fed_lengths
from eckart.scoring.requests import build_requests, vocabulary_size
from eckart.tasks.prompts import Prompt
from eckart.weights.loading.config import context_window


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that merges across spaces, so that a boundary between prompt and label can
    vanish."""
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
    assert scored(Prompt("a", "it was:", (" pos", " neg"), 0), merging_tokenizer()) == [
        ": pos",
        ": neg",
    ]


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


@pytest.mark.parametrize("alphabet", ["0123456789 :", "ACGT:", "天地人：", "\n\t "])
@pytest.mark.parametrize("front", ["<bos>", "<bos> <pad>", ""])
def test_what_a_tokenizer_puts_in_front_is_found_in_any_alphabet(alphabet, front):
    pieces = ["<bos>", "<eos>", "<pad>", *alphabet]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.add_special_tokens(pieces[:3])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{front} $A <eos>".strip(),
        special_tokens=[("<bos>", 0), ("<eos>", 1), ("<pad>", 2)],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>"
    )
    expected = tuple(pieces.index(piece) for piece in front.split())
    for encoder in (Encoder(wrapped), Encoder(wrapped, [Prompt("a", "", (alphabet,), 0)])):
        assert encoder([alphabet[::-1]]) == [
            expected + tuple(pieces.index(c) for c in alphabet[::-1])
        ]


def test_a_tokenizer_class_that_reads_otherwise_than_its_file_is_noticed(tmp_path):
    """transformers builds GPT-2's pre-tokenizer anew, whatever tokenizer.json says of it."""
    tiny = tiny_tokenizer()
    tiny.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("oo", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tiny.save_pretrained(tmp_path)
    texts = ["the tea is good", "the bad and the rest", "a good end"]
    assert differently_encoded(AutoTokenizer.from_pretrained(tmp_path), texts) == 0
    settings = tmp_path / "tokenizer_config.json"
    said = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "GPT2Tokenizer"}
    settings.write_text(json.dumps(said), encoding="utf-8")
    by_class = AutoTokenizer.from_pretrained(tmp_path)
    assert type(by_class).__name__ == "GPT2Tokenizer"
    assert differently_encoded(by_class, texts) == 2
    assert differently_encoded(tiny_tokenizer(), texts) == 0  # it has no file


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
        TaskError,
        match=r"row train:17 is \d+ tokens long .* at most 64; .*--truncate-demonstrations",
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
        Prompt(str(i), f"the food is {word}", (" good", " bad and bad"), 0)
        for i, word in enumerate("abc")
    ]
    requests = build_requests(prompts, tiny_tokenizer())
    part = requests.subset([2]).without_prefix()
    assert part.rows == build_requests(prompts[2:], tiny_tokenizer()).without_prefix().rows
    assert (
        part.continuations
        == build_requests(prompts[2:], tiny_tokenizer()).without_prefix().continuations
    )


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


def pieces_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that is trained on the texts below, of one of the ways that decoders'
    tokenizers work."""
    model = models.Unigram() if kind == "unigram" else models.BPE()
    tokenizer = Tokenizer(model)
    if kind == "byte-level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif kind != "merges over spaces":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first", split=kind == "metaspace"
        )
    trainer = trainers.UnigramTrainer if kind == "unigram" else trainers.BpeTrainer
    tokenizer.train_from_iterator(shared_rows(), trainer(vocab_size=150, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def shared_rows() -> list[str]:
    demonstrations = "".join(
        f"text: the {x} is fine and  dandy\nlabel: good\n\n" for x in ("tea", "bed", "inn")
    )
    endings = [
        "bad",
        " two  spaces",
        "the inn\n",
        "7 8 9",
        "'s late",
        "é",
        "",
        "text:",
        "\n\n",
        "fine and dandy",
    ]
    return [f"{demonstrations}text: {ending}\nlabel:" for ending in endings]


@pytest.mark.parametrize(
    "kind", ["byte-level", "metaspace", "metaspace unsplit", "unigram", "merges over spaces"]
)
def test_what_texts_share_is_encoded_once_and_nothing_changes(kind):
    tokenizer = pieces_tokenizer(kind)
    prompts = [Prompt(str(i), text, (" good", " bad"), 0) for i, text in enumerate(shared_rows())]
    shared = shared_text(prompts)
    assert shared.endswith("text: ")
    texts = [p.context + c for p in prompts for c in p.continuations]
    whole, once = Encoder(tokenizer), Encoder(tokenizer, prompts)
    assert once(texts) == whole(texts)
    assert (
        (once._cut is not None) or "un" in kind or "over" in kind
    )  # their pieces may span any two characters


def test_a_cut_is_where_no_piece_of_the_vocabulary_could_span_it():
    tokenizer = tiny_tokenizer(add_bos=True)
    shared = "the food is good yes\n" * 10
    beginning = [Prompt("a", shared, (" good",), 0)]
    cut = Encoder(tokenizer, beginning)._cut
    assert cut.tokens[0] == tokenizer.bos_token_id
    assert shared[: cut.start].count("\n") >= 7
    assert Encoder(tokenizer, [Prompt("a", "the food", (" good",), 0)])._cut is None
    other = Encoder(tokenizer, beginning)(["another beginning"])
    assert other == Encoder(tokenizer)(["another beginning"])


def test_texts_without_anything_in_common():
    assert shared_text([]) == ""
    assert shared_text([Prompt("a", "one", (), 0), Prompt("b", "two", (), 0)]) == ""


@pytest.fixture
def larger(tmp_path):
    folder = save_family("llama", tmp_path / "llama")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<|extra{i}|>" for i in range(VOCAB - len(tokenizer))] + ["<|verdict|>"])
    tokenizer.save_pretrained(folder)
    return folder


def task_with(table, template):
    return eckart.Task.load(data=table, template=template, label_column="verdict", shots=1)


@pytest.mark.parametrize(
    "template", ["{{ review }}\n<|verdict|>", "<|verdict|>{{ review }}\nverdict:"]
)
def test_a_token_that_was_added_to_the_tokenizer_alone(larger, table, template):
    with pytest.raises(
        ModelError, match=rf"embeddings for {VOCAB} tokens.*token {VOCAB} .*verdict"
    ):
        eckart.evaluate(larger, task_with(table, template))
    with pytest.raises(ModelError, match=r"added to the tokenizer alone"):
        eckart.sweep(str(larger), task_with(table, template), layers=[0], rates=[0.5])


def test_a_label_word_that_the_model_has_no_token_for(larger, table):
    labelled = eckart.Task.load(
        data=table,
        text_column="review",
        label_column="verdict",
        shots=0,
        labels={"good": "<|verdict|>", "bad": "bad"},
    )
    with pytest.raises(ModelError, match="verdict"):
        eckart.evaluate(larger, labelled)


def test_tokens_that_no_row_uses_are_no_matter(larger, table):
    eckart.evaluate(larger, task_with(table, "{{ review }}\nverdict:"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_size_is_the_embeddings(family):
    assert vocabulary_size(build(family)) == VOCAB
