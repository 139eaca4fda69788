"""The commands by which a data owner joins a federation. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testudo_common.commands import at_a_terminal

if TYPE_CHECKING:
    from datetime import datetime

Folder = Annotated[Path, typer.Argument(help="Your folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
To = Annotated[Path | None, typer.Option(help="Write it into this file too.", show_default=False)]
_POLICY = "The policy, where there is none yet; defaults as of init"


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
    app.command(epilog="Example: testudo-client join shop-1.invite.json my-folder --to shop-1.request.json")(join)
    app.command(epilog="Example: testudo-client install shop-1.answer.json my-folder")(install)
    app.command(epilog="Example: testudo-client renew my-folder --to shop-1.renewal.json")(renew)


def join(
    invite: Annotated[Path, typer.Argument(help="The operator's invitation, a file.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Your folder; made if there is none.", show_default=False)],
    to: To = None,
    epsilon_per_run: Annotated[
        float | None, typer.Option(help="The most that one plan may spend.", rich_help_panel=_POLICY)
    ] = None,
    epsilon_for_life: Annotated[
        float | None, typer.Option(help="The most that all plans may ever spend.", rich_help_panel=_POLICY)
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Well under one over the number of your examples.", rich_help_panel=_POLICY)
    ] = None,
    no_privacy: Annotated[
        bool | None,
        typer.Option("--no-privacy", help="Allow plans without differential privacy.", rich_help_panel=_POLICY),
    ] = None,
    min_cohort: Annotated[
        int | None, typer.Option(help="Fewer clients must never be grouped.", rich_help_panel=_POLICY)
    ] = None,
    min_group: Annotated[
        int | None, typer.Option(help="A sum over fewer clients must never be opened.", rich_help_panel=_POLICY)
    ] = None,
    max_participations: Annotated[
        int | None, typer.Option(help="Rounds of one plan that you may take part in.", rich_help_panel=_POLICY)
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Allow this model; repeat for more.", rich_help_panel=_POLICY)
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of one update.", rich_help_panel=_POLICY)] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="How long it holds.", rich_help_panel=_POLICY)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Accept an invitation: makes your keys and a strict policy where there are none, and the request to send back.

    Your private keys stay in your folder. Read the fingerprint to the operator before anything is installed.
    """
    from testudo_client.init_command import InitRequest
    from testudo_client.provisioning import joining
    from testudo_client.provisioning.connection import ConnectionFiles
    from testudo_common.provisioning.document_files import hand_out, read_small

    options = {
        "epsilon_per_run": epsilon_per_run,
        "epsilon_for_life": epsilon_for_life,
        "delta": delta,
        "no_privacy": no_privacy,
        "min_cohort": min_cohort,
        "min_group": min_group,
        "max_participations": max_participations,
        "models": model or None,
        "max_bytes": max_bytes,
        "days": days,
    }
    stated: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    _refuse_options_of_a_policy_there(folder, stated)
    made = joining.join(read_small(invite), InitRequest(folder, "", **stated), _now(), source=str(invite))
    if to is not None:
        hand_out(to, made.request.to_bytes())
    path, invitation = to or ConnectionFiles(folder).request, made.invitation
    if as_json:
        _print(
            {
                "client": invitation.client,
                "federation": invitation.federation,
                "federation_key": invitation.federation_key,
                "server": [invitation.host, invitation.port],
                "request": str(path),
                "fingerprint": made.fingerprint,
                "missing_pin": made.missing_pin,
            }
        )
        return
    typer.echo(f"You are {invitation.client!r} in {invitation.federation!r}, at {invitation.host} {invitation.port}.")
    typer.echo(f"{path}: your request. Send it to the operator.")
    typer.echo(f"Fingerprint: {made.fingerprint}")
    typer.echo("Read all of it to the operator, by voice or in person: it must read the same. Nothing else stops a")
    typer.echo("forger. Then install the answer you get: testudo-client install ANSWER " + str(folder))
    _tell_missing_pin(folder, made.missing_pin)


