"""The commands that answer with an own model. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Your folder, with an own model in it.", show_default=False)]
Level = Annotated[float, typer.Option("--level", help="How often sets and intervals hold the truth, of 1.")]


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command("serve", epilog="Example: testudo-client serve my-folder")(serve)
    app.command("ask", epilog="Example: testudo-client ask my-folder --data rows.csv --to answers.csv")(ask)


def serve(
    folder: Folder,
    http: Annotated[str, typer.Option("--http", help="HOST:PORT for HTTP; port 0: any; none: not.")] = "127.0.0.1:8443",
    grpc: Annotated[str, typer.Option("--grpc", help="HOST:PORT for gRPC; port 0: any; none: not.")] = "127.0.0.1:8444",
    level: Level = 0.9,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Keep nothing of what is asked; no outcome can be told then.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Your table, to adapt to when asked.", show_default=False)
    ] = None,
    meta_model: Annotated[
        Path | None, typer.Option("--meta-model", help="The meta-model to adapt when asked.", show_default=False)
    ] = None,
    stays_here: Annotated[
        bool, typer.Option("--stays-here", help="When asked to adapt under a private plan: without privacy.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="A certificate of your own, PEM.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.", show_default=False)] = None,
    no_tls: Annotated[bool, typer.Option("--insecure-no-tls", help="Answer in clear, on this machine only.")] = False,
    plain_outside: Annotated[
        bool, typer.Option("--insecure-beyond-loopback", help="With --insecure-no-tls: to other machines too.")
    ] = False,
    share_unprotected: Annotated[
        bool,
        typer.Option(
            "--share-unprotected",
            help="Let other machines ask a model that was adapted without differential privacy.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say where it answers as a line of JSON.")] = False,
) -> None:
    """Answer requests with your own model, by HTTP and gRPC, until you stop it with Ctrl-C."""
    from testudo_client.serving.serve_command import ServeRequest, run_server

    _check_level(level)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z",
        stream=sys.stderr,
    )  # fmt: skip
    logging.getLogger("testudo.serve").setLevel(logging.INFO)
    request = ServeRequest(
        folder, http, grpc, level, not no_record, data, meta_model, stays_here, tls_cert, tls_key, no_tls,
        plain_outside, share_unprotected, as_json,
    )  # fmt: skip
    run_server(request, _say)
    # All is answered and written. Taking torch apart takes seconds, and a service manager waits for ten.
    sys.stderr.flush()
    os._exit(0)


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _check_level(level: float) -> None:
    from testudo_common.errors import UsageError

    if not 0.0 < level < 1.0:
        raise UsageError("a level is between 0 and 1", where="--level", remedy="such as 0.9")


def ask(
    folder: Folder,
    data: Annotated[Path, typer.Option("--data", help="Rows to answer, a CSV file.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="File for the answers; none: they are printed.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    level: Level = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON instead of CSV.")] = False,
) -> None:
    """Answer the rows of a file with your own model: predictions, and how sure they are. Nothing leaves."""
    from testudo_client.serving.ask_command import AskRequest
    from testudo_client.serving.ask_command import ask as answer

    _check_level(level)
    found = answer(AskRequest(folder, data, to, force, level, as_json))
    if to is None:
        typer.echo(found.text, nl=False)
        return
    shares = ", ".join(f"{number} {sure}" for sure, number in found.sure.items() if number)
    if as_json:
        typer.echo(json.dumps({"version": found.version, "rows": found.rows, "sure": found.sure, "to": str(to)}))
    else:
        typer.echo(f"{found.rows} rows answered by version {found.version}: {shares}. See {to}")
