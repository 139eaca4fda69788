"""The commands by which an operator admits data owners. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testudo_common.commands import at_a_terminal

if TYPE_CHECKING:
    from datetime import datetime

    from testudo_server.provisioning.folder import FederationFolder
    from testudo_server.provisioning.foundation import Foundation

Folder = Annotated[Path, typer.Argument(help="The federation's folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
To = Annotated[Path | None, typer.Option(help="Write it into this file too.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command(epilog="Example: testudo-server init fed --federation shops --host fl.example.org")(init)
    app.command(epilog="Example: testudo-server invite fed shop-1 --to shop-1.invite.json")(invite)
    app.command(epilog="Example: testudo-server admit fed shop-1.request.json --to shop-1.answer.json")(admit)
    app.command(epilog="Example: testudo-server renew fed")(renew)
    app.command(epilog="Example: testudo-server revoke fed shop-1")(revoke)
    app.command(epilog="Example: testudo-server members fed --json")(members)


def init(
    folder: Folder,
    federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)],
    host: Annotated[
        list[str],
        typer.Option(
            help="Name or address of the server; the first is told to owners, repeat for more.", show_default=False
        ),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where owners connect.")] = 9092,
    log_key: Annotated[
        str | None, typer.Option(metavar="KIND", help="ed25519 or ml-dsa-44: which kind of key the log gets.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a federation's folder: its keys, CA and server certificate. A second time it changes nothing."""
    from testudo_common.errors import UsageError
    from testudo_server.provisioning.folder import FederationFolder, FederationSettings
    from testudo_server.provisioning.foundation import found

    if log_key not in (None, "ed25519", "ml-dsa-44"):
        raise UsageError(f"{log_key!r} is no kind of key", where="--log-key", remedy="write ed25519 or ml-dsa-44")
    _refuse_bad_names(federation, host)
    now, there = _now(), FederationFolder(folder)
    was_there = there.settings_file.exists() and there.server_certificate.exists()
    settings = FederationSettings(federation=federation, hosts=tuple(host), port=port)
    made = found(there, settings, log_key=log_key, now=now)  # type: ignore[arg-type]
    _tell_foundation(there.folder, made, now, as_json, "is there already; nothing was changed" if was_there else "made")
    if not as_json and not was_there:
        typer.echo(
            f"Keep {folder} to yourself, and a copy of it elsewhere. Next: testudo-server invite {folder} CLIENT"
        )


def invite(
    folder: Folder,
    client: Annotated[str, typer.Argument(help="The name that the owner is to have.", show_default=False)],
    to: To = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it may be used.")] = 14,
    as_json: AsJson = False,
) -> None:
    """Write an invitation for one data owner. There is no secret in it; one that waits already is used again."""
    from testudo_common.provisioning.document_files import hand_out
    from testudo_server.provisioning import invites

    there = _existing(folder)
    made = invites.invite(there, client, days=days, now=_now())
    if to is not None:
        hand_out(to, made.to_bytes())
    path = to or there.invitation(made.id)
    if as_json:
        _print({"client": made.client, "id": made.id, "expires": made.expires, "invitation": str(path)})
        return
    typer.echo(f"{path}: an invitation for {made.client!r}, until {made.expires}")
    typer.echo("Send it to the owner, who runs: testudo-client join INVITE FOLDER")
    typer.echo(f"and sends back a request. Then: testudo-server admit {folder} REQUEST")


def admit(
    folder: Folder,
    request: Annotated[Path, typer.Argument(help="The owner's request, a file.", show_default=False)],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the owner read it to you; none: you are asked.", show_default=False)
    ] = None,
    to: To = None,
    as_json: AsJson = False,
) -> None:
    """Admit an owner, or renew its certificate. Compare the fingerprint by voice first: only that stops a forger."""
    from testudo_common.provisioning.document_files import hand_out, read_small
    from testudo_common.provisioning.fingerprint import confirm
    from testudo_server.provisioning import admission

    there, now = _existing(folder), _now()
    examined = admission.examine(there, read_small(request), now, source=str(request))
    client = examined.request.client
    if examined.fingerprint and not examined.answered:
        if not as_json:
            typer.echo(f"Fingerprint with {client!r}: {examined.fingerprint}")
        can_ask = at_a_terminal() and not as_json
        confirm(examined.fingerprint, fingerprint, _asking(client) if can_ask else None)
    made = admission.answer(there, examined, now)
    path = to or there.answer(examined.request.digest)
    if to is not None:
        hand_out(to, made.to_bytes())
    if as_json:
        shown = {"fingerprint": examined.fingerprint} if examined.fingerprint else {}
        _print({"client": client, "answer": str(path), "answered_before": examined.answered, **shown})
        return
    done = "was answered before: the same answer again" if examined.answered else "has a certificate now"
    typer.echo(f"{path}: {client!r} {done}")
    typer.echo("Send it to the owner, who runs: testudo-client install ANSWER FOLDER")


