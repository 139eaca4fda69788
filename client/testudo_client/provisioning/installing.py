"""``testudo-client install``: verifies an operator's answer, and puts certificate, roster and address into place.

What counts is what was pinned at join: the federation's key, the CA, this owner's name and its own keys. An answer may
only bring what was left open: a certificate under that CA, the roster under that key, and where the server is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_client.provisioning.joining import accepted
from testudo_client.provisioning.tls_pairs import current_key, next_key_if_there, use_next
from testudo_common.errors import ProvisionError, ProvisionFault, RosterError
from testudo_common.files import write_atomically
from testudo_common.key_files import public_hex, read_public
from testudo_common.provisioning.certificates import public_bytes, read_certificate, verify_client_certificate
from testudo_common.provisioning.documents import Answer, RenewalRequest
from testudo_common.provisioning.fingerprint import join_fingerprint
from testudo_common.roster import Roster, read_roster


@dataclass(frozen=True, slots=True)
class ExaminedAnswer:
    """An answer that may be installed.

    Attributes:
        answer: As it was signed.
        fingerprint: What both people have to compare first; empty for a renewal, and where it is installed already.
        installed: Whether it is in place already.
        next_pair: Whether its certificate is for the next TLS key.
    """

    answer: Answer
    fingerprint: str
    installed: bool
    next_pair: bool


def examine(home: OwnerHome, data: bytes, now: datetime, *, source: str) -> ExaminedAnswer:
    """Verify an answer and change nothing.

    Args:
        home: The owner's folder.
        data: As it came.
        now: By this computer's clock.
        source: What to call it in an error.

    Raises:
        ProvisionError, RosterError: It is refused.
        UsageError, KeyFileError: The folder cannot be used.
    """
    files = ConnectionFiles(home.folder)
    invitation, request = accepted(files)
    answer = Answer.from_bytes(data, source=source)
    pinned = read_public(home.federation_key_file).public_bytes_raw().hex()
    if answer.federation_key != pinned or invitation.federation_key != pinned:
        raise _refused(ProvisionFault.FEDERATION, "it is the answer of another federation than you joined", source)
    answer.verify(pinned, source=source)
    if (answer.federation, answer.client) != (invitation.federation, invitation.client):
        raise _refused(ProvisionFault.CLIENT, f"it is the answer for {answer.client!r}", source)
    if answer.ca != invitation.ca:
        raise _refused(ProvisionFault.CHAIN, "it names another CA than the invitation", source)
    ca = read_certificate(invitation.ca, source=str(files.invitation))
    certificate = read_certificate(answer.certificate, source=source)
    verify_client_certificate(certificate, ca, invitation.client, now, source=source)
    own = _roster_in(answer.roster.encode(), home, source)
    if own.members.get(invitation.client) != bytes.fromhex(public_hex(home.key())):
        raise _refused(ProvisionFault.KEY, "its roster does not hold your key under your name", source)
    current, following = current_key(files), next_key_if_there(files)
    of_next = following is not None and _is_for(following, certificate.public_key())
    if not of_next and not _is_for(current, certificate.public_key()):
        raise _refused(ProvisionFault.KEY, "its certificate is not for a TLS key that is in use or asked for", source)
    joins = answer.request == request.digest
    if not joins and (not files.renewal.exists() or answer.request != _renewal(files).digest):
        raise _refused(ProvisionFault.UNKNOWN, "it answers neither your request to join nor your last renewal", source)
    there = files.client_certificate
    installed = files.server.exists() and there.exists() and there.read_text(encoding="ascii") == answer.certificate
    fingerprint = join_fingerprint(invitation, request) if joins and not installed else ""
    return ExaminedAnswer(answer, fingerprint, installed, of_next)


def install(home: OwnerHome, examined: ExaminedAnswer) -> None:
    """Put an answer into place; the caller has had the fingerprint compared.

    Raises:
        UsageError: The folder cannot be used.
    """
    files, answer = ConnectionFiles(home.folder), examined.answer
    write_atomically(files.ca_certificate, answer.ca.encode())
    # An answer that is new here brings the newest roster; of one that was installed before, a fetched one is newer.
    if not (examined.installed and _has_roster(home, answer.client)):
        write_atomically(home.roster_file, answer.roster.encode())
    if examined.next_pair:
        use_next(files, answer.certificate)
    else:
        write_atomically(files.client_certificate, answer.certificate.encode())
    address = {"federation": answer.federation, "host": answer.host, "port": answer.port}
    write_atomically(files.server, f"{json.dumps(address, indent=1, ensure_ascii=False)}\n".encode())


def _has_roster(home: OwnerHome, client: str) -> bool:
    """Whether a roster is there that the federation signed with this owner on it."""
    try:
        there = _roster_in(home.roster_file.read_bytes(), home, str(home.roster_file))
    except (OSError, RosterError):
        return False
    return there.members.get(client) == bytes.fromhex(public_hex(home.key()))


def _roster_in(data: bytes, home: OwnerHome, source: str) -> Roster:
    return read_roster(data, read_public(home.federation_key_file), source=source)


def _renewal(files: ConnectionFiles) -> RenewalRequest:
    return RenewalRequest.from_bytes(files.renewal.read_bytes(), source=str(files.renewal))


def _is_for(key: ec.EllipticCurvePrivateKey, certified: object) -> bool:
    return isinstance(certified, ec.EllipticCurvePublicKey) and public_bytes(certified) == public_bytes(
        key.public_key()
    )


def _refused(fault: ProvisionFault, problem: str, source: str) -> ProvisionError:
    return ProvisionError(
        fault, problem, where=source, remedy="nothing was installed; ask the operator for the answer to your request"
    )
