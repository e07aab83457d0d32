"""The texts beside exported weights: a model card, the prompt, and a program that scores with
plain transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Template

from eckart.exports.recipe import RECIPE, SUMS, Recipe, Scores
from eckart.scoring.encoding import Encoder
from eckart.tasks.portable import PortableTask
from eckart.weights.models import Tokenizer

CARD, BASE_CARD = "README.md", "README.base.md"
"""The model card, and the base model's own in a folder that has another."""
PROMPT, USE = "prompt.jinja", "use.py"
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
    scores, task = recipe.scores, recipe.task
    data = ModelCardData(
        **{name: base[name] for name in CARRIED if base.get(name) is not None},
        base_model=recipe.model if recipe.revision else None,
        model_name=f"{Path(recipe.model).name}, clipped" if scores and task else None,
        tags=["eckart", "singular-value-clipping"],
        eval_results=_results(scores, task) if scores and task else None,
        ignore_metadata_errors=True,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_told(recipe, (folder / BASE_CARD).exists())}"


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
    value = (scores.clipped or scores.unpruned or {}).get("accuracy")
    if value is None:
        return None
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=task.name,
            dataset_name=f"{task.full_name}, {task.shots} demonstrations, seed {task.seed}",
            dataset_split=scores.split,
            metric_type="accuracy",
            metric_name="Accuracy",
            metric_value=value,
        )
    ]


def _told(recipe: Recipe, base_card: bool) -> str:
    scores, task = recipe.scores, recipe.task
    name = Path(recipe.model).name
    edits = ", ".join(f"`{edit}`" for edit in recipe.edits) or "nothing"
    said = list(scores.says) if scores else ["What this edit gains was not measured."]
    paragraphs = [f"# {name}, clipped", " ".join(said)]
    if task is not None and scores is not None:
        paragraphs.append(
            f"That holds for the task `{task.full_name}` with {task.shots} demonstrations, this"
            " prompt and likelihood scoring, and says nothing of any other use of the model."
        )
    base = f"`{recipe.model}`, revision `{recipe.revision}`" if recipe.revision else f"`{name}`"
    paragraphs.append(
        f"Of {base}, clipped: {edits} (layer, part, rate; stored in {recipe.dtype}). Every other"
        " tensor is the base model's."
    )
    files = [f"- `{RECIPE}`: the recipe, from which `eckart apply` makes this folder again"]
    if task is not None:
        files.append(f"- `{PROMPT}`: the prompt, with its demonstrations verbatim")
        if task.scoring in PER:
            files.append(f"- `{USE}`: labels new rows with plain transformers: `{_usage(task)}`")
    files.append(f"- `{SUMS}`: the digest of every file")
    if base_card:
        files.append(f"- `{BASE_CARD}`: the base model's own card")
    return "\n\n".join([*paragraphs, "\n".join(files)]) + "\n"


def _usage(task: PortableTask) -> str:
    row = json.dumps(dict.fromkeys(task.columns.needed, "..."))
    return f"echo '{row}' | python {USE}"
