"""The commands that verify audit logs without their server. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import EXIT_FAILED

audit = typer.Typer(
    no_args_is_help=True,
    help="Verify audit logs without the server, and look at what they hold.\n\n"
    "Example: testudo-client audit verify run.tlog --federation-key federation.pub",
)


@audit.command("verify", epilog="Example: testudo-client audit verify run.tlog --federation-key federation.pub")
def audit_verify(
    path: Annotated[Path, typer.Argument(help="An exported log, or your folder.", show_default=False)],
    federation_key: Annotated[
        Path | None, typer.Option(help="federation.pub; none: your folder's.", show_default=False)
    ] = None,
    receipt: Annotated[list[Path] | None, typer.Option(help="A receipt to check too; repeat for more.")] = None,
    kept: Annotated[Path | None, typer.Option(help="A checkpoint that you kept: the log must extend it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check all that can be checked of a log without the server that wrote it: one line a check."""
    from testudo_client.audit_command import VerifyRequest, verify_logs

    if not verify_logs(VerifyRequest(path, federation_key, receipt or [], kept, as_json)):
        raise typer.Exit(EXIT_FAILED)


@audit.command("show", epilog="Example: testudo-client audit show run.tlog | less")
def audit_show(
    path: Annotated[Path, typer.Argument(help="An exported log, or your folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
) -> None:
    """Print what stands in a log, an entry a line. Verifies nothing."""
    from testudo_client.audit_command import show_logs

    if not show_logs(path, as_json=as_json):
        raise typer.Exit(EXIT_FAILED)


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.add_typer(audit, name="audit")
