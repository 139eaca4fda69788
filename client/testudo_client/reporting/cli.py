"""The command that makes an owner's report. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Reader(StrEnum):
    """For whom a report is."""

    OWNER = "owner"
    BUSINESS = "business"


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("report", epilog="Example: testudo-client report my-folder --for business")(report)


def report(
    folder: Annotated[Path, typer.Argument(help="Your folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default FOLDER/report.", show_default=False)
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="What testudo-client evaluate wrote; default FOLDER/evaluation.json.", show_default=False),
    ] = None,
    reader: Annotated[
        Reader, typer.Option("--for", help="owner: everything. business: what comes first, in plain words.")
    ] = Reader.OWNER,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of the summary.")] = False,
) -> None:
    """Report on your model, your data, what left this computer and what was spent: a page, a summary, and JSON."""
    from testudo_client.reporting.command import ReportRequest, make_report

    made = make_report(ReportRequest(folder, out, evaluation, reader is Reader.BUSINESS, as_json))
    if as_json:
        typer.echo(made.json_path.read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo(f"\n{made.page}")
