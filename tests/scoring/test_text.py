"""The text of the guard: windows, and what they say equals a plain computation."""

import pytest
import torch
from families import FAMILIES, build, tiny_tokenizer

from eckart import Edit, clip
from eckart.errors import ModelError, TaskError
from eckart.scoring.forward.windows import WindowReader, divergence
from eckart.scoring.text import WINDOW, GuardText, TextScorer
from eckart.weights.models import LoadedModel, load_model

TEXT = GuardText("The good food is in the town, and the view over it is the best. " * 12, "made")
LOW, HIGH = (Edit(0, "attn", 0.9),), (Edit(2, "mlp", 0.75),)


def scorer_of(family: str, text: GuardText = TEXT, bos: bool = False, **options) -> TextScorer:
    model = load_model(build(family), tokenizer=tiny_tokenizer(add_bos=bos))
    return TextScorer(model, text, **options)


@torch.inference_mode()
def distributions(scorer: TextScorer) -> list[list[torch.Tensor]]:
    """Return what full forwards say of every next token: all logits."""
    return [
        list(scorer.model.model(input_ids=torch.tensor([w])).logits[0].double().log_softmax(-1))
        for w in scorer.windows
    ]


def plainly(scorer: TextScorer, before, after) -> tuple[float, float]:
    """Return the loss and the divergence a token: a loop over tokens."""
    loss = divergence = tokens = 0
    for window, was, now in zip(scorer.windows, before, after, strict=True):
        for place, token in enumerate(window[1:]):
            loss -= float(now[place][token])
            p = was[place].exp()
            divergence += float((p * (was[place] - now[place]))[p > 0].sum())
            tokens += 1
    return loss / tokens, divergence / tokens


def read(scorer: TextScorer, *candidates):
    return {trial.edits: trial.score for trial in scorer.score(candidates, "all")}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_divergence_equal_a_plain_computation(family, recwarn):
    scorer = scorer_of(family)
    found = read(scorer, (), LOW, HIGH)
    before = distributions(scorer)
    for edits in (LOW, HIGH):
        with clip(scorer.model.model, edits):
            loss, kl = plainly(scorer, before, distributions(scorer))
        assert found[edits].log_loss == pytest.approx(loss, abs=1e-5)
        assert found[edits].divergence == pytest.approx(kl, abs=1e-5)
        assert kl > 1e-3, "an edit that changes nothing would prove nothing"
    assert found[()].log_loss == pytest.approx(plainly(scorer, before, before)[0], abs=1e-5)
    assert found[()].divergences == (0.0,) * len(scorer.windows)
    assert not recwarn.list, "nothing was read the slow way"


def test_windows_hold_every_token_once_and_what_stands_in_front(recwarn):
    scorer = scorer_of("llama", bos=True)
    plain = scorer.tokenizer(TEXT.text, add_special_tokens=False)["input_ids"]
    assert [token for window in scorer.windows for token in window[1:]] == plain
    assert {window[0] for window in scorer.windows} == {0}
    sizes = [len(window) for window in scorer.windows]
    assert max(sizes) <= WINDOW
    assert max(sizes) - min(sizes) <= 1
    assert read(scorer, LOW)[LOW].tokens == tuple(size - 1 for size in sizes)


def test_layers_below_the_edit_are_not_run_again(monkeypatch):
    scorer = scorer_of("llama", batch_tokens=256)
    monkeypatch.setattr(WindowReader, "_tried", lambda *_: True)  # what is checked runs all layers
    real = WindowReader._through_layers
    ran = []

    def counted(reader, batch, now):
        ran.append((now.start, len(batch)))
        return real(reader, batch, now)

    monkeypatch.setattr(WindowReader, "_through_layers", counted)
    read(scorer, (), HIGH)
    begun = [start for start, _ in ran]
    half = len(begun) // 2
    assert begun == [None] * half + [scorer.reader.trunk.point(HIGH)] * half


@pytest.mark.parametrize("fails", [1, 2])
def test_parts_that_do_not_agree_with_the_whole_are_not_used(monkeypatch, fails):
    """The first check is of the unpruned model, the second of where a clipped one's pass begins."""
    expected = read(scorer_of("gpt2"), (), HIGH)
    calls = []
    real = WindowReader._predicted

    def wrong(reader, output):
        calls.append(1)
        return real(reader, output) + 1e-2 * (len(calls) in at)

    windows = len(scorer_of("gpt2").windows)
    at = {1} if fails == 1 else {windows + 2}
    monkeypatch.setattr(WindowReader, "_predicted", wrong)
    scorer = scorer_of("gpt2")
    with pytest.warns(UserWarning, match="held whole" if fails == 1 else "through all layers"):
        found = read(scorer, (), HIGH)
    for edits, reading in expected.items():
        assert found[edits].log_loss == pytest.approx(reading.log_loss, abs=1e-5)
        assert found[edits].divergence == pytest.approx(reading.divergence, abs=1e-5)


