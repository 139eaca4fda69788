"""The command that looks at an owner's table. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import EXIT_FAILED


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("inspect", epilog="Example: testudo-client inspect my-folder --plan plan.toml --data mine.csv")(
        _inspect
    )


def _inspect(
    data: Annotated[Path, typer.Option("--data", help="Your table, a CSV file.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Argument(help="Your folder: for the profile and the data card.", show_default=False)
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="The plan whose columns count.", show_default=False)] = None,
    meta_model: Annotated[
        Path | None, typer.Option(help="A published meta-model: its plan's columns count.", show_default=False)
    ] = None,
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Rows of each class that you mean to adapt on.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Look at your own table before anything is trained: what is wrong, where, and what to do. Nothing leaves.

    Ends with 1 where the table cannot be used. No message holds what a cell holds.
    """
    from testudo_client.quality.inspection import InspectRequest, inspect
    from testudo_common.console import working

    with working("looking at the table"):
        found = inspect(InspectRequest(data, folder, plan, meta_model, client, shots))
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(found.lines()))
    if found.stops:
        raise typer.Exit(EXIT_FAILED)
