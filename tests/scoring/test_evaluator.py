"""The evaluator: trials, their keys, and what it does when the fast path cannot be trusted."""

import itertools
import warnings

import accelerate
import numpy as np
import pytest
import torch
from families import build, save_family, tiny_tokenizer
from transformers import Lfm2Config, Lfm2ForCausalLM

from eckart import Edit, Task, evaluate
from eckart.errors import EditError, ModelError, NotANumberError, TaskError
from eckart.scoring.encoding import Encoder
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.fitting import fed_lengths
from eckart.scoring.forward.packed import Packed
from eckart.scoring.forward.padded import can_share
from eckart.scoring.forward.plain import Alone
from eckart.scoring.forward.reader import Reader
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint
from eckart.scoring.methods import LogLikelihoods, combine, score
from eckart.selection.plan import Plan
from eckart.selection.search import run_plan
from eckart.weights.models import load_model


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


def loaded(family: str = "llama", seed: int = 0):
    return load_model(build(family, seed=seed), tokenizer=tiny_tokenizer())


def test_a_trial_is_reproducible_and_leaves_the_model_alone(task):
    model = loaded()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    evaluator = Evaluator(model, task)
    first = evaluator([Edit(0, "mlp", 0.9)], "validation")
    assert evaluator([Edit(0, "mlp", 0.9)], "validation").score == first.score
    assert evaluator([], "validation").score != first.score
    assert all(
        torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items()
    )


def test_equal_edits_have_equal_keys_and_others_do_not(task):
    evaluator = Evaluator(loaded(), task)
    one = evaluator.key([Edit(2, "mlp", 0.5), Edit(0, "attn", 0.5)], "test")
    assert one == evaluator.key(
        [Edit(0, "attn", 0.5), Edit(-1, "mlp", 0.5), Edit(1, "mlp", 0.0)], "test"
    )
    assert evaluator.key([], "test") == evaluator.key([Edit(1, "mlp", 0.0)], "test")
    others = [
        evaluator.key([Edit(2, "mlp", 0.5)], "test"),
        evaluator.key([Edit(2, "mlp", 0.5), Edit(0, "attn", 0.5)], "validation"),
        Evaluator(loaded(seed=1), task).key([Edit(2, "mlp", 0.5), Edit(0, "attn", 0.5)], "test"),
        Evaluator(loaded(), task, scoring="mean").key(
            [Edit(2, "mlp", 0.5), Edit(0, "attn", 0.5)], "test"
        ),
    ]
    assert len({one, *others}) == 5


def test_the_key_depends_on_the_demonstrations(task, table):
    other = Task.load(data=table, text_column="review", label_column="verdict", shots=4, seed=1)
    assert Evaluator(loaded(), task).key([], "test") != Evaluator(loaded(), other).key([], "test")


def test_metrics_agree_with_the_rows(task):
    result = evaluate(
        build("gpt2"), task, Edit(-1, "mlp", 0.5), split="all", tokenizer=tiny_tokenizer()
    )
    rows = list(result.rows())
    assert result.score.n == len(rows) == len(task.prompts("all"))
    right = [row["label"] == row["prediction"] for row in rows]
    assert result.score.accuracy == pytest.approx(np.mean(right))
    assert result.to_json()["edits"] == ["2:mlp:0.5"]


REAL = Reader.sums


def wrong_where(wrong):
    """Return a `sums` that is off by 4 nats for the readers that `wrong` names."""
    return lambda reader, *args, **kwargs: (
        REAL(reader, *args, **kwargs) + (4.0 if wrong(reader) else 0.0)
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda reader: isinstance(reader, Packed), "are read padded"),
        (lambda reader: bool(reader.requests.prefix), "without sharing their demonstrations"),
        (lambda reader: reader.budget > 1, "one by one"),
    ],
)
def test_a_model_whose_batches_differ_is_read_another_way(task, monkeypatch, wrong, said):
    model = loaded()
    expected = Evaluator(model, task)([], "validation").score
    monkeypatch.setattr(Reader, "sums", wrong_where(wrong))
    with pytest.warns(UserWarning, match=said):
        found = Evaluator(model, task)([], "validation").score
    assert np.allclose(found.log_likelihoods, expected.log_likelihoods, atol=1e-5)


