"""The texts beside exported weights: a model card, the prompt, a program that scores with plain
transformers, and a Modelfile for Ollama."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Template

from eckart.exports.recipe import RECIPE, SUMS, Recipe, Scores
from eckart.scoring.encoding import Encoder
from eckart.tasks.chat import MARK
from eckart.tasks.portable import PortableTask
from eckart.weights.models import Tokenizer

CARD, BASE_CARD = "README.md", "README.base.md"
"""The model card, and the base model's own in a folder that has another."""
PROMPT, USE, MODELFILE = "prompt.jinja", "use.py", "Modelfile"
HERE = "{{ .Prompt }}"
"""Where what is asked stands in a Modelfile."""
CARRIED = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")
"""What the base model's card says that holds for this one too."""
PER = {
    "sum": "",
    "mean": " / len(text[start:])",
    "byte": " / len({end}.encode())",
    "character": " / len(word)",
}
"""The scorings that one row is enough for, as the program divides a label's log-likelihood."""

_PROGRAM = Template(
    '''\
"""Label rows (JSON, one a line, on standard input) as they were scored, with transformers alone."""
import json, os, pathlib, sys, jinja2.sandbox, torch, transformers as hf
here = pathlib.Path(__file__).parent
tokenizer = hf.AutoTokenizer.from_pretrained(here)
model = hf.AutoModelForCausalLM.from_pretrained(here, dtype=torch.{{ dtype }}).requires_grad_(False)
sandbox = jinja2.sandbox.SandboxedEnvironment(keep_trailing_newline=True)
prompt = sandbox.from_string((here / "prompt.jinja").read_text("utf-8"))
encode = lambda text: {{ front }}tokenizer(text, add_special_tokens=False)["input_ids"]
clean = lambda v: v if isinstance(v, (list, dict)) else "" if v is None else str(v){{ strip }}
{%- if listed %}
bare = lambda cell: cell["text"] if isinstance(cell, dict) else cell
{%- endif %}
for row in map(json.loads, sys.stdin):
    words, context = {{ words }}, prompt.render({{ fields }}){{ rstrip }}
    texts = [encode(context + {{ end }}) for word in words]
    start, values = len(os.path.commonprefix([encode(context), *texts])), []
    for word, text in zip(words, texts):
        said = model(torch.tensor([text])).logits[0, start - 1 : -1].float().log_softmax(-1)
        values.append(said[range(len(text) - start), text[start:]].sum().item(){{ per }})
    print(json.dumps({"label": words[values.index(max(values))], "values": values}), flush=True)
''',
    keep_trailing_newline=True,
)


def prompt_text(task: PortableTask) -> str:
    """Return the prompt as a Jinja2 template of a row's columns, demonstrations verbatim."""
    frame, query = task.frame, _closed(task.format.query_template or task.format.template)
    if frame.chat:
        query = f"{{% filter trim %}}{query}{{% endfilter %}}"
    return _verbatim(frame.before) + query + _verbatim(frame.after)


def _verbatim(text: str) -> str:
    """Write what Jinja2 would read as its own, across the seam too, or would change: its line
    ends."""
    if text.endswith("{") or any(mark in text for mark in ("{{", "{%", "{#", "\r")):
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return text


def _closed(template: str) -> str:
    """Return a template whose last braces, which are text, open nothing with what comes behind."""
    plain = template.rstrip("{")
    return plain + _verbatim(template[len(plain) :]) if plain != template else template


def program(task: PortableTask, tokenizer: Tokenizer, dtype: str) -> str:
    """Return the program that scores rows as they were scored, in the dtype of the scores."""
    front = [] if task.frame.chat else _front(tokenizer, task.frame.before or "a")
    strips = not task.frame.chat and task.format.query_template is None
    end = " + ".join(filter(None, (_text(task.frame.join), "word", _text(task.format.label_end))))
    words, cells = repr(list(task.labels)), ", ".join(f"row[{c!r}]" for c in task.columns.choices)
    if cells:  # a list may give its candidates names, of each or of all
        words = (
            f"[clean(bare(c)) for c in bare({cells})]"
            if task.listed
            else f"[*map(clean, [{cells}])]"
        )
    named = [f"{name!r}: clean(row[{cell!r}])" for name, cell in task.columns.fields.items()]
    if task.columns.row:
        others = f"for name in row if name != {task.columns.label!r}"
        named.append(f"'row': {{name: clean(row[name]) {others}}}")
    return _PROGRAM.render(
        dtype=dtype,
        listed=task.listed,
        front=f"{front} + " if front else "",
        strip=".strip()" if task.columns.strip else "",
        rstrip=".rstrip()" if strips else "",
        fields="{" + ", ".join(named) + "}",
        words=words,
        end=end,
        per=PER[task.scoring].replace("{end}", f"({end})"),
    )


def _text(text: str) -> str:
    return repr(text) if text else ""


