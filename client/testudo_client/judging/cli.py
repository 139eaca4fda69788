"""The command that judges a model on the owner's rows. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import EXIT_FAILED


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command(
        "evaluate", epilog="Example: testudo-client evaluate meta.safetensors --data mine.csv --slice region --shifts"
    )(_evaluate)


def _evaluate(
    meta_model: Annotated[
        Path | None, typer.Argument(help="A published meta-model; or leave it out and name --own.", show_default=False)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Your table with outcomes, a CSV file.", show_default=False)] = None,
    own: Annotated[
        Path | None, typer.Option("--own", help="Judge the version in use in this folder of yours.", show_default=False)
    ] = None,
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    shots: Annotated[
        str | None,
        typer.Option(help="Examples a class (rows, for numbers) to adapt on, such as 1,5,10; none: the plan's."),
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Part the rows by this column; repeat for more.")
    ] = None,
    shifts: Annotated[bool, typer.Option("--shifts", help="Also score the rows under named shifts.")] = False,
    before: Annotated[Path | None, typer.Option(help="A meta-model to compare with.", show_default=False)] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.5, help="Being worse by less than this share is not worse.")
    ] = 0.02,
    gate: Annotated[bool, typer.Option("--gate", help="Fail unless it is better or not worse than --before.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of intervals and shifts.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write evaluation.json to, for you alone.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Judge a published meta-model, or your own version in use, on your rows. Nothing leaves this computer."""
    from testudo_client.judging.command import Asked, evaluate

    asked = Asked(
        meta_model, data, own, client, shots, tuple(slices or ()), shifts, before, margin, gate, seed, out, as_json
    )
    if not evaluate(asked):
        raise typer.Exit(EXIT_FAILED)
