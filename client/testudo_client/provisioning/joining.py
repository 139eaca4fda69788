"""``testudo-client join``: what is missing of an owner's folder and keys, and the request that answers an invitation.

The private keys are made here and stay here. Nothing of the invitation is trusted by this: its keys are put down where
they are needed, but there is no connection before an answer is installed, and that asks for the fingerprint.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime

from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_client.provisioning.tls_pairs import current_key
from testudo_common.errors import ProvisionError, ProvisionFault, UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.key_files import create_key, public_hex, read_public
from testudo_common.provisioning.certificates import (
    key_in_csr,
    new_csr,
    node_key_text,
    public_bytes,
    read_certificate,
)
from testudo_common.provisioning.documents import Invitation, JoinRequest, prove_join
from testudo_common.provisioning.fingerprint import join_fingerprint
from testudo_common.provisioning.tls_keys import node_key


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of an invitation.

    Attributes:
        invitation: That was accepted.
        request: For the operator.
        fingerprint: For both people to compare.
        missing_pin: What is to be written into the policy so that this federation is let in; empty where it stands.
    """

    invitation: Invitation
    request: JoinRequest
    fingerprint: str
    missing_pin: str


def join(data: bytes, wanted: InitRequest, now: datetime, *, source: str) -> Joined:
    """Accept an invitation: the same one twice gives the same request.

    Args:
        data: The invitation, as it came.
        wanted: Folder, and the policy where there is none yet; its client and key are the invitation's.
        now: By this computer's clock.
        source: What to call the invitation in an error.

    Raises:
        ProvisionError: The invitation cannot be used, or is another federation's than this folder's.
        UsageError, KeyFileError, PolicyError: The folder cannot be used.
    """
    invitation = Invitation.from_bytes(data, source=source)
    invitation.verify(invitation.federation_key, source=source)
    invitation.refuse_if_expired(now, source=source)
    read_certificate(invitation.ca, source=source)
    home, files = OwnerHome(wanted.folder), ConnectionFiles(wanted.folder)
    _refuse_another_federation(home, invitation, source)
    _make_folder(home, wanted, invitation)
    make_private(files.folder)
    if not home.federation_key_file.exists():
        write_atomically(home.federation_key_file, f"{invitation.federation_key}\n".encode())
    if not files.ca_certificate.exists():
        write_atomically(files.ca_certificate, invitation.ca.encode())
    request = _request(home, files, invitation)
    return Joined(invitation, request, join_fingerprint(invitation, request), missing_pin(home, invitation))


def missing_pin(home: OwnerHome, invitation: Invitation) -> str:
    """What is to be written into the policy's ``[pins]`` so that this federation is let in; empty where it stands.

    Raises:
        PolicyError: The policy cannot be used.
    """
    pins = home.policy().pins.federation_key
    known = pins == "any" or invitation.federation_key in pins
    return "" if known else f'federation_key = ["{invitation.federation_key}"]'


def accepted(files: ConnectionFiles) -> tuple[Invitation, JoinRequest]:
    """The invitation that was accepted, and the request that answers it.

    Raises:
        UsageError: There is none.
        ProvisionError: They are not whole, or do not belong together.
    """
    try:
        invitation = Invitation.from_bytes(files.invitation.read_bytes(), source=str(files.invitation))
        request = JoinRequest.from_bytes(files.request.read_bytes(), source=str(files.request))
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=error.filename,
            remedy="accept the invitation first: testudo-client join INVITE FOLDER",
        ) from error
    if request.invitation != invitation.digest:
        raise ProvisionError(
            ProvisionFault.UNKNOWN,
            "the request answers another invitation",
            where=str(files.request),
            remedy="accept the invitation again: testudo-client join INVITE FOLDER",
        )
    return invitation, request


def _refuse_another_federation(home: OwnerHome, invitation: Invitation, source: str) -> None:
    there = home.federation_key_file
    if there.exists() and read_public(there).public_bytes_raw().hex() != invitation.federation_key:
        raise ProvisionError(
            ProvisionFault.FEDERATION,
            f"the invitation is of another federation than {there} says",
            where=source,
            remedy="join from a folder of its own for each federation; if that key is the one that was forged, begin "
            "with a new folder",
        )


def _make_folder(home: OwnerHome, wanted: InitRequest, invitation: Invitation) -> None:
    """Policy and roster key, unless they are there."""
    if not home.policy_file.exists():
        make_home(replace(wanted, client=invitation.client, federation_key=invitation.federation_key))
        return
    policy = home.policy()
    if policy.client != invitation.client:
        raise ProvisionError(
            ProvisionFault.CLIENT,
            f"the invitation is for {invitation.client!r}, and this policy is {policy.client!r}'s",
            where=str(home.policy_file),
            remedy="ask for an invitation under your name, or join from another folder",
        )
    if not home.identity_file.exists():
        create_key(home.identity_file)


def _request(home: OwnerHome, files: ConnectionFiles, invitation: Invitation) -> JoinRequest:
    """The request that lies there for this invitation, or a new one with a new nonce."""
    roster_key, node, tls = home.key(), node_key(files.node_key), current_key(files)
    if files.request.exists():
        there = JoinRequest.from_bytes(files.request.read_bytes(), source=str(files.request))
        own = public_bytes(key_in_csr(there.csr, source=str(files.request))) == public_bytes(tls.public_key())
        keys = (there.roster_key, there.node_key)
        if (
            own
            and there.invitation == invitation.digest
            and keys == (public_hex(roster_key), node_key_text(node.public_key()))
        ):
            write_atomically(files.invitation, invitation.to_bytes())
            return there
    made = prove_join(
        roster_key,
        node,
        id=invitation.id,
        invitation=invitation.digest,
        federation=invitation.federation,
        client=invitation.client,
        nonce=secrets.token_hex(16),
        roster_key=public_hex(roster_key),
        node_key=node_key_text(node.public_key()),
        csr=new_csr(tls),
    )
    write_atomically(files.invitation, invitation.to_bytes())
    write_atomically(files.request, made.to_bytes())
    return made
