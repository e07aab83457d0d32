"""The errors of a user's input.

Every message is one line that says what is wrong, the value, the likely cause and the remedy.
The command line prints it and ends with status 2; anything else that is raised is a fault of ours.
"""


class EckartError(Exception):
    """The user's input is wrong; the message says what, the value, the likely cause and the
    remedy."""


class ModelError(EckartError):
    """A model cannot be loaded, read or taken apart."""


class NotANumberError(ModelError):
    """A model's outputs or weights are not numbers: the same edit fails again, whenever it is
    tried."""


class TaskError(EckartError):
    """A task, its data or its prompt is not usable."""


class EditError(EckartError):
    """An edit names a layer, a part or a rate that the model does not have."""


class RunError(EckartError):
    """A run cannot be opened, continued or written."""


class StudyError(EckartError):
    """A study file, or the grid of a sweep, is not usable."""