def test_a_way_that_fails_is_left_for_another(task, monkeypatch):
    def broken(*_):
        raise TypeError("forward() got an unexpected keyword argument")

    monkeypatch.setattr(Packed, "read", broken)
    with pytest.warns(UserWarning, match="are read padded"):
        Evaluator(loaded(), task)([], "validation")


def test_memory_that_runs_out_is_not_taken_for_a_way_that_fails(task, monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(Packed, "read_prefix", short)
    evaluator = Evaluator(loaded(), task)
    with pytest.warns(UserWarning, match="memory is full"):
        evaluator.prepare("validation")
    with pytest.raises(MemoryError):
        evaluator([], "validation")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_whose_batches_are_always_wrong_is_read_one_by_one(task, monkeypatch, dtype):
    model = load_model(build("llama").to(getattr(torch, dtype)), tokenizer=tiny_tokenizer())
    expected = Evaluator(model, task)([], "validation").score
    monkeypatch.setattr(Reader, "sums", wrong_where(lambda reader: not isinstance(reader, Alone)))
    with pytest.warns(UserWarning, match="one by one"):
        found = Evaluator(model, task)([], "validation").score
    assert np.allclose(
        found.log_likelihoods, expected.log_likelihoods, atol={"float32": 1e-5}.get(dtype, 0.1)
    )


CANDIDATES = [Edit(1, "mlp", rate) for rate in (0.0, 0.5, 0.9)] + [
    Edit(2, "attn", 0.5),
    Edit(0, "attn", 0.5),
]


@pytest.mark.parametrize("method", ["sum", "prior"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "gemma2"])
def test_expected_candidates_score_as_they_do_alone(task, family, method, monkeypatch):
    model = loaded(family)
    left, put = set(), StateStore.put
    monkeypatch.setattr(
        StateStore, "put", lambda self, *args: (left.add(args[1]), put(self, *args))
    )
    shared = Evaluator(model, task, scoring=method)
    for trial in shared.score([[edit] for edit in CANDIDATES], "validation"):
        alone = Evaluator(model, task, scoring=method)(trial.edits, "validation").score
        assert trial.score.predictions == alone.predictions
        assert np.allclose(trial.score.log_likelihoods, alone.log_likelihoods, atol=1e-5)
        assert shared.states.held > 0
        assert left == {LayerPoint(1, after_attention=True), LayerPoint(2)}
    assert shared.states.held == 0


@pytest.mark.parametrize("family", ["llama", "bloom"])
@pytest.mark.parametrize("together", [True, False])
def test_no_order_of_edits_changes_a_score(task, family, together):
    """An edit of layer 0 is not taken for the unpruned model, whatever comes before and after
    it."""
    model = loaded(family)
    edits = [
        Edit(2, "mlp", 0.5),
        Edit(0, "attn", 0.9),
        Edit(2, "mlp", 0.9),
        Edit(1, "attn", 0.5),
        Edit(0, "mlp", 0.5),
    ]
    shared = Evaluator(model, task)
    for order in ([edits[1]], edits, [*reversed(edits)]):
        candidates = [[edit] for edit in order]
        if together:
            found = shared.score(candidates, "validation")
        else:
            found = (shared(edits, "validation") for edits in candidates)
        for trial in found:
            alone = Evaluator(model, task)(trial.edits, "validation").score
            assert np.allclose(trial.score.log_likelihoods, alone.log_likelihoods, atol=1e-5)


def test_splits_with_other_prompts_without_content_do_not_share_their_states(task):
    model = loaded()
    shared = Evaluator(model, task, scoring="prior", truncate_demonstrations=True)
    lengths = sorted(fed_lengths(task.prompts("test"), Encoder(model.tokenizer)))
    shared.window = lengths[-3]
    alone = Evaluator(model, task, scoring="prior", truncate_demonstrations=True)
    alone.window = shared.window
    edits = (Edit(1, "mlp", 0.5),)
    both = zip(*(shared.score([(), edits], split) for split in ("validation", "test")), strict=True)
    for found in itertools.chain(*both):
        expected = alone(found.edits, found.split).score
        assert np.allclose(found.score.log_likelihoods, expected.log_likelihoods, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tail_that_ignores_the_edit_is_noticed(task, monkeypatch, dtype):
    """A mild edit may hide within bfloat16's rounding; a harsh one is checked again."""
    model = load_model(build("llama").to(getattr(torch, dtype)), tokenizer=tiny_tokenizer())
    evaluator = Evaluator(model, task)
    unedited, real = {}, Reader.sums

    def ignores(reader, start=None, *args, **kwargs):
        if start == LayerPoint(1, after_attention=True):
            return unedited[reader]
        found = real(reader, start, *args, **kwargs)
        return unedited.setdefault(reader, found) if start is None else found

    monkeypatch.setattr(Reader, "sums", ignores)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rates = [0.1, 0.5, 0.95]
        candidates = [(), *((Edit(1, "mlp", rate),) for rate in rates)]
        *_, last = evaluator.score(candidates, "validation")
        found = last.score
    assert any("run through all layers" in str(one.message) for one in caught)
    monkeypatch.undo()
    alone = Evaluator(model, task)([Edit(1, "mlp", 0.95)], "validation").score
    assert np.allclose(found.log_likelihoods, alone.log_likelihoods, atol=1e-2)


def test_a_search_leaves_nothing_behind_in_memory(task):
    evaluator = Evaluator(loaded(), task)
    run_plan(Plan(rates=(0.0, 0.5), layer=1), evaluator)
    assert (evaluator.states.held, evaluator.states.filed) == (0, 0)
    assert evaluator._factors == {}


def test_candidates_whose_tail_is_wrong_run_through_all_layers(task, monkeypatch):
    model = loaded()
    alone = Evaluator(model, task)([Edit(1, "mlp", 0.5)], "validation").score
    real = StateStore.get
    monkeypatch.setattr(
        StateStore, "get", lambda *args: (found := real(*args)) and tuple(s + 1 for s in found)
    )
    evaluator = Evaluator(model, task)
    candidates = [(), (Edit(1, "mlp", 0.5),)]
    with pytest.warns(UserWarning, match="candidates run through all layers"):
        first = [trial.score for trial in evaluator.score(candidates, "validation")]
    again = [trial.score for trial in evaluator.score(candidates, "validation")]
    assert first == again
    _, first = first
    assert np.allclose(first.log_likelihoods, alone.log_likelihoods, atol=1e-5)


def test_long_rows_show_fewer_demonstrations_and_the_others_all(task):
    model = loaded()
    whole = sorted(fed_lengths(task.prompts("validation"), Encoder(model.tokenizer)))
    window = model.model.config.max_position_embeddings = whole[-3]
    with pytest.raises(TaskError, match="truncate-demonstrations"):
        Evaluator(model, task)([], "validation")
    evaluator = Evaluator(model, task, truncate_demonstrations=True)
    found = evaluator.fitted("validation").prompts
    shots = [prompt.context.count("verdict:") - 1 for prompt in found]
    long = sum(length > window for length in whole)
    assert sorted(shots) == [3] * long + [4] * (len(found) - long)
    assert max(fed_lengths(found, Encoder(model.tokenizer))) <= window
    assert (
        evaluator.notes("validation")[-1]
        == f"validation: {long} rows show fewer demonstrations, as few as 3, to fit into {window}"
        " tokens"
    )
    assert evaluator([], "validation").score.n == len(task.validation)
    assert evaluator.key([], "validation") != Evaluator(model, task).key([], "validation")
    lengths = fed_lengths(task.prompts("test"), Encoder(model.tokenizer))
    fits = next(row for row, length in enumerate(lengths) if length <= window)
    row = f"test[{fits}:{fits + 1}]"
    assert evaluator.key([], row) == Evaluator(model, task).key([], row)


def test_rows_that_never_fit_are_left_out_when_asked(task):
    model = loaded()
    alone = [task.prompt(example, 0) for example in task.validation]
    window = model.model.config.max_position_embeddings = sorted(
        fed_lengths(alone, Encoder(model.tokenizer))
    )[-4]
    with pytest.raises(TaskError, match=f"at most {window}"):
        Evaluator(model, task, truncate_demonstrations=True)([], "validation")
    evaluator = Evaluator(model, task, truncate_demonstrations=True, drop_long_rows=True)
    assert evaluator([], "validation").score.n == len(task.validation) - 3
    assert (
        evaluator.notes("validation")[-1]
        == f"validation: left out 3 rows that are longer than {window} tokens"
    )
    model.model.config.max_position_embeddings = 2
    with pytest.raises(TaskError, match="no validation row fits into the 2 tokens"):
        Evaluator(model, task, drop_long_rows=True)([], "validation")


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [("float16", "bfloat16 or float32"), ("bfloat16", "--dtype float32"), ("float32", "damaged")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["every logit", "one logit", "a layer"])
def test_outputs_that_are_no_numbers_are_an_error(task, dtype, remedy, value, where):
    model = load_model(build("llama").to(getattr(torch, dtype)), tokenizer=tiny_tokenizer())
    head = model.model.lm_head.weight
    tensor = {
        "every logit": head,
        "one logit": head[300],
        "a layer": model.model.model.layers[1].mlp.down_proj.weight,
    }[where]
    with torch.no_grad():
        tensor.fill_(value)
    with pytest.raises(
        NotANumberError, match=rf"\(NaN or infinite\) for .* row\(s\), such as .*{remedy}"
    ):
        Evaluator(model, task)([], "validation")


def test_an_edit_whose_outputs_overflow_is_a_failed_trial(task, tmp_path, monkeypatch):
    model = loaded()
    real = Reader.sums

    def overflows(reader, start=None, *args, **kwargs):
        return real(reader, start, *args, **kwargs) - (np.inf if start is not None else 0.0)

    plan, scorer = Plan(rates=(0.0, 0.5, 0.9), layer=1), Evaluator(model, task)
    monkeypatch.setattr(Reader, "sums", overflows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = run_plan(plan, scorer, tmp_path / "run")
    assert [c.trial.status for c in study.candidates] == ["done", "failed", "failed"]
    assert "NaN or infinite" in study.candidates[1].trial.error
    assert study.rate == 0


def test_a_label_that_begins_with_another_is_refused_where_it_can_never_win(table):
    said = {"data": table, "text_column": "review", "label_column": "verdict", "shots": 2}
    task = Task.load(**said, labels={"good": "the food", "bad": "the food is bad"})
    with pytest.raises(
        TaskError, match=r"'the food is bad' begins with the tokens of 'the food'.*--scoring mean"
    ):
        Evaluator(loaded(), task)([], "validation")
    with pytest.raises(TaskError, match="never predicted"):
        Evaluator(loaded(), task).tokens("validation", ["sum"])
    for method in ("mean", "byte", "prior", "contextual"):
        assert Evaluator(loaded(), task, scoring=method)([], "validation").score is not None


def test_a_label_scored_with_its_end_can_win_although_it_begins_with_another(table):
    said = {"data": table, "text_column": "review", "label_column": "verdict", "shots": 2}
    task = Task.load(**said, labels={"good": "the", "bad": "the food"}, label_end="\\n")
    prompt = task.prompts("validation")[0]
    assert set(prompt.continuations) == {" the\n", " the food\n"}
    assert prompt.context.count("\n\n") == 0, "the separator is that line break already"
    assert Evaluator(loaded(), task)([], "validation").score is not None
    ended = Task.load(**said, label_end="<eos>")
    assert ended.prompts("validation")[0].context.count("<eos>\n") == 2
    assert len({t.digest for t in (task, ended, Task.load(**said))}) == 3


def test_no_such_layer(task):
    with pytest.raises(EditError, match="7"):
        Evaluator(loaded(), task)([Edit(7, "mlp", 0.5)], "validation")


def test_prior_takes_away_what_an_empty_prompt_gives(task):
    model = loaded()
    sums = evaluate(model, task, scoring="sum").score.log_likelihoods
    prior = evaluate(model, task, scoring="prior").score.log_likelihoods
    difference = np.array(sums) - np.array(prior)
    assert np.allclose(difference, difference[0], atol=1e-5), "one null prompt serves all rows"
    assert not np.allclose(difference[0], 0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("sum", [-6.0, -4.0]),
        ("mean", [-2.0, -4.0]),
        ("byte", [-0.5, -2.0]),
        ("character", [-0.6, -4.0]),
        ("prior", [-5.0, -1.0]),
        ("logit", [3.0, 6.0]),
    ],
)
def test_what_ranks_the_labels(method, expected):
    sums, tokens, lengths = np.array([[-6.0, -4.0]]), np.array([[3, 1]]), np.array([[12, 2]])
    reading = LogLikelihoods(
        *(sums, tokens, lengths, np.array([[10, 1]])),
        {"prior": np.array([[[-1.0, -3.0]]])},
        np.array([[9.0, 6.0]]),
    )
    assert combine(method, reading).tolist() == [expected]


def test_of_equal_values_the_first_label_wins():
    assert score(np.array([[-1.0, -1.0]]), [1], ["a"]).predictions == (0,)


def test_a_live_model_keeps_its_dtype_and_place():
    with pytest.raises(ModelError, match="convert it first"):
        load_model(build("llama"), tokenizer=tiny_tokenizer(), dtype="bfloat16")
    with pytest.raises(ModelError, match="needs its tokenizer"):
        load_model(build("llama"))
    assert (
        load_model(build("llama").to(torch.bfloat16), tokenizer=tiny_tokenizer()).dtype
        == "bfloat16"
    )


def test_a_fingerprint_follows_weights_configuration_and_tokenizer():
    one = loaded().fingerprint
    assert one == loaded().fingerprint
    other = build("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-4
    assert load_model(other, tokenizer=tiny_tokenizer()).fingerprint != one
    other = build("llama")
    other.config.rms_norm_eps = 1e-3
    assert load_model(other, tokenizer=tiny_tokenizer()).fingerprint != one
    assert load_model(build("llama"), tokenizer=tiny_tokenizer(add_bos=True)).fingerprint != one


def recurrent():
    """A tiny model that keeps a state instead of keys and values in some layers."""
    sizes = {"vocab_size": 304, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2}
    heads = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention"],
    }
    torch.manual_seed(0)
    return Lfm2ForCausalLM(Lfm2Config(**sizes, **heads)).eval()


@pytest.mark.parametrize("method", ["sum", "prior"])
def test_a_model_with_a_recurrent_state_is_read_without_sharing(task, method):
    model = recurrent()
    assert not can_share(model)
    with pytest.warns(UserWarning, match="without sharing"):
        found = evaluate(model, task, scoring=method, tokenizer=tiny_tokenizer())
    assert found.score.n == len(task.validation)


def test_float64_is_a_dtype_like_the_others(task):
    double = evaluate(build("llama").double(), task, tokenizer=tiny_tokenizer()).score
    single = evaluate(build("llama"), task, tokenizer=tiny_tokenizer()).score
    assert np.allclose(double.log_likelihoods, single.log_likelihoods, atol=1e-4)


def test_the_prior_of_a_shortened_row_is_of_its_own_demonstrations(task):
    model = loaded()
    lengths = sorted(fed_lengths(task.prompts("validation"), Encoder(model.tokenizer)))
    model.model.config.max_position_embeddings = lengths[-3]
    options = {"truncate_demonstrations": True}
    sums = evaluate(model, task, scoring="sum", **options).score.log_likelihoods
    prior = evaluate(model, task, scoring="prior", **options).score.log_likelihoods
    shots = Evaluator(model, task, **options).fitted("validation").shots
    nulls = {tuple(np.round(np.subtract(a, b), 4)) for a, b in zip(sums, prior, strict=True)}
    assert len(nulls) == len(set(shots)) == 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_a_model_that_accelerate_spreads_over_devices_scores_the_same(task, family):
    """Here the devices are one; what differs from a plain model are the hooks that accelerate puts
    around forwards."""
    expected = Evaluator(loaded(family), task)
    spread = loaded(family)
    accelerate.dispatch_model(spread.model, {"": "cpu"}, main_device="cpu", force_hooks=True)
    evaluator = Evaluator(spread, task)
    for trial in evaluator.score([[edit] for edit in CANDIDATES], "validation"):
        assert trial.score == expected(trial.edits, "validation").score
        assert evaluator.states.held > 0


def test_a_device_map_is_passed_on(tmp_path):
    folder = save_family("llama", tmp_path)
    assert load_model(folder, device_map="cpu").model.device.type == "cpu"
    with pytest.raises(
        ModelError, match=r"no device map .everywhere.; the device maps are auto, balanced"
    ):
        load_model(folder, device_map="everywhere")