def _front(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return what a tokenizer puts in front of such a text."""
    (dressed,) = Encoder(tokenizer)([text])
    plain = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return list(dressed[: len(dressed) - len(plain)])


def card(recipe: Recipe, folder: Path) -> str:
    """Return the model card, in the hub's metadata format, of an exported folder."""
    base = _base_data(folder / BASE_CARD)
    scores, task = recipe.as_written or recipe.scores, recipe.task
    data = ModelCardData(
        **{name: base[name] for name in CARRIED if base.get(name) is not None},
        base_model=recipe.model if recipe.revision else None,
        model_name=_title(recipe) if scores and task else None,
        tags=["eckart", "singular-value-clipping"],
        eval_results=_results(scores, task) if scores and task else None,
        ignore_metadata_errors=True,
    )
    files = {path.name for path in folder.iterdir()}
    return f"---\n{data.to_yaml()}\n---\n\n{_told(recipe, files)}"


def _title(recipe: Recipe) -> str:
    return Path(recipe.model).name + (", clipped" if recipe.edits else "")


def _base_data(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = ModelCard.load(path, ignore_metadata_errors=True)
    except Exception:  # a card that is none says nothing
        return {}
    return dict(loaded.data.to_dict())


def _results(scores: Scores, task: PortableTask) -> list[EvalResult] | None:
    found = scores.clipped or scores.unpruned or {}
    if found.get("accuracy") is None:
        return None
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=task.name,
            dataset_name=f"{task.full_name}, {task.shots} demonstrations, seed {task.seed}",
            dataset_split=scores.split,
            metric_type="accuracy",
            metric_name=f"Accuracy, n = {found['n']}",
            metric_value=found["accuracy"],
        )
    ]


def _told(recipe: Recipe, beside: set[str]) -> str:
    scores, task = filter(None, (recipe.scores, recipe.as_written)), recipe.task
    edits = ", ".join(f"`{edit}`" for edit in recipe.edits)
    unmeasured = "What this edit gains was not measured." if edits else "Nothing is clipped."
    said = [sentence for each in scores for sentence in each.says]
    paragraphs = [f"# {_title(recipe)}", " ".join(said) or unmeasured]
    if task is not None and said:
        paragraphs.append(
            f"That holds for the task `{task.full_name}` with {task.shots} demonstrations, this"
            " prompt and likelihood scoring, and says nothing of any other use of the model."
        )
    base = f"`{Path(recipe.model).name}`"
    if recipe.revision:
        base = f"`{recipe.model}`, revision `{recipe.revision}`"
    how = str(recipe.gguf) if recipe.gguf else f"stored in {recipe.dtype}"
    paragraphs.append(
        f"Of {base}, clipped: {edits or 'nothing'} (layer, part, rate; {how}). Every other tensor"
        " is the base model's."
    )
    files = {
        RECIPE: "the recipe, from which `eckart apply` makes this folder again",
        PROMPT: "the prompt, with its demonstrations verbatim",
        USE: f"labels new rows with plain transformers: `{_usage(task)}`" if task else "",
        MODELFILE: f"the prompt for Ollama: `ollama create NAME -f {MODELFILE}`",
        SUMS: "the digest of every file",
        BASE_CARD: "the base model's own card",
    }
    there = beside | {RECIPE, SUMS}
    listed = [f"- `{name}`: {what}" for name, what in files.items() if name in there]
    return "\n\n".join([*paragraphs, "\n".join(listed)]) + "\n"


def _usage(task: PortableTask) -> str:
    row = json.dumps(dict.fromkeys(task.columns.needed, "..."))
    return f"echo '{row}' | python {USE}"


def modelfile(name: str, recipe: Recipe) -> str:
    """Return an Ollama Modelfile of a GGUF file: greedy, with the task's prompt around what is
    asked, in place of a chat template.

    Where a row is one text, that is what is asked; otherwise the whole query, as the template would
    make it.
    """
    lines = [
        f"# {_line(recipe.model)} with {', '.join(recipe.edits) or 'nothing'} clipped by eckart.",
        "# ollama create NAME -f Modelfile; ollama run NAME 'the text of a row'",
        f"FROM ./{name}",
        "PARAMETER temperature 0",
    ]
    if recipe.task is None:
        return "\n".join([*lines, f'TEMPLATE """{HERE}"""']) + "\n"
    task, frame, chat = recipe.task, recipe.task.frame, recipe.task.format.chat
    query = task.format.null_query(MARK)
    single = query.count(MARK) == 1
    if not single:
        lines.append(f"# A prompt is a whole query: {json.dumps(task.format.template)} filled in.")
    before, _, after = frame.around(query if single else MARK).rpartition(MARK)
    before = before if chat is None else chat.without_bos(before)
    stop = task.format.label_end or ("" if chat else task.format.separator or "\n")
    longest = max(len(label.encode()) for label in task.labels)  # a token is a byte or more
    lines.append(f"PARAMETER num_predict {longest + 2}")
    if stop:  # a turn ends by itself
        lines.append(f'PARAMETER stop """{stop}"""')
    template = f"{_escaped(before)}{HERE}{_escaped(after)}"
    return "\n".join([*lines, f'TEMPLATE """{template}"""']) + "\n"


def _line(name: str) -> str:
    """Return a name in which no line ends: the next would be a command of the file's."""
    return " ".join(name.split())


def _escaped(text: str) -> str:
    """Write a text so that neither the Modelfile's quotes nor the template's braces end in it."""
    # Every brace that opens: one alone would join those of an action behind it.
    return re.sub(r'[{"]', lambda mark: f"{{{{ {json.dumps(mark[0])} }}}}", text)
