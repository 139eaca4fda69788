"""The commands that run a data owner's node on real machines. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import EXIT_FAILED

Folder = Annotated[Path, typer.Argument(help="Your folder.", show_default=False)]
PlanFile = Annotated[Path, typer.Option("--plan", help="The plan that you approved.", show_default=False)]
Table = Annotated[Path, typer.Option("--data", help="Your table, a CSV file.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command("run", epilog="Example: testudo-client run my-folder --plan plan.toml --data mine.csv")(run)
    app.command("health", epilog="Example: testudo-client health my-folder")(health)
    app.command("doctor", epilog="Example: testudo-client doctor my-folder --plan plan.toml --data mine.csv")(doctor)
    app.command("fetch", epilog="Example: testudo-client fetch my-folder")(fetch)


def run(
    folder: Folder,
    plan: PlanFile,
    data: Table,
    health: Annotated[
        str | None, typer.Option(help="Tell by gRPC whether all is well, on 127.0.0.1:PORT; port 0: any.")
    ] = None,
    stock_polls: Annotated[
        bool, typer.Option("--stock-polls", help="Leave Flower's polls as they are: slower, and fewer requests.")
    ] = False,
    use_proxy: Annotated[
        bool, typer.Option("--use-proxy", help="Reach the server through the proxy that the environment names.")
    ] = False,
) -> None:
    """Take part: answer the federation's requests with the code installed here, until you stop it with Ctrl-C."""
    from testudo_client.deployment.run_command import RunRequest
    from testudo_client.deployment.run_command import run as run_node

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z",
        stream=sys.stderr,
    )  # fmt: skip
    for name in ("testudo.client", "testudo.flower"):
        logging.getLogger(name).setLevel(logging.INFO)
    status = run_node(RunRequest(folder, plan, data, health, stock_polls, use_proxy))
    # All is written, every child has ended. Taking torch apart takes seconds, and a service manager waits for ten.
    sys.stderr.flush()
    os._exit(status)


def health(
    folder_or_address: Annotated[
        str, typer.Argument(help="Your folder, or HOST:PORT of the health service.", show_default=False)
    ],
) -> None:
    """Ask a running node whether all is well: status 0 if it is connected and answers, 1 if not."""
    from testudo_client.deployment.health import address_of, ask_health

    answer = ask_health(address_of(folder_or_address))
    typer.echo(answer)
    if answer != "serving":
        raise typer.Exit(EXIT_FAILED)


def doctor(
    folder: Folder,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan, to check it too.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Your table; needs --plan.", show_default=False)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not look for the server.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Look whether a node would work here: network, certificates, clock, files, plan, data, memory, and a dry round."""
    from testudo_client.deployment.check import Verdict
    from testudo_client.deployment.doctor import DoctorRequest, examine

    found = []
    for check in examine(DoctorRequest(folder, plan, data, offline)):
        found.append(check)
        if not as_json:
            typer.echo(f"{check.verdict:<8} {check.name}: {check.sentence}")
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found], indent=2))
    if any(check.verdict is Verdict.FAILS for check in found):
        raise typer.Exit(EXIT_FAILED)


def fetch(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Get the federation's roster, checked with the pinned key, and the plan that it proposes."""
    from testudo_client.deployment.fetch import fetch as fetch_files

    fetched = fetch_files(folder)
    if as_json:
        answer = {**asdict(fetched), "plan": None if fetched.plan is None else str(fetched.plan)}
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(f"Roster: {fetched.members} members, signed by your federation; you are one of them.")
    for names, what in (
        (fetched.joined, "new"), (fetched.vanished, "not on it any more"), (fetched.changed, "with another key"),
    ):  # fmt: skip
        if names:
            typer.echo(f"  {what}: {', '.join(names)}")
    if fetched.vanished or fetched.changed:
        typer.echo("Warning: ask your federation why, if you do not know.", err=True)
    if fetched.plan is None:
        typer.echo("No plan is proposed now.")
        return
    typer.echo(f"Plan {fetched.plan_name!r}, digest {fetched.plan_digest}: {fetched.plan}")
    typer.echo(f"Look at it: testudo-client preview {fetched.plan} {folder}")
    typer.echo(f"and then:   testudo-client approve {fetched.plan} {folder}")
