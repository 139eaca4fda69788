"""``testudo-server``: for those who run a federation. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepare a federation: its plan and its roster.\n\nExample: testudo-server check plan.toml --clients 12",
)


@app.command(epilog="Example: testudo-server check plan.toml --clients 12 --json")
def check(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file.", show_default=False)],
    clients: Annotated[int | None, typer.Option(min=1, help="How many clients will take part.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check a plan; print its digest, and what it costs one client in privacy and in bytes."""
    from testudo_common.plan.load import load_plan
    from testudo_server.preview import preview

    found = preview(load_plan(plan), clients)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {'not stated' if value is None else value}")


@app.command(epilog="Example: testudo-server roster keys --federation shops --add shop-1=5f0c...")
def roster(
    folder: Annotated[Path, typer.Argument(help="The folder of the federation's key and roster.", show_default=False)],
    federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)],
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="CLIENT=KEY", help="Admit a client by its public key; repeat for more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Admit clients and sign the roster; the federation's key is made the first time."""
    from testudo_common.errors import UsageError
    from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit

    members: dict[str, str] = {}
    for text in add or []:
        client, equals, key = text.rpartition("=")
        if not equals or not client or client in members:
            raise UsageError(f"{text!r} admits nobody", remedy="write each client once, as --add CLIENT=KEY")
        members[client] = key
    signed = admit(folder, federation, members)
    answer = {
        "federation": signed.federation,
        "members": len(signed.members),
        "digest": signed.digest.hex(),
        "roster": str(folder / ROSTER),
        "federation_key": (folder / FEDERATION_PUBLIC).read_text(encoding="ascii").strip(),
    }
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(f"{answer['roster']}: {answer['members']} members of {signed.federation!r}, digest {answer['digest']}")
    typer.echo(f"Federation's key: {answer['federation_key']}")
    typer.echo(f"Give every member {ROSTER} and {FEDERATION_PUBLIC}; let it compare the key by another way.")


def main() -> None:
    """Entry point of ``testudo-server``."""
    run_command(app)


if __name__ == "__main__":
    main()
