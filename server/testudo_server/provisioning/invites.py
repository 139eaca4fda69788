"""``testudo-server invite``: signed invitations, and which of them wait for a request. Admits nobody."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path

from testudo_common.errors import ProvisionError, ProvisionFault, UsageError
from testudo_common.files import write_atomically
from testudo_common.key_files import read_key
from testudo_common.provisioning.certificates import certificate_pem
from testudo_common.provisioning.documents import Invitation, sign_as_federation, time_text
from testudo_common.roster import is_client_id
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.provisioning.foundation import foundation_in
from testudo_server.roster import FEDERATION_KEY

DEFAULT_DAYS = 14


def invite(folder: FederationFolder, client: str, *, days: int = DEFAULT_DAYS, now: datetime) -> Invitation:
    """An invitation for ``client``; the one that waits already, if there is one.

    Args:
        folder: The federation's.
        client: Its name to be; no member that was admitted and not revoked may have it.
        days: For how long, at least 1.
        now: By this computer's clock.

    Raises:
        UsageError: The name cannot be used or is taken, or the folder is not complete.
        KeyFileError, ProvisionError: A file in the folder cannot be used.
    """
    if not is_client_id(client):
        raise UsageError("a client's name must be 1 to 128 printable characters", where=repr(client)[:80])
    member = folder.member(client)
    if member is not None and not member.revoked:
        raise UsageError(
            "there is a member of that name already",
            where=client,
            remedy="it renews its certificate with testudo-client renew; for new keys, testudo-server revoke it first",
        )
    for waiting in waiting_invitations(folder, now):
        if waiting.client == client:
            return waiting
    made, settings = foundation_in(folder), folder.settings()
    invitation = sign_as_federation(
        Invitation,
        read_key(folder.folder / FEDERATION_KEY),
        id=secrets.token_hex(16),
        federation=settings.federation,
        federation_key=made.federation_key,
        ca=certificate_pem(made.authority),
        host=settings.hosts[0],
        port=settings.port,
        client=client,
        expires=time_text(now + timedelta(days=days)),
    )
    write_atomically(folder.invitation(invitation.id), invitation.to_bytes())
    return invitation


def kept_invitation(folder: FederationFolder, invitation_id: str, *, source: str) -> Invitation:
    """The invitation with this id, as it was written here.

    Raises:
        ProvisionError: There is none, or it is not whole.
    """
    path = folder.invitation(invitation_id)
    try:
        return Invitation.from_bytes(path.read_bytes(), source=str(path))
    except OSError as error:
        raise ProvisionError(
            ProvisionFault.UNKNOWN,
            "it answers an invitation that was not written here",
            where=source,
            remedy="ask the owner which invitation it used; if it is not yours, somebody replaced it on its way",
        ) from error


def waiting_invitations(folder: FederationFolder, now: datetime) -> list[Invitation]:
    """Those that nobody used and that have not ended, by client.

    Raises:
        ProvisionError: A file there is not an invitation.
    """
    found = []
    for path in folder.invites.glob("*.json"):
        invitation = _read(path)
        if now < invitation.expires_at and not folder.used(invitation.id).exists():
            found.append(invitation)
    return sorted(found, key=_client_of)


def _read(path: Path) -> Invitation:
    return Invitation.from_bytes(path.read_bytes(), source=str(path))


def _client_of(invitation: Invitation) -> str:
    return invitation.client