def renew(folder: Folder, as_json: AsJson = False) -> None:
    """Renew the server's certificate, for the hosts in federation.toml. The CA stays, and says when it ends."""
    from testudo_server.provisioning import foundation

    now = _now()
    made = foundation.renew(_existing(folder), now)
    _tell_foundation(folder, made, now, as_json, "has a new server certificate; restart the run to use it")


def revoke(
    folder: Folder,
    client: Annotated[str, typer.Argument(help="The member's name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Let a member in no more: its certificate opens nothing, and the roster is signed without it."""
    from testudo_server.provisioning import members as standing

    changed = standing.revoke(_existing(folder), client)
    if as_json:
        _print({"client": client, "revoked": True, "changed": changed})
        return
    typer.echo(f"{client!r} {'is revoked' if changed else 'was revoked before; nothing was changed'}")


def members(folder: Folder, as_json: AsJson = False) -> None:
    """Show who was admitted, until when, who was revoked, and which invitations wait."""
    from dataclasses import asdict

    from testudo_server.provisioning.foundation import foundation_in, warnings_of
    from testudo_server.provisioning.invites import waiting_invitations
    from testudo_server.provisioning.members import standings

    there, now = _existing(folder), _now()
    found, waiting = standings(there, now), waiting_invitations(there, now)
    warnings = [*warnings_of(foundation_in(there), now), *(each.warning for each in found if each.warning)]
    if as_json:
        invitations = [{"client": each.client, "id": each.id, "expires": each.expires} for each in waiting]
        _print({"members": [asdict(each) for each in found], "waiting": invitations, "warnings": warnings})
        return
    for each in found:
        state = "revoked" if each.revoked else f"until {each.until}, {each.days_left} days"
        typer.echo(f"{each.client}  {state}{'' if each.on_roster or each.revoked else ', not on the roster'}")
    for invitation in waiting:
        typer.echo(f"{invitation.client}  invited, until {invitation.expires}")
    if not found and not waiting:
        typer.echo(f"Nobody yet. Next: testudo-server invite {folder} CLIENT")
    for warning in warnings:
        typer.echo(f"warning: {warning}")


def _existing(folder: Path) -> FederationFolder:
    """The folder, which testudo-server init has made."""
    from testudo_server.provisioning.folder import FederationFolder

    there = FederationFolder(folder)
    there.settings()
    return there


def _asking(client: str) -> Any:
    def ask() -> bool:
        return typer.confirm(f"Does the owner of {client!r} read the same to you, by voice or in person?")

    return ask


def _refuse_bad_names(federation: str, hosts: list[str]) -> None:
    """In words of the command line, before they are settings of a file."""
    from testudo_common.errors import UsageError
    from testudo_common.provisioning.certificates import is_host
    from testudo_common.roster import is_client_id

    if not is_client_id(federation):
        raise UsageError("it must be 1 to 128 printable characters", where="--federation", remedy="choose another name")
    for host in hosts:
        if not is_host(host):
            raise UsageError(f"{host!r} is neither a DNS name nor an IP address", where="--host", remedy="correct it")


def _tell_foundation(folder: Path, made: Foundation, now: datetime, as_json: bool, what: str) -> None:
    from testudo_server.provisioning.foundation import warnings_of

    warnings, settings = warnings_of(made, now), made.settings
    ends = {"server": made.server.not_valid_after_utc, "ca": made.authority.not_valid_after_utc}
    if as_json:
        _print(
            {
                "federation": settings.federation,
                "folder": str(folder),
                "hosts": list(settings.hosts),
                "port": settings.port,
                "federation_key": made.federation_key,
                "fingerprint": made.fingerprint,
                "server_certificate": made.server_digest,
                "server_certificate_until": f"{ends['server']:%Y-%m-%d}",
                "ca_until": f"{ends['ca']:%Y-%m-%d}",
                "warnings": warnings,
            }
        )
        return
    typer.echo(f"{folder}: the federation {settings.federation!r} {what}")
    typer.echo(f"Server: {', '.join(settings.hosts)}, port {settings.port}")
    typer.echo(f"Federation's key: {made.federation_key}")
    typer.echo(f"Federation's fingerprint: {made.fingerprint}")
    typer.echo(f"Server's certificate: until {ends['server']:%Y-%m-%d}, SHA-256 {made.server_digest}")
    typer.echo(f"CA: until {ends['ca']:%Y-%m-%d}")
    for warning in warnings:
        typer.echo(f"warning: {warning}")


def _print(answer: dict[str, Any]) -> None:
    typer.echo(json.dumps(answer, indent=2))


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)
