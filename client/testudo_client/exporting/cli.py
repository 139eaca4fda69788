"""The command that exports the version in use. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("export", epilog="Example: testudo-client export my-folder --to exported --data mine.csv")(_export)


def _export(
    folder: Annotated[Path, typer.Argument(help="Your folder, with a version in use.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="A new folder for the files.", show_default=False)],
    formats: Annotated[
        str | None, typer.Option("--format", help="Any of torch, onnx, int8, parted by commas; none: all.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Your table, to try the files on; none: rows made up from the contract.", show_default=False),
    ] = None,
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the table.")] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of right answers (of the error) that a smaller file may lose.")
    ] = 0.01,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Export your version in use for torch, for ONNX, and in eight bits where that is faster and as accurate."""
    from testudo_client.exporting.command import Asked, run_export

    run_export(Asked(folder, to, formats, data, client, margin, as_json))
