"""The verb `functions`: models that learn functions from examples, trained from nothing."""

from __future__ import annotations

import typer

from eckart.cli.trajectory import trajectory

functions = typer.Typer(
    name="functions", help="In-context functions: small models that learn a function from points and values."
)


@functions.callback()
def _root() -> None:
    """Keep each command a verb of its own."""


functions.command()(trajectory)
