"""``testudo-server``: for those who run a federation. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from testudo_common.commands import run_command
from testudo_common.key_files import LogKeyKind

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
    log_key: Annotated[
        LogKeyKind | None,
        typer.Option(help="What signs the audit log; without: the key that is there, or ed25519.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Admit clients and sign the roster; the federation's key and the audit log's are made the first time."""
    from testudo_common.errors import UsageError
    from testudo_server.roster import FEDERATION_PUBLIC, ROSTER, admit

    members: dict[str, str] = {}
    for text in add or []:
        client, equals, key = text.rpartition("=")
        if not equals or not client or client in members:
            raise UsageError(f"{text!r} admits nobody", remedy="write each client once, as --add CLIENT=KEY")
        members[client] = key
    signed = admit(folder, federation, members, log_key=log_key)
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


audit = typer.Typer(
    no_args_is_help=True,
    help="Show, prove and export a run's audit log, and add to it.\n\nExample: testudo-server audit show run",
)
app.add_typer(audit, name="audit")
Run = Annotated[Path, typer.Argument(help="The folder that the run is kept in.", show_default=False)]


@audit.command("show", epilog="Example: testudo-server audit show run | less")
def audit_show(
    out: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
) -> None:
    """Print the log, an entry a line."""
    from testudo_server.audit_command import show_log

    show_log(out, as_json=as_json)


@audit.command("prove", epilog="Example: testudo-server audit prove run --round 3 --client shop-1")
def audit_prove(
    out: Run,
    entry: Annotated[int | None, typer.Option(min=0, help="Its index, from 0.", show_default=False)] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, help="The round of a client's update.", show_default=False)
    ] = None,
    client: Annotated[str | None, typer.Option(help="Whose update.", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option(help="A file; without: standard output.", show_default=False)] = None,
) -> None:
    """Print a receipt: that an entry stands in the log, under a checkpoint with its cosignatures."""
    from testudo_common.files import write_atomically
    from testudo_server.audit_command import ProofRequest, prove_entry

    receipt = prove_entry(ProofRequest(out, entry, round_number, client))
    if to is None:
        typer.echo(receipt, nl=False)
    else:
        write_atomically(to, receipt)


@audit.command("export", epilog="Example: testudo-server audit export run --to run.tlog")
def audit_export(
    out: Run,
    to: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
) -> None:
    """Write the whole log to one file: with federation.pub, it can be checked by testudo-client audit verify."""
    from testudo_server.audit_command import export_log

    typer.echo(f"{to}: {export_log(out, to)} entries")


@audit.command(
    "record", epilog="Example: testudo-server audit record run --keys federation --release 'the clinics of Ulm'"
)
def audit_record(
    out: Run,
    keys: Annotated[Path, typer.Option(help="The folder of the federation's keys.", show_default=False)],
    drill: Annotated[
        Path | None, typer.Option(help="Report of a leakage drill; its digest is logged.", show_default=False)
    ] = None,
    passed: Annotated[
        bool | None, typer.Option("--passed/--failed", help="Whether the drill found nothing.", show_default=False)
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="For whom the last round's model is released.", show_default=False)
    ] = None,
    incident: Annotated[str | None, typer.Option(help="What happened, in words.", show_default=False)] = None,
) -> None:
    """Add what only a person knows; owners see it when the run is gone on with."""
    from testudo_server.audit_command import Recording, record_entry

    index = record_entry(Recording(out, keys, drill, passed, release, incident))
    typer.echo(f"Entry {index} is in the log; owners see it when the run is resumed")


def main() -> None:
    """Entry point of ``testudo-server``."""
    run_command(app)


if __name__ == "__main__":
    main()
