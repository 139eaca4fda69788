"""The command that judges a published meta-model on a federation. Reads the command line; all else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import EXIT_FAILED
from testudo_simulations.options import DataOption, JsonOption


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command(
        "evaluate",
        epilog="Example: testudo-simulate evaluate new.safetensors --data shops.csv --before old.safetensors --gate",
    )(_evaluate)


def _evaluate(
    meta_model: Annotated[Path, typer.Argument(help="A published meta-model.", show_default=False)],
    data: DataOption = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Part the rows by this column of the table; repeat for more.")
    ] = None,
    shifts: Annotated[bool, typer.Option("--shifts", help="Also score the rows under named shifts.")] = False,
    before: Annotated[Path | None, typer.Option(help="A meta-model to compare with.", show_default=False)] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.5, help="Being worse by less than this share is not worse.")
    ] = 0.02,
    gate: Annotated[bool, typer.Option("--gate", help="Fail unless it is better or not worse than --before.")] = False,
    engine: Annotated[
        bool, typer.Option("--engine/--one-by-one", help="Adapt all clients at once, or each by itself.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of intervals and shifts.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write evaluation.json to.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a published meta-model on all unseen clients of its federation: a gate for its release."""
    from testudo_simulations.judging.command import Asked, evaluate

    asked = Asked(meta_model, data, tuple(slices or ()), shifts, before, margin, gate, engine, seed, out, as_json)
    if not evaluate(asked):
        raise typer.Exit(EXIT_FAILED)
