"""The prompt beside exported weights, as the program beside it reads it."""

import jinja2.sandbox
import pytest

from eckart.exports.card import prompt_text
from eckart.tasks import Task
from eckart.tasks.portable import PortableTask

EVIL = "{ cycler.__init__.__globals__.os.abort() }}"


def read(task: PortableTask, **fields: str) -> str:
    """Fill the prompt as the program does."""
    sandbox = jinja2.sandbox.SandboxedEnvironment(keep_trailing_newline=True)
    return sandbox.from_string(prompt_text(task)).render(fields)


@pytest.mark.parametrize("shown", ["a {{ b }}", "line\r\nend\r", "{{ \U0001f600", "{% raw %}", "{"])
@pytest.mark.parametrize("ending", ["", "\n", "\n{"])
def test_demonstrations_are_text(shown, ending, table):
    task = Task.load(data=table, text_column="review", label_column="verdict", shots=1)
    made = PortableTask.of(task)
    form = {**made.to_json()["format"], "separator": ending, "template": EVIL + "{{ text }}{"}
    form["query_template"] = None
    made = PortableTask.from_json({**made.to_json(), "format": form, "demonstrations": [shown]})
    prompt = made.prompt({"review": "fine"}, "row").context
    assert prompt.rstrip() == read(made, text="fine").rstrip()
