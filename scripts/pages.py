"""What the site has beside the pages of docs/: the command line as the code declares it, and
CONTRIBUTING; and a word over each listing that the tests do not run. A hook of mkdocs."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
NOT_RUN = "Not run by the tests"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, text in (("reference/commands.md", commands()), ("contributing.md", contributing())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    return re.sub(r"^```console$", f'```console title="{NOT_RUN}"', markdown, flags=re.MULTILINE)


class Doctests(griffe.Extension):
    """Examples in docstrings are listings, whichever section they stand in."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^>>>(?:.*\S.*\n?)+", r"```pycon\n\g<0>\n```\n", obj.docstring.value, flags=re.M
            )


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")


def commands() -> str:
    """Return every verb with its arguments and options, as `--help` has them."""
    sys.path.insert(0, str(ROOT / "src"))
    import typer.main

    from eckart.cli.app import app

    root = typer.main.get_command(app)
    head = f"# The command line\n\n{root.help}\n"
    return head + "\n".join(line for verb in verbs(root, "eckart") for line in described(*verb))


def verbs(group, path: str) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from verbs(command, f"{path} {name}")


def described(path: str, command) -> Iterator[str]:
    """Yield a verb's lines: its help, its arguments, and its options by what they are about."""
    yield f"\n## {path}\n"
    yield escaped(command.help or "")
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if parameter.name == "help" or hasattr(command, "commands"):
            continue
        argument = parameter.param_type_name == "argument"
        heading = "Arguments" if argument else getattr(parameter, "rich_help_panel", None)
        name = (
            (parameter.metavar or parameter.name.upper()) if argument else ", ".join(parameter.opts)
        )
        said = f" (default `{parameter.default}`)" if shown(parameter.default) else ""
        panels.setdefault(heading or "Options", []).append(
            f"| `{name}` | {escaped(parameter.help or '')}{said} |"
        )
    for heading, rows in panels.items():
        yield f"\n| {heading} | is |\n| --- | --- |"
        yield from rows
    if command.epilog:
        yield "\n```sh"
        yield from (line for line in command.epilog.splitlines() if line.startswith("eckart "))
        yield "```"


def shown(default: object) -> bool:
    return default not in (None, False, True, "", ()) and not callable(default)


def escaped(text: str) -> str:
    return re.sub(r"([|*_<\[\]{}\\])", r"\\\1", text)