def install(
    answer: Annotated[Path, typer.Argument(help="The operator's answer, a file.", show_default=False)],
    folder: Folder,
    fingerprint: Annotated[
        str | None, typer.Option(help="As the operator read it to you; none: you are asked.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Install an operator's answer: certificate, roster, and where the server is. Safe to run twice."""
    from testudo_client.home import OwnerHome
    from testudo_client.provisioning import installing
    from testudo_client.provisioning.connection import ConnectionFiles, read_connection
    from testudo_client.provisioning.joining import accepted, missing_pin
    from testudo_common.provisioning.certificates import read_certificate
    from testudo_common.provisioning.document_files import read_answer
    from testudo_common.provisioning.expiry import days_left, expiry_warning
    from testudo_common.provisioning.fingerprint import confirm

    home, now = OwnerHome(folder), _now()
    examined = installing.examine(home, read_answer(answer), now, source=str(answer))
    if examined.fingerprint:
        if not as_json:
            typer.echo(f"Fingerprint with {examined.answer.federation!r}: {examined.fingerprint}")
        confirm(examined.fingerprint, fingerprint, _ask if at_a_terminal() and not as_json else None)
    installing.install(home, examined)
    certificate = read_certificate(examined.answer.certificate, source=str(answer))
    warning = expiry_warning("your certificate", certificate, now, remedy=f"testudo-client renew {folder}")
    pin = missing_pin(home, accepted(ConnectionFiles(folder))[0])
    if as_json:
        _print(
            {
                "client": examined.answer.client,
                "federation": examined.answer.federation,
                "server": [examined.answer.host, examined.answer.port],
                "certificate_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
                "days_left": days_left(certificate, now),
                "installed_before": examined.installed,
                "missing_pin": pin,
                "warnings": [warning] if warning else [],
            }
        )
        return
    place = read_connection(folder).address
    typer.echo(
        f"{'Is installed already' if examined.installed else 'Installed'}: {examined.answer.client!r}, at {place}"
    )
    typer.echo(f"Your certificate: until {certificate.not_valid_after_utc:%Y-%m-%d}")
    if warning:
        typer.echo(f"warning: {warning}")
    _tell_missing_pin(folder, pin)


def renew(folder: Folder, to: To = None, as_json: AsJson = False) -> None:
    """Make the next TLS key, and a request for its certificate, signed with your key. Installs nothing yet."""
    from testudo_client.home import OwnerHome
    from testudo_client.provisioning import renewal
    from testudo_client.provisioning.connection import ConnectionFiles
    from testudo_common.provisioning.document_files import hand_out

    made = renewal.renew(OwnerHome(folder))
    if to is not None:
        hand_out(to, made.to_bytes())
    path = to or ConnectionFiles(folder).renewal
    if as_json:
        _print({"client": made.client, "federation": made.federation, "request": str(path)})
        return
    typer.echo(f"{path}: a request for the next certificate of {made.client!r}. The old one works until then.")
    typer.echo(f"Send it to the operator, and install the answer: testudo-client install ANSWER {folder}")


def _ask() -> bool:
    return typer.confirm("Does the operator read the same to you, by voice or in person?")


def _refuse_options_of_a_policy_there(folder: Path, stated: dict[str, Any]) -> None:
    from testudo_client.home import OwnerHome
    from testudo_common.errors import UsageError

    policy = OwnerHome(folder).policy_file
    if stated and policy.exists():
        named = ", ".join(sorted(stated))
        raise UsageError(
            f"there is a policy already, and it is yours to edit ({named})", where=str(policy), remedy="leave them out"
        )


def _tell_missing_pin(folder: Path, pin: str) -> None:
    if pin:
        typer.echo("Your policy does not let this federation in yet. Once the fingerprints agree, write in [pins] of")
        typer.echo(f"{folder / 'policy.toml'}: {pin}")


def _print(answer: dict[str, Any]) -> None:
    typer.echo(json.dumps(answer, indent=2))


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)
