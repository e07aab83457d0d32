"""The console: where output goes, how progress looks, and how a command ends."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from eckart.errors import EckartError, plainly
from eckart.reports.terminal import Said, print_on

# Newer typers bring their own click, older ones share the installed one: ask typer for its
# exceptions.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
ClickException: type[Exception] = typer.BadParameter.__mro__[2]

INTERRUPTED = 130
SILENCE = 30.0
"""After so many seconds a log is told how far something is."""
PIPE = 160
"""The width of a table that is read by a program or kept in a file."""

# What is there as soon as the command that is running has kept something, and what to call it.
_kept: dict[Path, Path] = {}

# What is printed is data: a label such as [bold] or :smile: is shown as it is.
errors = Console(stderr=True, markup=False, emoji=False)
output = Console(markup=False, emoji=False)


class Rate(ProgressColumn):
    """Rows per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="cyan")


def bar() -> Progress:
    """Return how far something is, on standard error, where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


@contextmanager
def progress_bar(what: str, rows: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar with rows per second on standard error; where that is no terminal, a line now and
    then, and one when done."""
    with bar() as progress:
        job, log = progress.add_task(what, total=rows), Log()
        of_all = "" if rows is None else f" of {rows}"

        def advance(done: int) -> None:
            progress.advance(job, done)
            log(lambda: f"{what}: {int(progress.tasks[0].completed)}{of_all}")

        yield advance
        speed = progress.tasks[0].finished_speed or progress.tasks[0].speed or 0
        done = int(progress.tasks[0].completed) if rows is None else rows
    say(f"{what}: {done} done" + (f", {speed:,.0f}/s" if speed else ""))


class Log:
    """Tells standard error now and then how far something is, where that is no terminal."""

    def __init__(self) -> None:
        self.told = time.monotonic()

    def __call__(self, line: Callable[[], str]) -> None:
        """Say a line, unless one was said a moment ago."""
        if not errors.is_terminal and time.monotonic() - self.told >= SILENCE:
            say(line())
            self.told = time.monotonic()


def answer(as_json: bool, document: Any, *shown: Any) -> None:
    """Print one JSON document, or show what says the same."""
    if as_json:
        print_json(document)
        return
    for each in shown:
        show(each)


def say(text: str) -> None:
    """Tell the user something on standard error."""
    print_on(errors, Said(text, "dim"))


def say_error(text: str) -> None:
    """Tell the user what is wrong, on standard error, in one line."""
    print_on(errors, Said(f"error: {' '.join(text.split())}", "red"))


def say_run(folder: Path) -> None:
    """Tell where a run is kept; what an interruption leaves behind is told by it."""
    note_kept(folder / "run.sqlite", folder)
    say(f"run: {folder}")


def note_kept(file: Path, place: Path) -> None:
    """Tell what is there once something is kept, and where that is, for whoever interrupts."""
    _kept[file] = place


def check_plot(plot: Path | None) -> None:
    """Refuse a figure's path before anything long is computed."""
    if plot is not None:
        from eckart.reports.figures import check_figure_path

        check_figure_path(plot)


def save_plot(plot: Path | None, draw: Callable[..., Any], *found: Any) -> None:
    """Draw what was found, where a figure was asked for, and say where it is."""
    if plot is not None:
        from eckart.reports.figures import save_figure

        save_figure(draw(*found), plot)
        say(f"figure: {plot}")


def typed() -> str:
    """Return the command that is running, as a shell would read it."""
    return shlex.join(["eckart", *sys.argv[1:]])


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinities, which JSON lacks, are a
    fault."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def show(what: Any) -> None:
    """Print a table or text on standard output; a pipe is as wide as COLUMNS says, or wide
    enough."""
    wide = os.environ.get("COLUMNS", "")
    width = int(wide) if wide.isdecimal() and int(wide) else PIPE
    print_on(
        output if output.is_terminal else Console(width=width, markup=False, emoji=False), what
    )


def run(command: Callable[[], Any]) -> int:
    """Run a command and return its exit status: 0, 2 for the user's input, 130 when interrupted, 1
    for our fault."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    _kept.clear()
    with _noticing_interrupts() as interrupts:
        try:
            result = command()
            sys.stdout.flush()
        except KeyboardInterrupt:
            result = INTERRUPTED
        except Exception as error:
            # An interrupt may surface as whatever it broke: an import half done, say.
            result = INTERRUPTED if interrupts else _explained(error)
    if result == INTERRUPTED:  # typer turns an interrupt into this value itself
        say(_interrupted())
    return result if isinstance(result, int) else 0


def _explained(error: Exception) -> int:
    """Say what went wrong, and return the exit status."""
    if isinstance(error, EckartError):
        return _refuse(str(error))
    if isinstance(error, UsageError):
        return _refuse(f"{_message(error).rstrip('.')}; see '{_path(error)} --help'")
    if isinstance(error, ClickException):
        return _refuse(_message(error))
    if isinstance(error, typer.Abort):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return 0
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EROFS,
        errno.EDQUOT,
        errno.EIO,
    ):
        _discard_output()
        return _refuse(
            f"output cannot be written ({error.strerror}); make room and run the same command again"
        )
    return _fault()


@contextmanager
def _noticing_interrupts() -> Iterator[list[int]]:
    """Interrupt as ever, and list the interrupts."""
    seen: list[int] = []
    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):  # a job in the background ignores them
        yield seen
        return

    def notice(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave() -> NoReturn:
    """End as an interrupt does, and at once: a thread may be at work that nobody waits for."""
    say(_interrupted())
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _interrupted() -> str:
    kept = [str(place) for file, place in _kept.items() if file.exists()]
    if kept:
        return (
            "interrupted; what was finished is kept, and the same command goes on from there:"
            f" {', '.join(kept)}"
        )
    return "interrupted; nothing new was kept"


def _fault() -> int:
    traceback.print_exc()
    say("this is a fault of eckart's; please report it with the lines above")
    return 1


def _discard_output() -> None:
    """Let Python's own last flush find nobody to complain to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str) -> int:
    say_error(message)
    return 2


def _message(error: Any) -> str:
    said = error.format_message()
    what, _, why = said.partition(": ")
    return f"{what}: {plainly(why)}" if why.startswith("Input should be") else said


def _path(error: Any) -> str:
    return error.ctx.command_path if error.ctx else "eckart"


def _show_warning(message: Warning | str, *_: Any) -> None:
    say(f"note: {' '.join(str(message).split())}")
