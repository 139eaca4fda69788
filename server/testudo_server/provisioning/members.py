"""``testudo-server revoke`` and ``members``: who may take part, until when, and who does not any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from testudo_common.errors import UsageError
from testudo_common.provisioning.certificates import read_certificate
from testudo_common.provisioning.expiry import days_left, expiry_warning
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.roster import expel, roster_in


@dataclass(frozen=True, slots=True)
class Standing:
    """How one member stands.

    Attributes:
        client: Its name.
        until: When its certificate runs out, a date.
        days_left: Until then; 0 or negative once it has.
        revoked: Whether it is not let in any more.
        on_roster: Whether rounds may draw it.
        warning: A sentence in the last 30 days of its certificate; empty before.
    """

    client: str
    until: str
    days_left: int
    revoked: bool
    on_roster: bool
    warning: str


def revoke(folder: FederationFolder, client: str) -> bool:
    """Let a member in no more: its certificate opens no connection from now on, and the roster is signed without it.

    Returns:
        Whether anything changed: False where it was revoked already.

    Raises:
        UsageError: There is no such member.
        RosterError, KeyFileError: The roster cannot be signed; then the door does not let it in all the same.
    """
    with folder.changed_alone():
        return _revoke(folder, client)


def _revoke(folder: FederationFolder, client: str) -> bool:
    member, listed = folder.member(client), client in roster_in(folder.folder).members
    if member is None and not listed:
        known = ", ".join(repr(each.client) for each in folder.members()[:20])
        raise UsageError(
            "there is no such member", where=client, remedy=f"it has: {known}" if known else "it has no members yet"
        )
    if member is not None and not member.revoked:
        folder.keep_member(replace(member, revoked=True))
    if listed:
        expel(folder.folder, client)
    return listed or (member is not None and not member.revoked)


def standings(folder: FederationFolder, now: datetime) -> list[Standing]:
    """Everybody who was ever admitted, by name.

    Raises:
        UsageError, RosterError, KeyFileError: The folder cannot be used.
        ProvisionError: A member's certificate is not one.
    """
    listed = roster_in(folder.folder).members
    found = []
    for member in folder.members():
        certificate = read_certificate(member.certificate, source=str(folder.member_file(member.client)))
        warning = expiry_warning(
            f"the certificate of {member.client!r}",
            certificate,
            now,
            remedy="ask its owner for testudo-client renew, and admit the request",
        )
        found.append(
            Standing(
                member.client,
                f"{certificate.not_valid_after_utc:%Y-%m-%d}",
                days_left(certificate, now),
                member.revoked,
                member.client in listed,
                "" if member.revoked else warning or "",
            )
        )
    return found
