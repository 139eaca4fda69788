"""The command that watches an own model. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class StreamName(StrEnum):
    """Detectors of the extra ``monitor``."""

    ADWIN = "adwin"
    PAGE_HINKLEY = "page-hinkley"
    NONE = "none"


def add_to(app: typer.Typer) -> None:
    """Add it to the program's commands."""
    app.command("watch", epilog="Example: testudo-client watch my-folder --data new.csv")(_watch)


def _watch(
    folder: Annotated[Path, typer.Argument(help="Your folder, with an own model in use.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Check the rows of this CSV file once; none: what was served.", show_default=False),
    ] = None,
    client: Annotated[str | None, typer.Option(help="Use only this client's rows of the file.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Make the rows of this CSV file what is compared with.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One check of what was served, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between checks.")] = 60.0,
    level: Annotated[
        float | None,
        typer.Option(
            help="How often a check may flag something while nothing drifts; 0.04 at first.", min=1e-6, max=0.49
        ),
    ] = None,
    least: Annotated[
        int | None, typer.Option(min=8, help="New answers that a check of what was served takes; 50 at first.")
    ] = None,
    many: Annotated[
        int | None, typer.Option(min=1, help="Flagged checks in a row after which a round is proposed; 5 at first.")
    ] = None,
    stream: Annotated[
        StreamName | None, typer.Option(help="A detector on losses besides the tests.", show_default=False)
    ] = None,
    readapt: Annotated[
        Path | None,
        typer.Option(help="Where it is due, adapt this meta-model again, on --rows.", show_default=False),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Your table, all of it, to adapt again on.", show_default=False)
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Show the last check to Prometheus at this loopback address.", show_default=False)
    ] = None,
    proposals: Annotated[bool, typer.Option("--proposals", help="List the proposed rounds, and end.")] = False,
    accept: Annotated[int | None, typer.Option(help="Accept this proposal. Nothing is sent.")] = None,
    dismiss: Annotated[int | None, typer.Option(help="Dismiss this proposal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: of checks an object a line.")] = False,
) -> None:
    """Watch your own model in use: drift of inputs, answers and outcomes, and what to do about it. Nothing leaves.

    With --once or --data it ends with 0 where all is fine, 10 warned, 11 adapt again, 12 a round is proposed. Level,
    least, many and stream are remembered.
    """
    from testudo_client.watching import command
    from testudo_client.watching.watch import WatchRequest
    from testudo_common.errors import UsageError

    command.existing_folder(folder)
    if proposals:
        command.proposals_of(folder, typer.echo, as_json=as_json)
        return
    if accept is not None or dismiss is not None:
        if None not in (accept, dismiss):
            raise UsageError("one proposal is accepted or dismissed at a time", remedy="leave one of the two out")
        number = accept if accept is not None else dismiss
        assert number is not None
        command.answer(folder, number, typer.echo, accepted=accept is not None, as_json=as_json)
        return
    if reference is not None:
        made = command.take_reference(command.ReferenceRequest(folder, reference, client))
        typer.echo(json.dumps(made) if as_json else _made(made))
        if data is None and not once:
            return
    chosen = {
        "level": level, "least": least, "many": many,
        "stream": None if stream is None else stream.value,
    }  # fmt: skip
    settings = {name: None if value == "none" else value for name, value in chosen.items() if value is not None}
    if (readapt is None) != (rows is None):
        raise UsageError("--readapt names the meta-model and --rows the table", remedy="give both, or neither")
    again = None if readapt is None or rows is None else command.adapting_again(folder, readapt, rows, client)
    request = WatchRequest(folder, data, client, settings, again)
    if data is not None or once:
        if metrics is not None:
            raise UsageError("--metrics needs somebody who goes on watching", remedy="leave --once and --data out")
        raise typer.Exit(command.check_once(request, typer.echo, as_json=as_json))
    command.keep_watching(request, typer.echo, every_seconds=every, metrics=metrics, as_json=as_json)


def _made(made: dict[str, object]) -> str:
    return (
        f"Reference of version {made['version']}: {made['rows']} rows, of which {made['outcomes']} have an outcome and"
        " were not adapted on. It stays here."
    )
