"""``testudo-server admit``: verifies what an owner asks for, and answers it: roster, certificate, signed answer.

Everything is verified before anything is written. An answer is written in one step, under a name that says that it is
pending; then the member's file follows from it, and last it gets its final name. So after a crash the same request gets
the same answer, there is never a second certificate for one request, and an old request changes nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from testudo_common.errors import ProvisionError, ProvisionFault, UsageError
from testudo_common.files import write_atomically
from testudo_common.key_files import read_key
from testudo_common.provisioning.certificates import certificate_pem, client_certificate, key_in_csr
from testudo_common.provisioning.documents import (
    Answer,
    JoinRequest,
    RenewalRequest,
    kind_of,
    sign_as_federation,
)
from testudo_common.provisioning.fingerprint import join_fingerprint
from testudo_server.provisioning.folder import FederationFolder, Member
from testudo_server.provisioning.foundation import authority_in, foundation_in
from testudo_server.provisioning.invites import kept_invitation
from testudo_server.roster import FEDERATION_KEY, ROSTER, admit, roster_in


@dataclass(frozen=True, slots=True)
class Examined:
    """A request that may be answered.

    Attributes:
        request: What is asked.
        fingerprint: For a join, what both people compare; empty for a renewal, which the member's roster key signed.
        answered: Whether it was answered before.
    """

    request: JoinRequest | RenewalRequest
    fingerprint: str
    answered: bool


def examine(folder: FederationFolder, data: bytes, now: datetime, *, source: str) -> Examined:
    """Verify a request and change nothing.

    Args:
        folder: The federation's.
        data: As it came.
        now: By this computer's clock.
        source: What to call it in an error.

    Raises:
        ProvisionError: It is refused.
        UsageError, KeyFileError, RosterError: The folder cannot be used.
    """
    match kind_of(data, source=source):
        case "testudo-join":
            return _examine_join(folder, JoinRequest.from_bytes(data, source=source), now, source)
        case "testudo-renewal":
            return _examine_renewal(folder, RenewalRequest.from_bytes(data, source=source), source)
    raise ProvisionError(
        ProvisionFault.FORMAT,
        "neither a join request nor a renewal request",
        where=source,
        remedy="name the file that testudo-client join or testudo-client renew wrote",
    )


def answer(folder: FederationFolder, examined: Examined, now: datetime) -> Answer:
    """Admit or renew; the caller has had the fingerprint compared.

    Raises:
        ProvisionError: Another request was answered since, and this one is refused now.
        RosterError, UsageError, KeyFileError: The folder cannot be used.
    """
    request = examined.request
    final, pending = folder.answer(request.digest), folder.pending_answer(request.digest)
    with folder.changed_alone():
        if final.exists():
            return Answer.from_bytes(final.read_bytes(), source=str(final))
        if not pending.exists():
            if isinstance(request, JoinRequest):
                # Again, and now alone: another request may have come in while people compared fingerprints.
                _refuse_used(folder, request.id, request.client)
                _refuse_taken(folder, request, request.client)
                admit(folder.folder, request.federation, {request.client: request.roster_key})
            write_atomically(pending, _signed_answer(folder, request, now).to_bytes())
        made = Answer.from_bytes(pending.read_bytes(), source=str(pending))
        _write_down(folder, request, made)
        pending.replace(final)
        return made


def _is_answered(folder: FederationFolder, request: JoinRequest | RenewalRequest) -> bool:
    return folder.answer(request.digest).exists() or folder.pending_answer(request.digest).exists()


def _examine_join(folder: FederationFolder, request: JoinRequest, now: datetime, source: str) -> Examined:
    request.verify(source=source)
    key_in_csr(request.csr, source=source)
    invitation = kept_invitation(folder, request.id, source=source)
    if request.invitation != invitation.digest or request.federation != invitation.federation:
        raise ProvisionError(
            ProvisionFault.FEDERATION,
            "it answers another invitation than the one that was written here under this id",
            where=source,
            remedy="somebody replaced the invitation on its way: invite the owner again, by another way",
        )
    if request.client != invitation.client:
        raise ProvisionError(
            ProvisionFault.CLIENT, f"the invitation is for {invitation.client!r}", where=source, remedy="invite it too"
        )
    answered = _is_answered(folder, request)
    if answered:
        key = roster_in(folder.folder).members.get(request.client, b"")
        _refuse_revoked(request.client, revoked=key.hex() != request.roster_key, source=source)
    else:
        _refuse_used(folder, invitation.id, source)
        invitation.refuse_if_expired(now, source=source)
        _refuse_taken(folder, request, source)
    return Examined(request, join_fingerprint(invitation, request), answered)


def _examine_renewal(folder: FederationFolder, request: RenewalRequest, source: str) -> Examined:
    roster, member = roster_in(folder.folder), folder.member(request.client)
    if request.federation != roster.federation:
        raise ProvisionError(
            ProvisionFault.FEDERATION, f"it is for the federation {request.federation!r}", where=source,
            remedy="name that federation's folder",
        )  # fmt: skip
    _refuse_revoked(request.client, revoked=member is not None and member.revoked, source=source)
    key = roster.members.get(request.client)
    if key is None or member is None:
        raise ProvisionError(
            ProvisionFault.UNKNOWN, f"nobody was admitted as {request.client!r}", where=source,
            remedy="invite it: testudo-server invite",
        )  # fmt: skip
    request.verify(key.hex(), source=source)
    key_in_csr(request.csr, source=source)
    return Examined(request, "", _is_answered(folder, request))


def _refuse_used(folder: FederationFolder, invitation_id: str, source: str) -> None:
    if folder.used(invitation_id).exists():
        raise ProvisionError(
            ProvisionFault.USED,
            "the invitation was used already, for another request",
            where=source,
            remedy="if the owner made new keys, testudo-server revoke it and invite it again; if it did not, somebody "
            "else has its invitation",
        )


def _refuse_revoked(client: str, *, revoked: bool, source: str) -> None:
    if revoked:
        raise ProvisionError(
            ProvisionFault.REVOKED,
            f"{client!r} was revoked",
            where=source,
            remedy="to let it in again, invite it again: testudo-server invite",
        )


def _refuse_taken(folder: FederationFolder, request: JoinRequest, source: str) -> None:
    """A roster key under two names would be two voices of one owner; Flower refuses a node key twice."""
    for client, key in roster_in(folder.folder).members.items():
        same_name, same_key = client == request.client, key.hex() == request.roster_key
        if same_name != same_key:
            raise ProvisionError(
                ProvisionFault.KEY if same_key else ProvisionFault.CLIENT,
                f"the roster holds {'this key as' if same_key else 'another key for'} {client!r}",
                where=source,
                remedy="let the owner join from a folder of its own for each name; or revoke the other first",
            )
    for member in folder.members():
        if member.client != request.client and not member.revoked and member.node_key == request.node_key:
            raise ProvisionError(
                ProvisionFault.KEY, f"the node key is that of {member.client!r}", where=source,
                remedy="let the owner join from a folder of its own for each name",
            )  # fmt: skip


def _signed_answer(folder: FederationFolder, request: JoinRequest | RenewalRequest, now: datetime) -> Answer:
    authority, settings = authority_in(folder), folder.settings()
    key = key_in_csr(request.csr, source="the request")
    return sign_as_federation(
        Answer,
        read_key(folder.folder / FEDERATION_KEY),
        request=request.digest,
        federation=settings.federation,
        federation_key=foundation_in(folder).federation_key,
        client=request.client,
        certificate=certificate_pem(client_certificate(authority, key, request.client, now)),
        ca=certificate_pem(authority.certificate),
        host=settings.hosts[0],
        port=settings.port,
        roster=(folder.folder / ROSTER).read_text(encoding="utf-8"),
    )


def _write_down(folder: FederationFolder, request: JoinRequest | RenewalRequest, made: Answer) -> None:
    """The member's file, and that the invitation is used; done again after a crash, it writes the same."""
    if isinstance(request, JoinRequest):
        folder.keep_member(Member(request.client, request.node_key, made.certificate))
        write_atomically(folder.used(request.id), f"{request.digest}\n".encode())
        return
    before = folder.member(request.client)
    if before is None:
        raise UsageError("the member's file is gone", where=str(folder.member_file(request.client)))
    if made.certificate != before.certificate:
        folder.keep_member(replace(before, certificate=made.certificate, earlier_certificate=before.certificate))
