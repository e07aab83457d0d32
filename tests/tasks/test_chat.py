"""Prompts in a model's chat template are what transformers makes of the same turns."""

import json

import pytest
from chats import CHATML, INST, MODES, SYSTEM, TEMPLATES, chatting, turns

from eckart import Task
from eckart.errors import TaskError
from eckart.tasks.portable import PortableTask


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    made = [{"text": f"the view {i}", "mark": ["bad", "good"][i % 2]} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def load(rows):
    said = {"data": rows, "template": "Is it good?\n{{ text }}\nmark:", "label_column": "mark"}
    return lambda chat, **more: Task.load(**{**said, "shots": 2, **more, "chat": chat})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("instruction", [None, "Judge."])
def test_a_prompt_is_what_transformers_makes_of_the_turns(load, name, mode, instruction):
    tokenizer = chatting(TEMPLATES[name])
    task = load(mode, instruction=instruction).for_tokenizer(tokenizer)
    for shots in (0, 1, 2):
        for example in task.validation[:3]:
            said, prompt = turns(task, example, shots), task.prompt(example, shots)
            asked = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            assert prompt.context.startswith(asked)
            for word, end in zip(task.labels, prompt.continuations, strict=True):
                answer = [*said, {"role": "assistant", "content": word}]
                whole = tokenizer.apply_chat_template(answer, tokenize=False)
                assert whole.startswith(prompt.context + end)
    assert task.prompt(task.validation[0]) == task.prompt(task.validation[0], 2)


@pytest.mark.parametrize(
    ("name", "end"), [("chatml", "good"), ("inst", " good"), ("thinking", "\n\ngood")]
)
def test_white_space_before_an_answer_is_the_answers(load, name, end):
    task = load("multiturn").for_tokenizer(chatting(TEMPLATES[name]))
    prompt = task.prompt(task.validation[0])
    assert prompt.continuations[1] == end
    assert prompt.context == prompt.context.rstrip() or name == "chatml"


@pytest.mark.parametrize("mode", MODES)
def test_a_null_prompt_shows_the_same_turns(load, mode):
    task = load(mode).for_tokenizer(chatting(SYSTEM))
    prompt = task.prompt(task.validation[0])
    null = task.null_prompt(prompt, text="N/A")
    assert null.context == prompt.context.replace(f"{task.validation[0].fields['text']}", "N/A")


@pytest.mark.parametrize("mode", MODES)
def test_a_label_end_is_scored_with_the_label_and_shown(load, mode):
    task = load(mode, label_end=" .").for_tokenizer(chatting(CHATML))
    prompt = task.prompt(task.validation[0])
    assert prompt.continuations == ("bad .", "good .")
    assert prompt.context.count(" .") == 2


@pytest.mark.parametrize("mode", MODES)
def test_without_its_rows_it_makes_the_same_prompts(load, rows, mode):
    task = load(mode)
    every = [json.loads(line) for line in rows.read_text().splitlines()]
    tokenizer = chatting(INST)
    told = task.for_tokenizer(tokenizer)
    for made in (PortableTask.of(task).for_tokenizer(tokenizer), PortableTask.of(told)):
        again = PortableTask.from_json(json.loads(json.dumps(made.to_json())))
        assert again.for_tokenizer(chatting(SYSTEM)) is again  # kept verbatim
        assert again.digest == told.digest
        for example in told.all[:5]:
            row = every[int(example.id.partition(":")[2])]
            for shots in (None, 1):
                prompt = again.prompt(row, example.id, shots)
                assert prompt == told.prompt(example, shots)
                assert again.null_prompt(prompt, shots) == told.null_prompt(prompt, shots)


def test_a_task_without_a_chat_is_written_and_known_as_ever(load):
    plain = load(None)
    assert plain.for_tokenizer(chatting(SYSTEM)) is plain
    assert "chat" not in PortableTask.of(plain).to_json()["format"]
    told = [load(mode).for_tokenizer(chatting(t)) for mode in MODES for t in (CHATML, SYSTEM)]
    digests = {task.digest for task in (plain, load("single"), load("multiturn"), *told)}
    assert len(digests) == 7


def test_other_draws_and_wordings_stay_in_the_chat(load):
    task = load("multiturn").for_tokenizer(chatting(SYSTEM))
    for other in (task.redrawn(seed=3), task.redrawn(shots=1), task.sealed_from([task])):
        assert other.prompt(other.validation[0]).context.startswith("<bos><|system|>")
    assert task.for_tokenizer(chatting(SYSTEM)) is task


def test_a_task_file_may_say_it(rows, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"data: {rows}\ntext: text\nlabel: mark\nshots: 2\nchat: multiturn\n")
    said = {"text_column": "text", "label_column": "mark", "shots": 2}
    one, other = Task.load(path), Task.load(data=rows, **said, chat="multiturn")
    assert one.format.chat == other.format.chat
    assert Task.load(path, chat="single").format.chat.mode == "single"
    path.write_text(path.read_text().replace("multiturn", "yes"))
    with pytest.raises(TaskError, match="'multiturn' or 'single'"):
        Task.load(path)


def test_the_date_is_always_the_same(load):
    task = load("single").for_tokenizer(chatting("{{ strftime_now('%d %b %Y') }}\n" + CHATML))
    assert task.prompt(task.validation[0]).context.startswith("26 Jul 2024\n<|user|>")


REFUSED = {
    "no template": (None, "has no chat template"),
    "several": ({"one": CHATML, "other": CHATML}, "has no chat template"),
    "raises": ("{{ raise_exception('one turn alone') }}", "one turn alone"),
    "broken": ("{% for %}", "takes no such conversation"),
    "shows nothing": ("hello", "does not show what the user says"),
    "parts": ("{{ messages[0]['content'][0]['text'] }}", "takes no such conversation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_does_not_do_is_refused_in_a_line(load, name):
    template, said = REFUSED[name]

    def ask():
        load("multiturn").for_tokenizer(chatting(template)).prompts("validation")

    with pytest.raises(TaskError, match=said) as caught:
        ask()
    assert "\n" not in str(caught.value)
    assert "--chat" in str(caught.value)


def test_prompts_before_a_model_is_known_are_refused(load):
    with pytest.raises(TaskError, match="no model is known yet"):
        load("single").prompts("validation")


def test_an_unknown_way_is_refused_in_a_line(load):
    with pytest.raises(TaskError, match="chat") as caught:
        load("turns")
    assert "'multiturn' or 'single'" in str(caught.value)
