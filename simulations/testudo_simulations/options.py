"""Options that several commands of ``testudo-simulate`` have, and how a list is written in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

CORES = os.cpu_count() or 1

PlanArgument = Annotated[str, typer.Argument(help="A scenario's name, or the path of a plan.", show_default=False)]
DataOption = Annotated[Path | None, typer.Option("--data", help="The federation's data.", show_default=False)]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for the run; default runs/NAME-TIME.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the plan; repeat for more.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Runs at once, each in a process.")]


def listed(values: list[str] | None) -> tuple[str, ...]:
    """Each of the values parted by commas, once."""
    return tuple(dict.fromkeys(name.strip() for value in values or () for name in value.split(",") if name.strip()))
