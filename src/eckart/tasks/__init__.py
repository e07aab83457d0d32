"""Tasks: demonstrations, examples and prompts. Needs neither torch nor transformers."""

from eckart.tasks.harness import HarnessTask
from eckart.tasks.prompts import Example, Prompt
from eckart.tasks.spec import catalog
from eckart.tasks.task import Task

__all__ = ["Example", "HarnessTask", "Prompt", "Task", "catalog"]
