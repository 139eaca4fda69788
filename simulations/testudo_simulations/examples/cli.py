"""The command that writes the tables of a worked example. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Example(StrEnum):
    """Which."""

    shop = "shop"
    clinic = "clinic"


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("example", epilog="Example: testudo-simulate example shop my-example")(_example)


def _example(
    which: Annotated[Example, typer.Argument(help="Whose.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Gets the tables and plan.toml.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Another one makes other owners.")] = 0,
) -> None:
    """Write the tables and the plan of a worked example: docs/example-shop.md and docs/example-clinic.md."""
    from importlib import import_module
    from importlib.resources import files

    from testudo_common.errors import UsageError
    from testudo_common.files import write_atomically

    made = dict(import_module(f"testudo_simulations.examples.{which}").tables(seed))
    made["plan.toml"] = (files("testudo_simulations.examples") / f"{which}.toml").read_text(encoding="utf-8")
    there = [name for name in made if (folder / name).exists()]
    if there:
        raise UsageError(f"{there[0]} is there already", where=str(folder), remedy="name a new folder")
    for name, text in made.items():
        write_atomically(folder / name, text.encode(), durable=False)
    typer.echo(f"{folder}: {', '.join(made)}")
