"""Who may come through the door: a certificate, and the one node key that was admitted with it.

Flower's SuperLink finds a node by its public key alone, whatever connection it comes over. Bound to the certificate of
the connection, a node key that leaked is of no use without the TLS key, and neither the other way round.
"""

from __future__ import annotations

import hashlib
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from testudo_common.errors import UsageError
from testudo_server.deployment.door_rules import Reason, RefusedError
from testudo_server.provisioning.folder import FederationFolder, Member

SECONDS_BETWEEN_LOOKS = 1.0
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """One certificate that was admitted.

    Attributes:
        client: Whose it is.
        node_key: The value of the header ``flwr-public-key`` that goes with it.
        expires: End of the certificate's time.
        revoked: Whether it is not let in any more.
    """

    client: str
    node_key: bytes
    expires: datetime
    revoked: bool


class AdmittedMembers:
    """The federation's members as they stand in its folder, looked at again when a file there changes.

    Args:
        folder: The federation's.
        clock: Seconds that only grow.
    """

    def __init__(self, folder: FederationFolder, clock: Callable[[], float] = monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._stamp: _Stamp | None = None
        self._admitted: dict[bytes, Admitted] | None = None
        self._looked_at = -SECONDS_BETWEEN_LOOKS

    def look(self) -> None:
        """Read the members' files, if they changed and the last look is a second ago.

        Raises:
            UsageError: A file there is not a member's, or two members share a key. Until that is mended nobody passes:
                a revocation that cannot be read must not be one that does not count.
        """
        now = self._clock()
        if now - self._looked_at < SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = now
        stamp = self._read_stamp()
        if stamp == self._stamp and self._admitted is not None:
            return
        self._admitted = None
        self._admitted = _by_certificate(self._folder.members())
        self._stamp = stamp

    def who(self, certificate: bytes | None, now: datetime | None = None) -> Admitted:
        """The member to whom the connection's certificate was given.

        Args:
            certificate: DER, as TLS verified it.
            now: The time.

        Raises:
            RefusedError: It is nobody's, was revoked, or has expired while the connection stood.
        """
        if self._admitted is None:
            raise RefusedError(Reason.MEMBERS_UNREADABLE)
        found = None if certificate is None else self._admitted.get(hashlib.sha256(certificate).digest())
        if found is None:
            raise RefusedError(Reason.UNKNOWN)
        if found.revoked:
            raise RefusedError(Reason.REVOKED, found.client)
        if found.expires <= (now or datetime.now(UTC)):
            raise RefusedError(Reason.EXPIRED, found.client)
        return found

    def counted(self) -> tuple[int, int]:
        """Members who may come in, and those revoked."""
        admitted = list((self._admitted or {}).values())
        revoked = sum(each.revoked for each in admitted)
        return len(admitted) - revoked, revoked

    def _read_stamp(self) -> _Stamp:
        found = []
        for path in sorted(self._folder.members_folder.glob("*.json")):
            try:
                about = path.stat()
            except FileNotFoundError:  # replaced between the two calls: the next look sees it
                continue
            found.append((path.name, about.st_mtime_ns, about.st_ino))
        return tuple(found)


def node_key_header(node_key: str) -> bytes:
    """What Flower's SuperNode sends as ``flwr-public-key``: base64 of the PEM of the public key.

    Args:
        node_key: OpenSSH text.

    Raises:
        ValueError: It is no public key.
    """
    key = load_ssh_public_key(node_key.encode("ascii"))
    return b64encode(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _by_certificate(members: tuple[Member, ...]) -> dict[bytes, Admitted]:
    admitted: dict[bytes, Admitted] = {}
    keys: dict[bytes, str] = {}
    for member in members:
        refusal = UsageError(
            "its certificate or node key cannot be read", where=member.client, remedy="admit this member again"
        )
        shared = UsageError(
            "shares its certificate or node key with another member",
            where=member.client,
            remedy="every member makes its own: revoke both, and admit them again",
        )
        try:
            node_key = node_key_header(member.node_key)
            if not member.revoked and keys.setdefault(node_key, member.client) != member.client:
                raise shared
            # The earlier one is good until its owner has installed the renewal; of a revoked member neither is.
            for pem in filter(None, (member.certificate, member.earlier_certificate)):
                der = ssl.PEM_cert_to_DER_cert(pem)
                expires = x509.load_der_x509_certificate(der).not_valid_after_utc
                found = Admitted(member.client, node_key, expires, member.revoked)
                if admitted.setdefault(hashlib.sha256(der).digest(), found).client != member.client:
                    raise shared
        except ValueError as error:
            raise refusal from error
    return admitted
