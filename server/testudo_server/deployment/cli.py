"""The commands that run a federation on real machines. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

_AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command("run", epilog="Example: testudo-server run plan.toml federation --out runs/shops")(_run)
    app.command("status", epilog="Example: testudo-server status runs/shops --json")(_status)
    app.command("stop", epilog="Example: testudo-server stop runs/shops")(_stop)


def _run(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file.", show_default=False)],
    federation: Annotated[Path, typer.Argument(help="The federation's folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)],
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Owners to wait for before the first round; none: a full cohort.", show_default=False),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where owners connect; none: this machine alone.", show_default=False),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of the status page; none: the port after it.", show_default=False),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait for owners; none: for ever.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    service: Annotated[
        bool, typer.Option("--service", help="Begin the run in --out, or go on with it: for service managers.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Run a plan with the owners that were admitted, until its rounds are done or Ctrl-C."""
    from testudo_server.deployment import run_command
    from testudo_server.deployment.preflight import parse_address
    from testudo_server.store import RunStore

    options = run_command.RunOptions(
        plan,
        federation,
        out,
        clients,
        None if listen is None else parse_address(listen, "--listen"),
        None if status is None else parse_address(status, "--status"),
        resume or (service and RunStore(out).exists),
        wait,
    )
    found = run_command.run(options)
    if as_json:
        typer.echo(json.dumps(None if found is None else dataclasses.asdict(found), indent=2))


def _status(run: _Run, as_json: _AsJson = False) -> None:
    """Say how far a run is."""
    from testudo_server.deployment.run_status import read_status
    from testudo_server.deployment.status_command import killed, status_lines

    if as_json:
        found = read_status(run)
        typer.echo(json.dumps({**found.model_dump(mode="json"), "killed": killed(run, found)}, indent=2))
        return
    for line in status_lines(run):
        typer.echo(line)


def _stop(
    run: _Run,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for its end.")] = 60.0,
) -> None:
    """End a run's server in order; finished rounds are kept, and --resume goes on with them."""
    from testudo_server.deployment.status_command import stop

    typer.echo("Stopped." if stop(run, timeout_seconds=timeout) else "No server is running this run.")
