"""``python -m testudo_server.deployment.healthcheck``: is a run's server well? An exit status for containers.

Asks the door's status page on this machine: 0 if it answers and the run has not failed, else 1. Reads no key.
"""

from __future__ import annotations

import json
import ssl
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import run_command
from testudo_common.errors import UsageError
from testudo_server.deployment.door import address
from testudo_server.provisioning.folder import FederationFolder

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 1 << 20


def ask(where: str, root: Path) -> str:
    """The run's state; ``none`` before there is a run.

    Args:
        where: ``127.0.0.1:PORT`` of the status page.
        root: The federation's CA, PEM.

    Raises:
        UsageError: It does not answer, or not as the door does.
    """
    at = address(where, loopback=True)
    refusal = UsageError("the status page does not answer", where=str(at), remedy="look at the server's log")
    try:
        context = ssl.create_default_context(cafile=str(root))
        context.check_hostname = False  # the certificate names the server as owners call it, not loopback
        connection = HTTPSConnection(at.host, at.port, timeout=TIMEOUT_SECONDS, context=context)
        connection.request("GET", "/status.json", headers={"host": "localhost", "connection": "close"})
        answer = connection.getresponse()
        found = json.loads(answer.read(MAX_BYTES))
        if answer.status != 200:
            raise refusal
        return "none" if found["run"] is None else str(found["run"]["state"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise refusal from error


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    federation: Annotated[Path, typer.Argument(help="The federation's folder.", show_default=False)],
    status: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Of the status page.")] = "127.0.0.1:9093",
) -> None:
    """Say whether the server is well."""
    state = ask(status, FederationFolder(federation).ca_certificate)
    if state == "failed":
        raise UsageError("the run failed", remedy="read why with testudo-server status")
    typer.echo(state)


if __name__ == "__main__":
    run_command(app)