def test_a_check_that_finds_no_room_says_so_and_blames_no_disagreement(monkeypatch):
    expected = read(scorer_of("gpt2"), (), HIGH)
    real, full = WindowReader._plainly, [MemoryError()]

    def once(reader, number):
        if full:
            raise full.pop()
        return real(reader, number)

    monkeypatch.setattr(WindowReader, "_plainly", once)
    with pytest.warns(UserWarning, match="memory is full") as said:
        found = read(scorer_of("gpt2"), (), HIGH)
    assert [str(each.message) for each in said] == [
        "text: parts of the model are not compared with its forward: memory is full"
    ]
    for edits, reading in expected.items():
        assert found[edits].divergence == pytest.approx(reading.divergence, abs=1e-5)


def test_states_that_do_not_fit_anywhere_are_computed_again(monkeypatch):
    expected = read(scorer_of("llama"), HIGH)
    scorer = scorer_of("llama", cache_memory=0)
    monkeypatch.setattr(scorer._states, "_write", lambda *_: None)
    assert read(scorer, HIGH)[HIGH].divergence == pytest.approx(expected[HIGH].divergence, abs=1e-6)


def test_half_precision_is_near_float32():
    expected = read(scorer_of("llama"), HIGH)[HIGH]
    model = load_model(build("llama").bfloat16(), tokenizer=tiny_tokenizer())
    found = read(TextScorer(model, TEXT), HIGH)[HIGH]
    assert found.log_loss == pytest.approx(expected.log_loss, abs=0.05)
    assert found.divergence == pytest.approx(expected.divergence, rel=0.1)


def test_a_model_that_was_clipped_into_no_numbers_fails_and_the_unpruned_one_does_not(monkeypatch):
    real = WindowReader.clipped

    def broken(reader, start, advance):
        losses, kls = real(reader, start, advance)
        return [float("nan"), *losses[1:]], kls

    monkeypatch.setattr(WindowReader, "clipped", broken)
    trials = {trial.edits: trial for trial in scorer_of("llama").score([(), LOW], "all")}
    assert trials[()].status == "done"
    assert trials[LOW].status == "failed"
    assert "window 0" in trials[LOW].error


def test_the_key_is_of_the_text_and_of_the_edit():
    scorer, other = scorer_of("llama"), scorer_of("llama", GuardText("Another text. " * 20))
    keys = {scorer.key(LOW, "all"), scorer.key((), "all"), other.key(LOW, "all")}
    assert len(keys) == 3
    assert scorer_of("llama").key(LOW, "all") in keys


def test_divergence_of_masked_tokens_is_a_number():
    before = torch.tensor([[0.5, 0.5, 0.0]]).log()
    after = torch.tensor([[0.25, 0.75, 0.0]]).log()
    assert divergence(before, after) == pytest.approx(0.14384, abs=1e-5)
    assert divergence(after, before) == pytest.approx(0.13081, abs=1e-5)


def test_the_text_that_comes_with_the_package_is_prose_of_several_kinds():
    text = GuardText.load()
    assert 1500 <= len(text.text.split()) <= 2500
    passages = text.text.strip().split("\n\n")
    assert len(passages) >= 8
    assert all(len(passage.split()) > 100 for passage in passages)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"\x80\x81\xff", "cannot read"),
        (b"text\0text", "binary"),
        (b"a" * 300_000, "a few thousand words are enough"),
        (None, "no guard text"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TaskError, match=said) as error:
        GuardText.load(path)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(TaskError, match="is a folder"):
        GuardText.load(tmp_path)


def test_a_text_of_one_token_predicts_nothing():
    with pytest.raises(TaskError, match=r"1 token\(s\) long"):
        scorer_of("llama", GuardText("a", "one"))


def test_a_model_that_reads_no_text_is_refused():
    model = load_model(build("llama"), tokenizer=tiny_tokenizer())
    with pytest.raises(ModelError, match="reads numbers and no text"):
        TextScorer(LoadedModel(model.model, None, "numbers"), TEXT)


def test_a_context_of_one_token_is_too_short():
    model = build("llama")
    model.config.max_position_embeddings = 1
    with pytest.raises(ModelError, match="at most 1 tokens at once"):
        TextScorer(load_model(model, tokenizer=tiny_tokenizer()), TEXT)
